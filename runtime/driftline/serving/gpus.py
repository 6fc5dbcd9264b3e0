"""Metrics of this machine's NVIDIA GPUs under Triton's names, read by NVML; none without NVML."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_GAUGES: dict[str, tuple[str, Callable[[Any, Any], float]]] = {
    "nv_gpu_utilization": (
        "Share of the time that a card computes, 0 to 1",
        lambda nvml, card: nvml.nvmlDeviceGetUtilizationRates(card).gpu / 100,
    ),
    "nv_gpu_memory_total_bytes": (
        "Memory of a card",
        lambda nvml, card: nvml.nvmlDeviceGetMemoryInfo(card).total,
    ),
    "nv_gpu_memory_used_bytes": (
        "Memory of a card that is taken",
        lambda nvml, card: nvml.nvmlDeviceGetMemoryInfo(card).used,
    ),
    "nv_gpu_power_usage": (
        "Power that a card takes, in watts",
        lambda nvml, card: nvml.nvmlDeviceGetPowerUsage(card) / 1000,
    ),
}


@cache
def nvml() -> Any:
    """Initialise NVML and return it; None if the library or a driver is missing."""
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        library.nvmlInit()
    except library.NVMLError:
        return None
    return library


class CardsCollector(Collector):
    """Queries the driver at every scrape; values that a GPU does not report are left out."""

    def collect(self) -> Iterator[Metric]:
        """Yield each gauge, by GPU UUID."""
        library = nvml()
        if library is None:
            return
        cards = []
        with suppress(library.NVMLError):
            for index in range(library.nvmlDeviceGetCount()):
                with suppress(library.NVMLError):  # fallen off the bus, for example
                    cards.append(library.nvmlDeviceGetHandleByIndex(index))
        for name, (words, ask) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, words, labels=["gpu_uuid"])
            for card in cards:
                with suppress(library.NVMLError):
                    gauge.add_metric([library.nvmlDeviceGetUUID(card)], ask(library, card))
            yield gauge
