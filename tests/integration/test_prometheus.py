"""A real Prometheus scrapes a real server: the alert fires, and every query of the dashboard finds rows."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import yaml
from manifests import DEPLOY
from prometheus import Prometheus, prometheus
from support import Process, scale, serving

from driftline.monitor.profile import Profile
from driftline.registry.source import Registry

pytestmark = [pytest.mark.timeout(300)]

MONITORING = DEPLOY / "monitoring"
RANDOM = np.random.default_rng(0)
REFERENCE = RANDOM.standard_normal((5000, 3)).astype(np.float32)
VARIABLES = {
    "[1m]": "[10m]",
    "offset 1m": "offset 10m",
    "$__rate_interval": "10m",
    "$job": ".*",
    "$model": ".*",
    "$version": ".*",
}
QUIET = {"driftline_tracking_dropped_total"}
"""What a server without MLflow does not tell."""

SCRAPE = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: driftline
    static_configs: [{{targets: ["{address}"]}}]
"""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition to give something."""
    deadline = time.monotonic() + 200
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.1)
    return found


def send(server: Process, rows: np.ndarray) -> None:
    for part in np.array_split(rows, 20):
        server.infer("flights", {"x": ("FP32", part.tolist())}).raise_for_status()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Prometheus]]:
    """A server that has swapped and whose data have drifted, and a Prometheus that has seen it."""
    folder = tmp_path_factory.mktemp("scraped")
    registry = Registry.open(folder / "models")
    (folder / "driftline.toml").write_text("[monitor]\nlook_seconds = 0.05\nfalse_alarm_rows = 100_000\n")
    outputs = {"y": 2 * REFERENCE, "total": 2 * REFERENCE.sum(axis=1)}
    Profile.fit({"x": REFERENCE, **outputs}).save(folder / "profile.arrow")
    files = [scale(folder / "model.onnx", 2.0), folder / "profile.arrow", folder / "driftline.toml"]
    registry.register(files, "flights")
    with serving("--registry", folder / "models", "--poll-seconds", "0.05") as server:
        configuration = SCRAPE.format(rules=MONITORING / "rules.yaml", address=server.address)
        with prometheus(configuration, folder) as scraping:
            send(server, REFERENCE[:1000])
            until(lambda: scraping.query("driftline_swaps_total"), "a scrape before the swap")
            registry.register(files, "flights")
            server.wait_for("flights 2 serves", 60)
            send(server, REFERENCE[:1000])
            until(lambda: server.get("/v2/models/flights/drift").status_code == 200, "the monitor")
            assert not scraping.query('ALERTS{alertname="DriftlineDrift"}')
            send(server, REFERENCE[1000:4000] + np.float32([0, 2, 0]))
            yield server, scraping


def test_the_drift_alert_fires(both: tuple[Process, Prometheus]) -> None:
    _, scraping = both

    def fired() -> list[dict[str, Any]]:
        alerts = scraping.get("alerts")["alerts"]
        return [
            each
            for each in alerts
            if each["state"] == "firing"
            and each["labels"].items()
            >= {"alertname": "DriftlineDrift", "model": "flights", "version": "2", "column": "x_1"}.items()
        ]

    (alert,) = until(fired, "the alert")
    assert alert["annotations"]["summary"] == "x_1 of flights 2: further from the reference than is harmless"


def expressions() -> list[tuple[str, str]]:
    """Each query of the dashboard, of its annotations too, and where it stands."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    found = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    return found + [(each["name"], each["expr"]) for each in dashboard["annotations"]["list"]]


def names(expression: str) -> set[str]:
    """The metrics that an expression reads."""
    return set(re.findall(r"(?<![:\w])(?:nv|driftline|process)_\w+", re.sub(r'"[^"]*"', "", expression)))


def test_every_query_of_the_dashboard_finds_something(both: tuple[Process, Prometheus]) -> None:
    _, scraping = both
    for title, expression in expressions():
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression
        until(partial(scraping.query, expression), f"{title}: {expression}")  # a rate needs two scrapes


def test_rules_and_dashboard_know_only_metrics_that_are_there(both: tuple[Process, Prometheus]) -> None:
    server, scraping = both
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    read = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    read += [expression for _, expression in expressions()]
    there = set(scraping.get("label/__name__/values")) | QUIET
    assert set().union(*map(names, read)) <= there
    for group in scraping.get("rules")["groups"]:
        assert [rule["name"] for rule in group["rules"] if rule["health"] != "ok"] == []
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    exposed = server.get("/metrics").text
    for variable in dashboard["templating"]["list"][1:]:
        name = re.match(r"label_values\((\w+)", variable["query"]["query"])
        assert name is not None
        assert f"\n{name[1]}{{" in exposed
