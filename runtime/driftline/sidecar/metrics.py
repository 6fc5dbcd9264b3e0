"""What Prometheus sees of an agent: exchanges, its monitor, whatever its sources tell, its process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from driftline.monitor.metrics import DriftCollector
from driftline.sidecar.agent import Agent, Source


def exposition(agent: Agent, sources: Sequence[Source], version: str) -> tuple[bytes, str]:
    """The answer to a scrape and its content type."""
    registry = CollectorRegistry()
    key = agent.model, ""
    monitor = agent.observer.monitor
    reports = {key: monitor.report()} if monitor is not None else {}
    registry.register(AgentCollector(agent, sources, version))
    registry.register(DriftCollector({key: agent}, reports))
    registry.register(ProcessCollector(registry=None))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class AgentCollector(Collector):
    """Reads an agent and its sources at every scrape."""

    def __init__(self, agent: Agent, sources: Sequence[Source], version: str) -> None:
        self._agent = agent
        self._sources = sources
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        exchanges = CounterMetricFamily(
            "driftline_exchanges", "Requests and answers that were handed in", labels=["model", "outcome"]
        )
        for outcome, count in self._agent.exchanges.items():
            exchanges.add_metric([self._agent.model, outcome], count)
        yield exchanges
        info = GaugeMetricFamily("driftline_build_info", "The agent's version", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        for source in self._sources:
            yield from source.metrics()
