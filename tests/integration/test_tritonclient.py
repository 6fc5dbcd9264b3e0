"""Triton's own HTTP client, unmodified, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from onnx_models import NUMERIC, gather, identity, scale, slow
from server_process import Process, serving
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

from driftline.registry.source import Registry


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    root: Path = tmp_path_factory.mktemp("triton")
    registry = Registry.open(root / "models")
    for datatype in (*NUMERIC, "BYTES"):
        registry.register([identity(root / "model.onnx", datatype)], datatype.lower())
    registry.register([scale(root / "model.onnx", 2.0)], "scale")
    registry.register([gather(root / "model.onnx")], "gather")
    registry.register([slow(root / "model.onnx")], "slow")
    with serving("--registry", root / "models", "--model-control", "explicit") as process:
        yield process


@pytest.fixture
def client(server: Process) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address, concurrency=4) as client:
        yield client


def example(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([["", "carrier", "ÅÉ→✓"], ["a\0b", "x" * 1000, " "]], dtype=object)
    dtype = np.dtype(triton_to_np_dtype(datatype))
    if dtype == np.bool_:
        return np.array([[True, False, True], [False, False, True]])
    if dtype.kind == "f":
        return np.array([[0.1, -1.5, 3e4], [0.0, 1.0, -2.25]], dtype)
    limits = np.iinfo(dtype)
    return np.array([[limits.min, 0, limits.max], [1, 2, 3]], dtype)


def request_for(name: str, array: np.ndarray, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def ways() -> Iterator[tuple[str, bool, bool]]:
    for datatype in (*NUMERIC, "BYTES"):
        for binary_in, binary_out in product((True, False), repeat=2):
            # tritonclient itself has no FP16 as JSON.
            if datatype != "FP16" or (binary_in and binary_out):
                yield datatype, binary_in, binary_out


@pytest.mark.parametrize(("datatype", "binary_in", "binary_out"), list(ways()))
def test_every_datatype_goes_there_and_back(
    client: triton.InferenceServerClient, datatype: str, binary_in: bool, binary_out: bool
) -> None:
    array = example(datatype)
    result = client.infer(
        datatype.lower(),
        [request_for("x", array, binary_in)],
        outputs=[triton.InferRequestedOutput("y", binary_data=binary_out)],
        request_id="there-and-back",
    )
    answer = result.as_numpy("y")
    if datatype == "BYTES":
        answer = np.vectorize(
            lambda value: value.decode() if isinstance(value, bytes) else value, otypes=[object]
        )(answer)
    np.testing.assert_array_equal(answer, array)
    assert result.get_response()["id"] == "there-and-back"
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("binary_out", [True, False])
def test_nan_and_infinity_go_there_as_json_and_back(
    client: triton.InferenceServerClient, datatype: str, binary_out: bool
) -> None:
    array = np.array([[np.nan, np.inf, -np.inf]], triton_to_np_dtype(datatype))
    result = client.infer(
        datatype.lower(),
        [request_for("x", array, binary=False)],
        outputs=[triton.InferRequestedOutput("y", binary_data=binary_out)],
    )
    # JSON has null for all three, which every parser reads, and tritonclient as NaN.
    np.testing.assert_array_equal(result.as_numpy("y"), array if binary_out else array * np.nan)


def test_outputs_that_nobody_names_all_come_as_binary(client: triton.InferenceServerClient) -> None:
    result = client.infer("scale", [request_for("x", np.array([[1, 2, 3]], np.float32))])
    np.testing.assert_array_equal(result.as_numpy("y"), [[2, 4, 6]])
    np.testing.assert_array_equal(result.as_numpy("total"), [12])
    assert all("binary_data_size" in output["parameters"] for output in result.get_response()["outputs"])


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_classes(client: triton.InferenceServerClient, binary_in: bool, binary_out: bool) -> None:
    """Again and again, beside the same request without: what is remembered of one is not of the other."""
    array = np.array([[1, 3, 2], [-1, -3, -2]], np.float32)
    for _ in range(3):
        for classes in (0, 2):
            wanted = triton.InferRequestedOutput("y", binary_data=binary_out, class_count=classes)
            found = client.infer("scale", [request_for("x", array, binary_in)], outputs=[wanted]).as_numpy(
                "y"
            )
            if not classes:
                np.testing.assert_array_equal(found, 2 * array)
                continue
            texts = [[text.decode() if binary_out else text for text in row] for row in found]
            assert texts == [["6.000000:1", "4.000000:2"], ["-2.000000:0", "-4.000000:2"]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("rows", [1, 20_000])
def test_compressed_requests_and_answers(
    server: Process, client: triton.InferenceServerClient, algorithm: str, binary_out: bool, rows: int
) -> None:
    array = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
    output = triton.InferRequestedOutput("y", binary_data=binary_out)
    result = client.infer(
        "scale",
        [request_for("x", array)],
        outputs=[output],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * array)
    body, length = client.generate_request_body([request_for("x", array)], outputs=[output])
    headers = {"Inference-Header-Content-Length": str(length), "Accept-Encoding": algorithm}
    answer = httpx.post(f"{server.url}/v2/models/scale/infer", content=body, headers=headers)
    assert answer.headers.get("content-encoding") == (None if rows == 1 else algorithm)


def test_async_requests_each_get_their_own_answer(client: triton.InferenceServerClient) -> None:
    arrays = [np.full((1 + index % 5, 3), index, np.float32) for index in range(100)]
    pending = [client.async_infer("scale", [request_for("x", array)]) for array in arrays]
    for array, request in zip(arrays, pending, strict=True):
        np.testing.assert_array_equal(request.get_result().as_numpy("y"), 2 * array)


def test_raw_binary_request(server: Process) -> None:
    body = np.array([1, 2, 3], np.float32).tobytes()
    answer = server.post(
        "/v2/models/scale/infer", content=body, headers={"Inference-Header-Content-Length": "0"}
    )
    result = triton.InferResult.from_response_body(
        answer.content, header_length=int(answer.headers["Inference-Header-Content-Length"])
    )
    np.testing.assert_array_equal(result.as_numpy("y"), [[2, 4, 6]])


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scale")
    assert client.is_model_ready("scale", "1")
    assert not client.is_model_ready("scale", "2")
    assert not client.is_model_ready("nothing")
    server = client.get_server_metadata()
    assert server["name"] == "driftline"
    assert {"binary_tensor_data", "statistics", "model_repository"} <= set(server["extensions"])
    model = client.get_model_metadata("scale")
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert [output["name"] for output in model["outputs"]] == ["y", "total"]


def test_configuration(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("scale")
    assert config["max_batch_size"] == 128
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}]
    assert config["backend"] == "onnxruntime"


def test_statistics_count_what_was_asked(client: triton.InferenceServerClient) -> None:
    def counted() -> dict[str, int]:
        stats = client.get_inference_statistics("gather", "1")["model_stats"][0]
        return {
            "success": stats["inference_stats"]["success"]["count"],
            "fail": stats["inference_stats"]["fail"]["count"],
            "rows": stats["inference_count"],
        }

    before = counted()
    client.infer("gather", [request_for("i", np.array([1, 2, 3]))])
    with pytest.raises(InferenceServerException, match="out of data bounds"):
        client.infer("gather", [request_for("i", np.array([99]))])
    after = counted()
    assert {key: after[key] - before[key] for key in after} == {"success": 1, "fail": 1, "rows": 3}
    assert client.get_inference_statistics()["model_stats"]


def test_repository(client: triton.InferenceServerClient) -> None:
    assert {
        "name": "scale",
        "version": "1",
        "state": "READY",
        "reason": "",
    } in client.get_model_repository_index()
    client.unload_model("fp64")
    assert not client.is_model_ready("fp64")
    states = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
    assert states["fp64"] in ("UNAVAILABLE", "UNLOADING")
    client.load_model("fp64")
    assert client.is_model_ready("fp64")
    with pytest.raises(InferenceServerException, match="failed to load 'nothing'"):
        client.load_model("nothing")


def test_a_timeout_that_passes_is_an_error(client: triton.InferenceServerClient) -> None:
    array = np.ones((128, 1024), np.float32)
    with pytest.raises(InferenceServerException, match="timeout of 1 microseconds") as caught:
        client.infer("slow", [request_for("x", array)], timeout=1)
    assert "504" in str(caught.value.status())


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x", np.ones((1, 4), np.float32), r"input 'x': expected shape \[-1, 3\], got \[1, 4\]"),
        ("x", np.ones((1, 3), np.float64), "input 'x': expected datatype FP32, got 'FP64'"),
        ("z", np.ones((1, 3), np.float32), "input 'z': the model has no such input; it has: x"),
    ],
)
def test_refusals_name_the_tensor(
    client: triton.InferenceServerClient, name: str, array: np.ndarray, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message):
        client.infer("scale", [request_for(name, array)])


def test_shared_memory_is_refused(client: triton.InferenceServerClient) -> None:
    there = request_for("x", np.ones((1, 3), np.float32))
    shared = triton.InferInput("x", [1, 3], "FP32")
    shared.set_shared_memory("region", 12)
    with pytest.raises(InferenceServerException, match="input 'x': shared memory is not supported"):
        client.infer("scale", [shared])
    wanted = triton.InferRequestedOutput("y")
    wanted.set_shared_memory("region", 12)
    with pytest.raises(InferenceServerException, match="output 'y': shared memory is not supported"):
        client.infer("scale", [there], outputs=[wanted])


def test_unknown_models_and_versions(client: triton.InferenceServerClient) -> None:
    tensor = request_for("x", np.ones((1, 3), np.float32))
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nothing' is not found"):
        client.infer("nothing", [tensor])
    with pytest.raises(InferenceServerException, match="version 9 is not found; loaded: 1"):
        client.infer("scale", [tensor], model_version="9")
