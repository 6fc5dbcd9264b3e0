"""Reads /metrics for tests of whole processes."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from server_process import Process


class Scrape:
    """All metrics of a server, by name and the given labels."""

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
