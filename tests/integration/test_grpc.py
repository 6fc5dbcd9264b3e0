"""Real gRPC clients, Triton's above all, against real servers."""

from __future__ import annotations

import asyncio
import json
import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest
from onnx_models import NUMERIC, gather, identity, scale, slow
from prometheus_client.parser import text_string_to_metric_families
from server_process import Process, serving
from triton_grpc import triton, triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype
from waiting import eventually, until

from driftline.protocols.grpc.messages import (
    HEALTH,
    INFERENCE,
    ModelInferRequest,
    ModelInferResponse,
    message,
)
from driftline.registry.source import Registry

Status = grpc.StatusCode
ROW = np.array([[1, 2, 3]], np.float32)
LONG = 3000
"""Layers of a model that takes many seconds for a full batch on one core of any machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    root: Path = tmp_path_factory.mktemp("grpc")
    registry = Registry.open(root / "models")
    for datatype in (*NUMERIC, "BYTES"):
        registry.register([identity(root / "model.onnx", datatype)], datatype.lower())
    for factor in (1.0, 2.0):
        registry.register([scale(root / "model.onnx", factor)], "scale")
    registry.register([gather(root / "model.onnx")], "gather")
    registry.register([slow(root / "model.onnx", layers=200)], "slow")
    flags = ("--grpc-port", "0", "--access-log", "--model-control", "explicit")
    with serving("--registry", root / "models", *flags) as process:
        yield process


@pytest.fixture
def client(server: Process) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


@contextmanager
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as found:
        yield found


def method(of: grpc.Channel, name: str, service: str = INFERENCE) -> Any:
    """A method that takes and gives messages as bytes."""
    return of.unary_unary(f"/{service}/{name}", lambda data: data, lambda data: data)


def tensor(array: np.ndarray, name: str = "x") -> Any:
    found = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return found.set_data_from_numpy(array)


def status_of(caught: pytest.ExceptionInfo[InferenceServerException]) -> str:
    return str(caught.value.status())


def counted(server: Process, name: str, **labels: str) -> float:
    """A metric of Triton's name, of these labels."""
    families = text_string_to_metric_families(server.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name.removesuffix("_total") == f"nv_inference_{name}"
        and labels.items() <= sample.labels.items()
    )


def failures(server: Process, model: str, reason: str) -> float:
    return counted(server, "request_failure", model=model, reason=reason)


def arrived(server: Process) -> float:
    """Requests to the model `slow` that were answered, or will be, but for one that is answered meanwhile."""
    answered = counted(server, "request_success", model="slow")
    return answered + counted(server, "pending_request_count", model="slow")


def ask_in_background(client: Any, rows: int, came: queue.Queue[tuple[Any, Any]]) -> None:
    array = np.ones((rows, 1024), np.float32)
    client.async_infer("slow", [tensor(array)], lambda result, error: came.put((result, error)))


# -- inference ------------------------------------------------------------------------------------


