"""A real Prometheus scrapes a server and a sidecar: alerts fire, all queries of the dashboard find rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from manifests import DEPLOY
from onnx_models import scale
from prometheus import Prometheus, prometheus
from server_process import Process, infer_request, serving
from sidecar_process import monitoring
from waiting import until

from driftline.monitor.reference.profile import Profile
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
QUIET = {"driftline_tracking_dropped_total", "driftline_webhook_dropped_total"}
"""What a server without MLflow does not tell."""

SCRAPE = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: driftline
    static_configs: [{{targets: ["{server}", "{sidecar}"]}}]
"""


def send(url: str, rows: np.ndarray) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        for part in np.split(rows, 20):
            body = infer_request({"x": ("FP32", part.tolist())})
            client.post("/v2/models/flights/infer", json=body).raise_for_status()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Prometheus]]:
    """A server that has swapped, a sidecar before it, data that have drifted: and who has seen all that."""
    folder = tmp_path_factory.mktemp("scraped")
    registry = Registry.open(folder / "models")
    (folder / "driftline.toml").write_text("[monitor]\nlook_rows = 100\nfalse_alarm_rows = 100_000\n")
    outputs = {"y": 2 * REFERENCE, "total": 2 * REFERENCE.sum(axis=1)}
    Profile.fit({"x": REFERENCE, **outputs}).save(folder / "profile.arrow")
    files = [scale(folder / "model.onnx", 2.0), folder / "profile.arrow", folder / "driftline.toml"]
    registry.register(files, "flights")
    logging = ("--log-payloads", "all", "--log-sink", folder / "payloads")
    sharp = ("--model", "flights", "--look-rows", "100", "--false-alarm-rows", "100000")
    with (
        serving("--registry", folder / "models", "--poll-seconds", "0.05", *logging) as server,
        monitoring(folder / "profile.arrow", server.url, *sharp) as sidecar,
    ):
        configuration = SCRAPE.format(
            rules=MONITORING / "rules.yaml", server=server.address, sidecar=sidecar.address
        )
        with prometheus(configuration, folder) as scraping:
            send(server.url, REFERENCE[:1000])
            until(lambda: scraping.query("driftline_swaps_total"), "a scrape before the swap")
            registry.register(files, "flights")
            server.wait_for("flights 2 serves", 60)
            send(sidecar.traffic, REFERENCE[:1000])
            until(lambda: server.get("/v2/models/flights/drift").status_code == 200, "the monitor")
            until(lambda: scraping.query('nv_inference_request_success{version="2"} > 0'), "one after it")
            assert not scraping.query('ALERTS{alertname="DriftlineDrift"}')
            send(sidecar.traffic, REFERENCE[1000:4000] + np.float32([0, 2, 0]))
            yield server, scraping


@pytest.mark.parametrize("version", ["2", ""])
def test_the_drift_alert_fires_for_the_server_and_for_the_sidecar(
    both: tuple[Process, Prometheus], version: str
) -> None:
    """A sidecar knows no version."""
    _, scraping = both

    def fired() -> list[dict[str, Any]]:
        of = {"alertname": "DriftlineDrift", "model": "flights", "column": "x_1"}
        return [
            each
            for each in scraping.get("alerts")["alerts"]
            if each["state"] == "firing"
            and each["labels"].items() >= of.items()
            and each["labels"].get("version", "") == version
        ]

    (alert,) = until(fired, "the alert")
    name = " ".join(filter(None, ("flights", version)))
    assert (
        alert["annotations"]["summary"]
        == f"x_1 of {name}: drifted further from the reference than is harmless"
    )
    assert re.match(
        r"Since about 20\d\d-\d\d-\d\d [\d:.]+ \+0000 UTC\. GET ", alert["annotations"]["description"]
    )


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
    needed = set().union(*map(names, read)) - QUIET
    # Those of signals are there when the first alarm has been scraped.
    until(lambda: needed <= set(scraping.get("label/__name__/values")), f"all of {needed}")
    for group in scraping.get("rules")["groups"]:
        assert [rule["name"] for rule in group["rules"] if rule["health"] != "ok"] == []
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    exposed = server.get("/metrics").text
    for variable in dashboard["templating"]["list"][1:]:
        name = re.match(r"label_values\((\w+)", variable["query"]["query"])
        assert name is not None
        assert f"\n{name[1]}{{" in exposed
