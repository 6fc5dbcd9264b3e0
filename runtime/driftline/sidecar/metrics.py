"""An agent's Prometheus metrics: exchanges, its monitor, its sources, its process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from driftline.child_process import SharedCounts
from driftline.monitor.reporting.metrics import DriftCollector
from driftline.sidecar.agent import Agent, Source


def exposition(agent: Agent, sources: Sequence[Source], version: str) -> tuple[bytes, str]:
    """Return the response to a scrape and its content type."""
    registry = CollectorRegistry()
    key = agent.model, ""
    monitor = agent.observer.monitor
    reports = {key: monitor.report()} if monitor is not None else {}
    registry.register(AgentCollector(agent, sources, version))
    registry.register(DriftCollector({key: agent}, reports, agent.webhook))
    registry.register(ProcessCollector(registry=None))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def proxy_metrics(shared: SharedCounts, waiting: int) -> Iterator[Metric]:
    """Yield a proxy's metrics; `waiting`: copies on their way to the agent."""
    answers = CounterMetricFamily("driftline_proxy_answers", "Answers to clients", labels=["status"])
    for digit in "12345":
        answers.add_metric([f"{digit}xx"], shared[f"answers_{digit}xx"])
    failures = CounterMetricFamily(
        "driftline_proxy_failures", "Requests without the upstream's answer, by reason", labels=["reason"]
    )
    for reason in ("unreachable", "timeout", "broken", "gone", "malformed"):
        failures.add_metric([reason], shared[reason])
    copied = CounterMetricFamily("driftline_proxy_copied", "Exchanges handed to the agent")
    copied.add_metric([], shared["copied"])
    dropped = CounterMetricFamily(
        "driftline_proxy_dropped", "Exchanges that passed unobserved, by reason", labels=["reason"]
    )
    for reason in ("queue", "large", "status", "away", "lost"):
        dropped.add_metric([reason], shared[f"dropped_{reason}"])
    connections = GaugeMetricFamily("driftline_proxy_connections", "Open connections", labels=["side"])
    connections.add_metric(["client"], shared["clients"])
    connections.add_metric(["upstream"], shared["upstreams"])
    lag = GaugeMetricFamily("driftline_proxy_waiting", "Exchanges that wait to be observed")
    lag.add_metric([], waiting)
    yield from (answers, failures, copied, dropped, connections, lag)


class AgentCollector(Collector):
    """Reads an agent and its sources at every scrape."""

    def __init__(self, agent: Agent, sources: Sequence[Source], version: str) -> None:
        self._agent = agent
        self._sources = sources
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        exchanges = CounterMetricFamily(
            "driftline_exchanges", "Requests and their responses received", labels=["model", "outcome"]
        )
        for outcome, count in self._agent.exchanges.items():
            exchanges.add_metric([self._agent.model, outcome], count)
        yield exchanges
        info = GaugeMetricFamily("driftline_build_info", "The agent's version", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        for source in self._sources:
            yield from source.metrics()
