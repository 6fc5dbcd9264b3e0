"""What ONNX Runtime is told of a GPU, and what is done if it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from fake_gpu import FakeGpu
from onnx import TensorProto, helper
from onnx_models import save_model, scale

from driftline.cli import main
from driftline.config import Engine
from driftline.engine import model as engine
from driftline.engine.cuda import providers, tensorrt_cache
from driftline.engine.session import Session
from driftline.errors import ModelError
from driftline.registry.files import external_of
from driftline.tensors import DATATYPES, TensorSpec

PATH = Path("m.onnx")


class Elsewhere(FakeGpu):
    """A GPU whose memory is not the CPU's, for what is only told of it."""

    memory, index, stream = "cuda", 1, 4096


def told(
    monkeypatch: pytest.MonkeyPatch,
    path: Path,
    settings: Engine,
    *refused: str,
    why: str = "control flow nodes",
) -> list[Any]:
    """The providers of all attempts to load a model, of which those with some options are refused."""
    result = []

    def load(
        path: Path, device: str = "cpu", threads: int = 1, spinning: bool = False, given: Any = ()
    ) -> Session:
        if given:
            result.append([(name, dict(options)) for name, options in given])
        if any(option in options for _, options in given for option in refused):
            raise ModelError(f"{path}: {why}")
        return Session(path)

    monkeypatch.setattr(engine, "Session", load)
    engine.session_of(path, settings, Elsewhere("cuda:1"), 128)
    return result


GPU = {"device_id": "1", "user_compute_stream": "4096"}
CUDA = ("CUDAExecutionProvider", GPU | {"use_tf32": "0"})
GRAPHS = ("CUDAExecutionProvider", CUDA[1] | {"enable_cuda_graph": "1"})


def test_the_provider_of_a_gpu_is_told_its_stream_and_whether_it_records() -> None:
    gpu = Elsewhere("cuda:1")
    assert providers.cuda(gpu) == CUDA
    assert providers.cuda(gpu, graphs=True) == GRAPHS
    assert providers.cuda(gpu, tf32=True) == ("CUDAExecutionProvider", GPU | {"use_tf32": "1"})


def test_a_model_that_cannot_be_recorded_is_loaded_without_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = scale(tmp_path / "m.onnx", 2.0)
    monkeypatch.setattr(Session, "reads", lambda session, memory: True)
    assert told(monkeypatch, path, Engine()) == [[CUDA]]
    assert told(monkeypatch, path, Engine(cuda_graphs=True)) == [[GRAPHS]]
    assert not caplog.records
    attempts = told(monkeypatch, path, Engine(cuda_graphs=True), "enable_cuda_graph")
    assert attempts == [[GRAPHS], [CUDA]]
    assert [record.message for record in caplog.records] == [
        f"{path} runs without CUDA graphs: {path}: control flow nodes"
    ]
    caplog.clear()
    with pytest.raises(ModelError):
        told(monkeypatch, path, Engine(cuda_graphs=True), "device_id")
    assert not caplog.records


def test_a_model_that_begins_on_the_cpu_shares_no_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batches never cross, and ONNX Runtime's handles of a stream are for one run at a time."""
    first, second = told(monkeypatch, scale(tmp_path / "m.onnx", 2.0), Engine())
    assert first == [CUDA]
    assert second == [("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"})]


# -- TensorRT -----------------------------------------------------------------------------------------


def test_tensorrt_comes_before_cuda_and_keeps_its_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path / "cache"))
    path = scale(tmp_path / "m.onnx", 2.0)
    [[(name, options), behind]] = told(monkeypatch, path, Engine(tensorrt=True))
    assert (name, behind) == ("TensorrtExecutionProvider", CUDA)
    [folder] = (tmp_path / "cache" / "tensorrt").iterdir()
    assert options == GPU | {
        "trt_fp16_enable": "False",
        "trt_profile_min_shapes": "x:1x3",
        "trt_profile_opt_shapes": "x:128x3",
        "trt_profile_max_shapes": "x:128x3",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }


def test_a_model_that_tensorrt_takes_in_parts_has_no_engine_for_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path / "cache"))
    path = scale(tmp_path / "m.onnx", 2.0)
    why = "Following input(s) has no associated shape profiles provided: inner"
    first, second = told(monkeypatch, path, Engine(tensorrt=True), "trt_profile_max_shapes", why=why)
    assert first[1] == second[1] == CUDA
    assert second[0][1] == {key: value for key, value in first[0][1].items() if "profile" not in key}
    with pytest.raises(ModelError, match="control flow nodes"):
        told(monkeypatch, path, Engine(tensorrt=True), "trt_profile_max_shapes")


def test_engines_of_different_models_and_settings_never_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path / "cache"))
    path = scale(tmp_path / "m.onnx", 2.0)

    def folder(settings: Engine) -> str:
        [[(_, options), _]] = told(monkeypatch, path, settings)
        return str(options["trt_engine_cache_path"])

    first = folder(Engine(tensorrt=True))
    assert folder(Engine(tensorrt=True, instances=2)) == first
    half = folder(Engine(tensorrt=True, tensorrt_fp16=True))
    scale(path, 3.0)
    other = folder(Engine(tensorrt=True))
    assert len({first, half, other}) == 3
    scale(path, 2.0)
    assert folder(Engine(tensorrt=True)) == first


def test_weights_beside_a_model_are_part_of_it(tmp_path: Path) -> None:
    path, weights = tmp_path / "m.onnx", tmp_path / f"{'w' * 150}.bin"
    values = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    save_model(
        path,
        [helper.make_node("Gather", ["w", "i"], ["y"])],
        {"i": (TensorProto.INT64, ("N",))},
        {"y": (TensorProto.FLOAT, ("N", 3))},
        {"w": values},
    )
    whole = onnx.load(path)
    assert external_of(path) == set()
    onnx.save(whole, path, save_as_external_data=True, location=weights.name)
    assert external_of(path) == {weights.name}
    before, model = tensorrt_cache.content_hash(path), path.read_bytes()
    changed = bytearray(weights.read_bytes())
    changed[0] ^= 1
    weights.write_bytes(changed)
    assert path.read_bytes() == model
    assert tensorrt_cache.content_hash(path) != before


def test_where_nothing_can_be_kept_engines_are_built_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path / "cache"))
    [[(_, options), _]] = told(monkeypatch, scale(tmp_path / "m.onnx", 2.0), Engine(tensorrt=True))
    assert not [key for key in options if "cache" in key]
    assert "TensorRT builds its engines at each start: " in caplog.text


@pytest.mark.parametrize(
    ("shapes", "profile"),
    [
        ([(-1, 3), (-1, 2, 4), (5, 6)], "a:7x3,b:7x2x4"),
        ([(-1, 3), (-1, -1)], None),
        ([(-1, 3), (5, -1)], None),
        ([(5, 6)], None),
    ],
)
def test_an_engine_is_for_all_rows_where_only_they_vary(
    shapes: list[tuple[int, ...]], profile: str | None
) -> None:
    inputs = [TensorSpec(name, DATATYPES["FP32"], shape) for name, shape in zip("abc", shapes, strict=False)]
    options = providers.engine_options(inputs, 7, True)
    assert options["trt_fp16_enable"] == "True"
    assert options.get("trt_profile_max_shapes") == profile
    assert providers.engine_options(inputs, 0, False) == {"trt_fp16_enable": "False"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "engine.tensorrt = true: expected engine.device to be a GPU, got 'cpu'"),
        (
            "device = 'cuda'\ncuda_graphs = true",
            "engine.tensorrt = true: expected engine.cuda_graphs = false: it keeps one graph only",
        ),
        (
            "device = 'cuda'",
            "engine.tensorrt = true: expected an onnxruntime with TensorrtExecutionProvider, it has "
            "CUDAExecutionProvider, CPUExecutionProvider",
        ),
    ],
)
def test_one_line_says_why_tensorrt_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, said: str
) -> None:
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    model, data = tmp_path / "m", tmp_path / "x.csv"
    scale(model / "model.onnx", 2.0)
    (model / "driftline.toml").write_text(f"[engine]\ntensorrt = true\n{settings}\n")
    data.write_text("x_0,x_1,x_2\n1,2,3\n")
    done = CliRunner().invoke(main, ["score", str(model), str(data), "-o", str(tmp_path / "y.csv")])
    *_, line = done.stderr.splitlines()  # behind the bar of progress
    assert (done.exit_code, line) == (2, f"driftline: {said}")