def example(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([["", "carrier", "ÅÉ→✓"], ["a\0b", "x" * 1000, " "]], dtype=object)
    dtype = np.dtype(triton_to_np_dtype(datatype))
    if dtype == np.bool_:
        return np.array([[True, False, True], [False, False, True]])
    if dtype.kind == "f":
        return np.array([[0.1, -1.5, np.nan], [0.0, np.inf, -2.25]], dtype)
    limits = np.iinfo(dtype)
    return np.array([[limits.min, 0, limits.max], [1, 2, 3]], dtype)


@pytest.mark.parametrize("datatype", [*NUMERIC, "BYTES"])
def test_every_datatype_goes_there_and_back(client: Any, datatype: str) -> None:
    array = example(datatype)
    result = client.infer(datatype.lower(), [tensor(array)], request_id="there-and-back")
    answer = result.as_numpy("y")
    if datatype == "BYTES":
        answer = np.vectorize(bytes.decode, otypes=[object])(answer)
    np.testing.assert_array_equal(answer, array)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == (
        "there-and-back", datatype.lower(), "1",
    )  # fmt: skip


def test_outputs_and_versions_that_are_asked_for(client: Any) -> None:
    both = client.infer("scale", [tensor(ROW)])
    np.testing.assert_array_equal(both.as_numpy("y"), [[2, 4, 6]])
    np.testing.assert_array_equal(both.as_numpy("total"), [12])
    one = client.infer(
        "scale", [tensor(ROW)], model_version="2", outputs=[triton.InferRequestedOutput("total")]
    )
    assert one.as_numpy("y") is None
    np.testing.assert_array_equal(one.as_numpy("total"), [12])


def test_typed_contents(server: Process) -> None:
    request = ModelInferRequest(model_name="scale")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend([1, 2, 3])
    with channel(server.grpc) as to:
        answer = ModelInferResponse.FromString(method(to, "ModelInfer")(request.SerializeToString()))
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [2, 4, 6]


def test_a_long_request_and_its_answer(client: Any) -> None:
    array = np.random.default_rng(0).standard_normal((60_000, 3)).astype(np.float32)
    for compression in (None, "gzip"):
        result = client.infer("fp32", [tensor(array)], compression_algorithm=compression)
        np.testing.assert_array_equal(result.as_numpy("y"), array)


async def test_hundreds_of_calls_at_once_each_get_their_own_answer(server: Process) -> None:
    async with triton_aio.InferenceServerClient(server.grpc) as client:

        async def ask(index: int) -> None:
            array = np.full((1 + index % 3, 3), index, np.float32)
            result = await client.infer("scale", [tensor(array)], request_id=str(index))
            np.testing.assert_array_equal(result.as_numpy("y"), 2 * array)
            assert result.get_response().id == str(index)

        await asyncio.gather(*map(ask, range(400)))


async def test_what_comes_while_a_model_is_busy_runs_together(server: Process) -> None:
    def count() -> list[float]:
        return [counted(server, name, model="slow") for name in ("request_success", "exec_count")]

    before = count()
    async with triton_aio.InferenceServerClient(server.grpc) as client:
        row = np.ones((1, 1024), np.float32)
        await asyncio.gather(*[client.infer("slow", [tensor(row)]) for _ in range(50)])
    requests, batches = (now - then for now, then in zip(count(), before, strict=True))
    assert requests == 50
    assert batches < 25


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "version", "array", "code", "said"),
    [
        ("nothing", "", ROW, "NOT_FOUND", "Request for unknown model: 'nothing' is not found"),
        ("", "", ROW, "NOT_FOUND", "Request for unknown model: '' is not found"),
        ("scale", "9", ROW, "NOT_FOUND", "'scale' version 9 is not found; loaded: 2"),
        ("scale", "two", ROW, "NOT_FOUND", "'scale' version two is not found; loaded: 2"),
        (
            "scale", "", ROW.astype(np.float64), "INVALID_ARGUMENT",
            "input 'x': expected datatype FP32, got 'FP64'",
        ),
        (
            "scale", "", ROW[:, :2].copy(), "INVALID_ARGUMENT",
            "input 'x': expected shape [-1, 3], got [1, 2]",
        ),
    ],
)  # fmt: skip
def test_refusals_are_those_of_rest(
    client: Any, model: str, version: str, array: np.ndarray, code: str, said: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(array)], model_version=version)
    assert status_of(caught) == f"StatusCode.{code}"
    assert said in caught.value.message()


def test_what_a_model_refuses_is_counted(server: Process, client: Any) -> None:
    before = counted(server, "request_failure", model="gather")
    with pytest.raises(InferenceServerException, match="out of data bounds") as caught:
        client.infer("gather", [tensor(np.array([99]), "i")])
    assert status_of(caught) == "StatusCode.INVALID_ARGUMENT"
    assert counted(server, "request_failure", model="gather") == before + 1


def test_what_is_no_message_is_refused(server: Process) -> None:
    with channel(server.grpc) as to:
        for name in ("ModelInfer", "ModelReady"):
            with pytest.raises(grpc.RpcError) as caught:
                method(to, name)(b"\xff")
            assert caught.value.code() is Status.INVALID_ARGUMENT
            assert f"the message is no inference.{name}Request: " in caught.value.details()
        with pytest.raises(grpc.RpcError) as caught:
            list(to.stream_stream(f"/{INFERENCE}/ModelStreamInfer")(iter([b"\xff"])))
        assert caught.value.code() is Status.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as caught:
            method(to, "SystemSharedMemoryStatus")(b"")
        assert caught.value.code() is Status.UNIMPLEMENTED


