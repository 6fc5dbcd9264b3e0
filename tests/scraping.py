"""What tests of whole processes wait for, and what they read from /metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from support import Process


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait for a condition to give something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)
    return found


class Scrape:
    """All metrics of a server, by name and the labels that are given."""

    def __init__(self, server: Process) -> None:
        families = text_string_to_metric_families(server.get("/metrics").text)
        self._samples = [sample for family in families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        (value,) = (
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
        return value
