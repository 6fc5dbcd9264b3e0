"""Which device is used, and what is said where there is none; the CPU stands in for a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from onnx_models import scale

from driftline.cli import main
from driftline.engine.cuda import device
from driftline.errors import ConfigError
from driftline.rules import DEVICE

LACKING = device.missing()
without = pytest.mark.skipif(not LACKING, reason="this machine has a GPU")


@without
def test_one_line_says_what_is_missing(tmp_path: Path) -> None:
    for command in (["serve"], ["score", "data.csv", "-o", "out.csv"]):
        command.insert(1, str(scale(tmp_path / "m.onnx", 2.0)))
        done = CliRunner().invoke(main, [*command, "--device", "cuda"])
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith("driftline: device 'cuda': no ")
        assert all(what in done.stderr for what in LACKING)


@without
def test_auto_is_the_cpu_and_says_so(tmp_path: Path) -> None:
    model, data, out = scale(tmp_path / "m.onnx", 2.0), tmp_path / "x.csv", tmp_path / "y.csv"
    data.write_text("x_0,x_1,x_2\n1,2,3\n")
    done = CliRunner().invoke(main, ["score", str(model), str(data), "-o", str(out), "--device", "auto"])
    assert done.exit_code == 0, done.output
    assert f"driftline: device 'auto' is the CPU: {'; '.join(LACKING)}" in done.stderr
    assert "2" in out.read_text()


def test_a_name_that_is_none_is_refused() -> None:
    done = CliRunner().invoke(main, ["serve", "--device", "tpu"])
    assert (done.exit_code, done.stderr) == (
        2,
        f"driftline: the command line: engine.device = 'tpu': expected {DEVICE.allowed}\n",
    )


@pytest.mark.parametrize(
    ("driver", "provider", "library", "said"),
    [
        ("no driver (x)", "", "", "device 'cuda:1': no driver (x)"),
        ("", "no provider (y)", "no library (z)", "device 'cuda:1': no provider (y); no library (z)"),
    ],
)
def test_each_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, driver: str, provider: str, library: str, said: str
) -> None:
    monkeypatch.setattr(device, "no_driver", lambda index: driver)
    monkeypatch.setattr(device, "no_provider", lambda: provider)
    monkeypatch.setattr(device, "no_library", lambda: library)
    with pytest.raises(ConfigError) as raised:
        device.resolve("cuda:1", print)
    assert str(raised.value) == said
    assert device.resolve("auto", print) == "cpu"


def test_a_setting_may_name_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "driver", lambda: 13_000)
    monkeypatch.setattr(device, "count", lambda: 3)
    monkeypatch.setattr(device, "no_provider", lambda: "")
    monkeypatch.setattr(device, "no_library", lambda: "")
    result = [device.names(wanted) for wanted in ("cpu", "auto", "cuda", "cuda:2", "cuda:2,0", "cuda:all")]
    assert result == [
        ("cpu",), ("auto",), ("cuda",), ("cuda:2",), ("cuda:2", "cuda:0"), ("cuda:0", "cuda:1", "cuda:2"),
    ]  # fmt: skip
    assert device.resolve("cuda:2,0", print) == "cuda:2,0"
    with pytest.raises(ConfigError, match=r"^device 'cuda:0,3,4': no GPU 3 .*; no GPU 4 "):
        device.resolve("cuda:0,3,4", print)


@without
def test_all_of_no_gpus_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^device 'cuda:all': no driver"):
        device.names("cuda:all")


def test_a_gpu_that_the_driver_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "count", lambda: 2)
    monkeypatch.setattr(device, "driver", lambda: 13_010)
    assert device.no_driver(1) == ""
    assert device.no_driver(2) == "no GPU 2 (there are 2)"


def test_a_driver_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "count", lambda: 2)
    monkeypatch.setattr(device, "driver", lambda: 12_080)
    assert device.no_driver(0) == "no driver for CUDA 13.0 (there is one for 12.8)"


def test_a_gpu_that_can_not_be_opened_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA_ERROR_ECC_UNCORRECTABLE\n  on device")

    monkeypatch.setattr(device.kernels, "load_cuda", fail)
    with pytest.raises(ConfigError, match=r"^device 'cuda:1': CUDA_ERROR_ECC_UNCORRECTABLE on device$"):
        device.Gpu(1)


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (lambda: 13, ""),
        (None, "no library for kernels (module 'x' has no attribute"),
        (lambda: 1 / 0, "no library for kernels (division by zero; pip install"),
    ],
)
def test_libraries_are_loaded_to_see_that_they_are_there(
    library: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("x")
    if library is not None:
        module.version = library  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "x", module)
    monkeypatch.setattr(device, "find_spec", lambda name: name)
    monkeypatch.setattr(device, "_LIBRARIES", {"x": "version"})
    assert device.no_library().startswith(message)
    assert bool(device.no_library()) == bool(message)