def test_a_timeout_that_passes_is_a_deadline(server: Process, client: Any) -> None:
    array = np.ones((128, 1024), np.float32)
    with pytest.raises(InferenceServerException, match="timeout of 1 microseconds") as caught:
        client.infer("slow", [tensor(array)], timeout=1)
    assert status_of(caught) == "StatusCode.DEADLINE_EXCEEDED"
    before = failures(server, "slow", "REJECTED") + failures(server, "slow", "CANCELED")
    for seconds in (0.01, 0.03, 0.1):  # on a busy machine, the server may not have the first in time
        with pytest.raises(InferenceServerException) as caught:
            client.infer("slow", [tensor(array)], client_timeout=seconds)
        assert status_of(caught) == "StatusCode.DEADLINE_EXCEEDED"
    until(lambda: failures(server, "slow", "REJECTED") + failures(server, "slow", "CANCELED") > before)


async def test_a_call_that_is_cancelled_leaves_the_queue(server: Process) -> None:
    before = failures(server, "slow", "CANCELED")
    async with triton_aio.InferenceServerClient(server.grpc) as client:
        array = np.ones((128, 1024), np.float32)
        calls = [asyncio.create_task(client.infer("slow", [tensor(array)])) for _ in range(4)]
        await eventually(
            lambda: counted(server, "pending_request_count", model="slow") == len(calls), "the calls"
        )
        for call in calls[1:]:
            call.cancel()
        await eventually(lambda: failures(server, "slow", "CANCELED") == before + len(calls) - 1)
        await calls[0]


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_that_is_too_large_is_refused(tmp_path: Path, compression: grpc.Compression) -> None:
    path = scale(tmp_path / "m.onnx", 2.0)
    with serving(path, "--grpc-port", "0", "--max-body-bytes", "100000") as server:
        request = ModelInferRequest(model_name="m", raw_input_contents=[bytes(120 * 1024)])
        request.inputs.add(name="x", datatype="FP32", shape=[10240, 3])
        with channel(server.grpc) as to:
            with pytest.raises(grpc.RpcError) as caught:
                method(to, "ModelInfer")(request.SerializeToString(), compression=compression)
            assert caught.value.code() is Status.RESOURCE_EXHAUSTED
            request.raw_input_contents[0] = bytes(60 * 1024)
            request.inputs[0].shape[0] = 5120
            method(to, "ModelInfer")(request.SerializeToString(), compression=compression)


def test_a_full_queue_is_busy(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "models")
    settings = tmp_path / "driftline.toml"
    settings.write_text("[batching]\nmax_queue_rows = 2\n")
    registry.register([scale(tmp_path / "model.onnx", 2.0), settings], "m")
    with (
        serving("--registry", tmp_path / "models", "--grpc-port", "0") as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        with pytest.raises(InferenceServerException, match="request of 3 rows") as caught:
            client.infer("m", [tensor(np.ones((3, 3), np.float32))])
        assert status_of(caught) == "StatusCode.RESOURCE_EXHAUSTED"


# -- streams --------------------------------------------------------------------------------------


def test_a_stream_has_an_answer_for_each_request_in_order(client: Any) -> None:
    came: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: came.put((result, error)))
    for index in range(20):
        array = np.full((1, 3), index, np.float32)
        client.async_stream_infer(
            "scale" if index != 7 else "nothing", [tensor(array)], request_id=str(index)
        )
    for index in range(20):
        result, error = came.get(timeout=60)
        if index == 7:
            assert "unknown model: 'nothing'" in str(error)
            continue
        assert error is None
        assert result.get_response().id == str(index)
        assert result.get_response().parameters["triton_final_response"].bool_param
        assert result.as_numpy("total").tolist() == [6 * index]
    client.stop_stream()


