"""Metrics of GPUs, of a driver that says what they do."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from driftline.serving import gpus


class NVMLError(Exception):
    pass


def driver(gpus: int, silent: bool = False) -> Any:
    """What NVML has of these names, for GPUs that are numbers; a `silent` one doesn't tell its power."""

    def power(gpu: int) -> int:
        if silent:
            raise NVMLError("Not Supported")
        return 70_500 + gpu

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: gpus,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda gpu: f"GPU-{gpu}",
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=25),
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(total=2**36, used=2**30),
        nvmlDeviceGetPowerUsage=power,
    )


@pytest.fixture(autouse=True)
def begun_anew() -> Iterator[None]:
    gpus.nvml.cache_clear()
    yield
    gpus.nvml.cache_clear()


def scraped() -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(gpus.GpuCollector())
    lines = generate_latest(registry).decode().splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}


def imports(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    def found(name: str) -> Any:
        assert name == "pynvml"
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(gpus, "importlib", SimpleNamespace(import_module=found))


def test_what_gpus_do_is_told_in_tritons_names(monkeypatch: pytest.MonkeyPatch) -> None:
    imports(monkeypatch, driver(2))
    found = scraped()
    assert len(found) == 8
    assert found['nv_gpu_utilization{gpu_uuid="GPU-1"}'] == 0.25
    assert found['nv_gpu_memory_total_bytes{gpu_uuid="GPU-0"}'] == 2**36
    assert found['nv_gpu_memory_used_bytes{gpu_uuid="GPU-0"}'] == 2**30
    assert found['nv_gpu_power_usage{gpu_uuid="GPU-1"}'] == pytest.approx(70.501)


def test_what_a_gpu_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    imports(monkeypatch, driver(1, silent=True))
    assert len(scraped()) == 3


def test_without_a_driver_or_its_library_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise NVMLError("Driver Not Loaded")

    for library in (ImportError("pynvml"), SimpleNamespace(NVMLError=NVMLError, nvmlInit=fails)):
        gpus.nvml.cache_clear()
        imports(monkeypatch, library)
        assert scraped() == {}
