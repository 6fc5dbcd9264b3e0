"""KServe's own clients, unmodified, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from onnx_models import identity, scale
from server_process import Process, serving

from driftline.registry.source import Registry


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    root: Path = tmp_path_factory.mktemp("kserve")
    registry = Registry.open(root / "models")
    registry.register([scale(root / "model.onnx", 2.0)], "scale")
    registry.register([identity(root / "model.onnx", "BYTES")], "words")
    registry.register([identity(root / "model.onnx", "FP32")], "same")
    with serving("--registry", root / "models", "--grpc-port", "0") as process:
        yield process


@pytest.mark.parametrize("binary", [True, False])
async def test_v2(server: Process, binary: bool) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    try:
        assert await client.is_server_live(server.url)
        assert await client.is_server_ready(server.url)
        assert await client.is_model_ready(server.url, "scale")
        tensor = InferInput("x", [2, 3], "FP32")
        tensor.set_data_from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3), binary_data=binary)
        request = InferRequest("scale", [tensor], request_id="42")
        answer = await client.infer(server.url, request, model_name="scale")
        assert answer.id == "42"
        outputs = {output.name: output.as_numpy() for output in answer.outputs}
        np.testing.assert_array_equal(outputs["y"], [[0, 2, 4], [6, 8, 10]])
        np.testing.assert_array_equal(outputs["total"], [6, 24])
        words = InferInput("x", [1, 3], "BYTES")
        words.set_data_from_numpy(np.array([["EWR", "", "É"]], dtype=object), binary_data=binary)
        answer = await client.infer(server.url, InferRequest("words", [words]), model_name="words")
        assert list(answer.outputs[0].data) == ["EWR", "", "É"]
    finally:
        await client.close()


async def test_v1(server: Process) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    try:
        assert await client.is_server_live(server.url)
        assert await client.is_model_ready(server.url, "same")
        answer = await client.infer(server.url, {"instances": [[1, 2, 3], [4, 5, 6]]}, model_name="same")
        assert answer == {"predictions": [[1, 2, 3], [4, 5, 6]]}
        answer = await client.infer(server.url, {"instances": [{"x": [1, 2, 3]}]}, model_name="scale")
        assert answer == {"predictions": [{"y": [2, 4, 6], "total": 12}]}
        answer = await client.infer(server.url, {"inputs": {"x": [[1, 2, 3]]}}, model_name="same")
        assert answer == {"predictions": [[1, 2, 3]]}
        with pytest.raises(httpx.HTTPStatusError, match="input 'x': expected shape"):
            await client.infer(server.url, {"instances": [[1, 2]]}, model_name="same")
    finally:
        await client.close()


def test_server_metadata_at_both_its_paths(server: Process) -> None:
    assert server.get("/v2").json() == server.get("/v2/").json()  # as the OpenAPI file has it; no redirect


async def test_grpc(server: Process) -> None:
    async with InferenceGRPCClient(server.grpc) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("scale")
        tensor = InferInput("x", [2, 3], "FP32")
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        for data in (array, array.ravel().tolist()):
            if data is array:
                tensor.set_data_from_numpy(array)  # raw
            else:
                tensor = InferInput("x", [2, 3], "FP32", data=data)
            answer = await client.infer(InferRequest("scale", [tensor], request_id="42"))
            assert (answer.id, answer.model_name) == ("42", "scale")
            outputs = {output.name: output.as_numpy() for output in answer.outputs}
            np.testing.assert_array_equal(outputs["y"], [[0, 2, 4], [6, 8, 10]])
            np.testing.assert_array_equal(outputs["total"], [6, 24])
        words = InferInput("x", [1, 3], "BYTES")
        words.set_data_from_numpy(np.array([["EWR", "", "É"]], dtype=object))
        answer = await client.infer(InferRequest("words", [words]))
        assert answer.outputs[0].as_numpy().tolist() == [[b"EWR", b"", "É".encode()]]
        with pytest.raises(grpc.RpcError, match="input 'x': expected shape"):
            await client.infer(InferRequest("scale", [InferInput("x", [1], "FP32", data=[1.0])]))