async def test_a_stream_of_the_asynchronous_client(server: Process) -> None:
    async def requests() -> Any:
        for index in range(3):
            yield {"model_name": "scale", "inputs": [tensor(ROW)], "request_id": str(index)}

    async with triton_aio.InferenceServerClient(server.grpc) as client:
        came = [pair async for pair in client.stream_infer(requests())]
    assert [(result.get_response().id, error) for result, error in came] == [
        (str(index), None) for index in range(3)
    ]


# -- what is asked now and then -------------------------------------------------------------------


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scale")
    assert client.is_model_ready("scale", "2")
    for name, version in (("scale", "1"), ("nothing", ""), ("scale/ready", "")):
        assert not client.is_model_ready(name, version)  # as Triton answers: no error
        with pytest.raises(InferenceServerException, match="is not found") as caught:
            client.get_model_metadata(name, version)
        assert status_of(caught) == "StatusCode.NOT_FOUND"
    server = client.get_server_metadata()
    assert server.name == "driftline"
    assert {"binary_tensor_data", "statistics", "model_repository"} <= set(server.extensions)
    model = client.get_model_metadata("scale", "2", as_json=True)
    assert model["versions"] == ["2"]
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
    assert [output["name"] for output in model["outputs"]] == ["y", "total"]


def test_configuration(client: Any) -> None:
    config = client.get_model_config("bytes").config
    assert (config.max_batch_size, config.backend) == (128, "onnxruntime")
    ((name, kind, dims),) = [(one.name, one.data_type, list(one.dims)) for one in config.input]
    assert (name, kind, dims) == ("x", triton.model_config_pb2.TYPE_STRING, [3])
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"


def test_statistics(client: Any) -> None:
    client.infer("uint8", [tensor(example("UINT8"))])
    (stats,) = client.get_inference_statistics("uint8").model_stats
    assert (stats.name, stats.version, stats.inference_count % 2) == ("uint8", "1", 0)
    assert stats.inference_stats.success.ns > 0
    assert [batch.batch_size for batch in stats.batch_stats] == [2]
    assert len(client.get_inference_statistics().model_stats) > len(NUMERIC)


def test_classes(server: Process, client: Any) -> None:
    array = np.array([[1, 3, 2], [-1, -3, -2]], np.float32)
    wanted = [triton.InferRequestedOutput("y", class_count=2), triton.InferRequestedOutput("total")]
    found = client.infer("scale", [tensor(array)], outputs=wanted)
    assert found.as_numpy("y").tolist() == [[b"6.000000:1", b"4.000000:2"], [b"-2.000000:0", b"-4.000000:2"]]
    assert found.as_numpy("total").tolist() == [12, -12]


def test_repository(server: Process, client: Any) -> None:
    def states() -> dict[str, str]:
        return {one.name: one.state for one in client.get_model_repository_index().models if one.state}

    assert states()["scale"] == "READY"
    client.unload_model("fp64")
    assert states()["fp64"] in ("UNAVAILABLE", "UNLOADING")
    with pytest.raises(InferenceServerException, match="'fp64' is not found"):
        client.infer("fp64", [tensor(example("FP64"))])
    client.load_model("fp64")
    assert states()["fp64"] == "READY"
    with pytest.raises(InferenceServerException, match="failed to load 'nothing'"):
        client.load_model("nothing")
    with pytest.raises(InferenceServerException, match="'parameters': expected none"):
        client.load_model("fp64", config="{}")
    with channel(server.grpc) as to:  # as KServe has it, whose definition has no repository
        answer = method(to, "RepositoryModelLoad")(b"\x0a\x04fp64")
    assert answer == b"\x0a\x04fp64\x10\x01"


def health(of: grpc.Channel, service: str = "") -> Any:
    request = message("grpc.health.v1.HealthCheckRequest")(service=service).SerializeToString()
    answer = method(of, "Check", HEALTH)(request)
    found = message("grpc.health.v1.HealthCheckResponse").FromString(answer)
    return found.ServingStatus.Name(found.status)


def test_health_for_probes(server: Process) -> None:
    with channel(server.grpc) as to:
        for service in ("", INFERENCE, "scale"):
            assert health(to, service) == "SERVING"
        with pytest.raises(grpc.RpcError) as caught:
            health(to, "nothing")
        assert caught.value.code() is Status.NOT_FOUND


async def test_who_watches_health_is_told_of_every_change(tmp_path: Path) -> None:
    kind = message("grpc.health.v1.HealthCheckResponse")
    request = message("grpc.health.v1.HealthCheckRequest")(service="m").SerializeToString()
    registry = Registry.open(tmp_path / "models")
    registry.register([scale(tmp_path / "model.onnx", 2.0)], "m")
    flags = ("--grpc-port", "0", "--drain-seconds", "100", "--model-control", "explicit")
    with serving("--registry", tmp_path / "models", *flags) as server:
        async with grpc.aio.insecure_channel(server.grpc) as to:
            watch = to.unary_stream(f"/{HEALTH}/Watch", response_deserializer=kind.FromString)(request)
            assert (await watch.read()).status == kind.SERVING
            server.post("/v2/repository/models/m/unload")
            assert (await watch.read()).status == kind.SERVICE_UNKNOWN
            server.post("/v2/repository/models/m/load")
            assert (await watch.read()).status == kind.SERVING
            server.popen.send_signal(signal.SIGTERM)

            async def until_the_end() -> None:
                while (await watch.read()).status == kind.NOT_SERVING:
                    pass

            with pytest.raises(grpc.RpcError, match="the server is stopping"):
                await until_the_end()
        assert server.popen.wait(60) == 0  # who watches holds up no stop


async def test_a_swap_loses_no_call(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "models")
    for factor in (1.0, 2.0):
        registry.register([scale(tmp_path / "model.onnx", factor)], "m")
    registry.promote("m", 1)
    seen: list[str] = []
    with serving("--registry", registry.uri, "--grpc-port", "0", "--workers", "2") as server:

        async def ask() -> None:
            async with triton_aio.InferenceServerClient(server.grpc) as client:
                while seen.count("2") < 200:
                    result = await client.infer("m", [tensor(ROW)])
                    version = result.get_response().model_version
                    assert result.as_numpy("total").tolist() == [6 * int(version)]
                    seen.append(version)

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        await eventually(lambda: len(seen) > 50 or any(one.done() for one in asking))
        await asyncio.to_thread(registry.promote, "m", 2)
        await asyncio.gather(*asking)
    assert seen[0] == "1"


def test_calls_are_in_the_access_log(server: Process, client: Any) -> None:
    client.infer("scale", [tensor(ROW)])
    server.wait_for('/inference.GRPCInferenceService/ModelInfer HTTP/2\\" OK')
    with pytest.raises(InferenceServerException):
        client.infer("nothing", [tensor(ROW)])
    server.wait_for('/inference.GRPCInferenceService/ModelInfer HTTP/2\\" NOT_FOUND')


def test_rows_and_times_are_counted_as_those_of_http(tmp_path: Path) -> None:
    path = scale(tmp_path / "m.onnx", 2.0)
    with (
        serving(path, "--grpc-port", "0") as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        for rows in (1, 2, 3):
            client.infer("m", [tensor(np.ones((rows, 3), np.float32))])
        until(lambda: server.get("/v2/models/m/drift").json().get("rows") == 6, "six rows")
        text = server.get("/metrics").text
    assert 'nv_inference_request_success{model="m",version="1"} 3.0' in text
    assert 'nv_inference_count{model="m",version="1"} 6.0' in text
    assert 'driftline_request_duration_seconds_count{model="m"} 3.0' in text


def test_payloads_are_logged_as_those_of_rest_would_be(tmp_path: Path) -> None:
    path, sink = scale(tmp_path / "m.onnx", 2.0), tmp_path / "log"
    with (
        # What a busy machine has no time for is not logged, nor what its log has no time for at the end.
        serving(
            path, "--grpc-port", "0", "--log-payloads", "all", "--log-sink", sink, "--log-cpu", "1",
            "--log-file-seconds", "0.3",
        ) as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):  # fmt: skip
        client.infer("m", [tensor(ROW)], request_id="7")
        with pytest.raises(InferenceServerException):
            client.infer("m", [tensor(ROW.astype(np.float64))])
        until(lambda: sink.exists() and pq.read_table(sink).num_rows == 3, "a request, its answer, a request")
        assert server.stop() == 0
    rows = pq.read_table(sink).to_pylist()
    assert len(rows) == 3, "the answer of the second is none"
    told = [json.loads(row["body"][: row["json_length"]]) for row in rows]
    assert {document.get("id") for document in told} == {"7", None}
    (answer,) = [document for document in told if "outputs" in document and document.get("model_name")]
    assert [output["name"] for output in answer["outputs"]] == ["y", "total"]


def test_nobody_loads_models_unless_the_setting_says_so(tmp_path: Path) -> None:
    path = scale(tmp_path / "m.onnx", 2.0)
    with (
        serving(path, "--grpc-port", "0") as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        with pytest.raises(InferenceServerException, match="--model-control") as caught:
            client.unload_model("m")
        assert status_of(caught) == "StatusCode.PERMISSION_DENIED"
        assert client.is_model_ready("m")


# -- ports and stops ------------------------------------------------------------------------------


def test_nothing_of_grpc_is_there_unless_it_is_wanted(tmp_path: Path) -> None:
    path = scale(tmp_path / "m.onnx", 2.0)
    for arguments, there in (((), False), (("--grpc-port", "0"), True)):
        with serving(path, *arguments) as server:
            maps = Path(f"/proc/{server.popen.pid}/maps").read_text()
            assert (("cygrpc" in maps), bool(server.grpc)) == (there, there)


def test_a_stop_answers_what_is_in_flight_and_ends_streams(tmp_path: Path) -> None:
    path = slow(tmp_path / "slow.onnx", layers=400)
    streamed: queue.Queue[Any] = queue.Queue()
    came: queue.Queue[Any] = queue.Queue()
    with (
        serving(path, "--grpc-port", "0", "--drain-seconds", "100") as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        client.start_stream(lambda result, error: streamed.put((result, error)))
        client.async_stream_infer("slow", [tensor(np.ones((1, 1024), np.float32))])
        assert streamed.get(timeout=60)[1] is None
        for _ in range(4):
            ask_in_background(client, 32, came)
        until(lambda: arrived(server) >= 1 + 4, "four requests")
        assert server.stop(timeout=100) == 0
        assert "the server is stopping" in str(streamed.get(timeout=60)[1])
        for _ in range(4):
            result, error = came.get(timeout=60)
            assert error is None, error.message()
            assert result.as_numpy("y").shape == (32, 1024)
        server.close()
        assert not [event for event in server.events() if event["level"] in ("error", "critical")]


def test_a_stop_refuses_what_takes_longer_than_it_may(tmp_path: Path) -> None:
    path, config = slow(tmp_path / "slow.onnx", layers=LONG), tmp_path / "driftline.toml"
    config.write_text("[models.slow.engine]\nthreads = 1\n")
    with (
        serving(
            path, "--grpc-port", "0", "--drain-seconds", "1", env={"DRIFTLINE_CONFIG": str(config)}
        ) as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        came: queue.Queue[Any] = queue.Queue()
        ask_in_background(client, 128, came)
        until(lambda: arrived(server) == 1, "the request")
        assert server.stop() == 0
        _, error = came.get(timeout=60)
        assert (error.status(), error.message()) == ("StatusCode.UNAVAILABLE", "the server is stopping")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_may_wait_until_clients_have_gone_elsewhere(tmp_path: Path, workers: str) -> None:
    path = scale(tmp_path / "m.onnx", 2.0)
    arguments = ("--grpc-port", "0", "--workers", workers, "--stop-delay-seconds")
    with serving(path, *arguments, "1000") as server, channel(server.grpc) as to:
        assert health(to) == "SERVING"
        server.popen.send_signal(signal.SIGTERM)
        until(lambda: health(to) == "NOT_SERVING")
        assert health(to, "m") == "NOT_SERVING"
        with triton.InferenceServerClient(server.grpc) as client:
            assert client.is_server_live()
            until(lambda: not client.is_server_ready())
            until(lambda: not client.is_model_ready("m"))
            np.testing.assert_array_equal(client.infer("m", [tensor(ROW)]).as_numpy("total"), [12])
        assert server.stop() == 128 + signal.SIGTERM
