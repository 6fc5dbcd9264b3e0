"""Rules and dashboard, judged by Prometheus itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import DEPLOY, containers, documents, refusals, scraped
from prometheus import promtool

MONITORING = DEPLOY / "monitoring"


def test_rules_do_what_their_tests_say() -> None:
    for arguments in (("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")):
        done = promtool(*arguments, cwd=MONITORING)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_test() -> None:
    rules, tests = ((MONITORING / name).read_text() for name in ("rules.yaml", "rules_test.yaml"))
    known = [rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    expected = {
        each["alertname"]
        for test in yaml.safe_load(tests)["tests"]
        for each in test["alert_rule_test"]
        if each.get("exp_alerts")
    }
    assert {rule["alert"] for rule in known if "alert" in rule} == expected
    assert all(rule["record"] in tests for rule in known if "record" in rule)
    assert all(
        {"summary", "description"} == set(rule["annotations"])
        and rule["labels"]["severity"] in ("info", "warning", "critical")
        for rule in known
        if "alert" in rule
    )


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-cluster.yml"])
def test_the_configuration_is_one(name: str, tmp_path: Path) -> None:
    text = (MONITORING / name).read_text()
    pods = "kubernetes_sd_configs:\n      - role: pod\n"
    assert (pods in text) == ("cluster" in name)
    # Debian's Prometheus is built without Kubernetes; all else is as it is.
    (tmp_path / name).write_text(text.replace(pods, "static_configs: []\n"))
    (tmp_path / "rules.yaml").write_text((MONITORING / "rules.yaml").read_text())
    done = promtool("check", "config", name, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def pod(address: str, image: str, phase: str = "Running", port: str = "8080", scrape: str = "true") -> Any:
    """A container as Prometheus finds it in a cluster."""
    known = {
        "annotation_prometheus_io_scrape": scrape,
        "annotation_prometheus_io_port": port,
        "container_image": image,
        "phase": phase,
        "name": "flights",
    }
    return {
        "targets": [address],
        "labels": {f"__meta_kubernetes_pod_{key}": value for key, value in known.items()},
    }


def test_our_pods_are_found_in_a_cluster_and_no_others(tmp_path: Path) -> None:
    configuration = yaml.safe_load((MONITORING / "prometheus-cluster.yml").read_text())
    (job,) = configuration["scrape_configs"]  # a target that is nowhere in a cluster is down for ever
    del job["kubernetes_sd_configs"]
    job["static_configs"] = [
        pod("10.0.0.1:8080", "driftline:0.1.0"),
        pod("10.0.0.2:9000", "registry.example:5000/ml/driftline-gpu@sha256:0a", port="9001"),
        pod("[fd00::3]:9000", "ml/driftline", port="9001"),
        pod("10.0.0.4", "driftline:0.1.0"),
        pod("10.0.0.5:80", "nginx:1"),
        pod("10.0.0.6:80", "driftline/nginx:1"),
        pod("10.0.0.7:8080", "driftline:0.1.0", phase="Failed"),
        pod("10.0.0.8:8080", "driftline:0.1.0", phase="Pending"),
        pod("10.0.0.9:8080", "driftline:0.1.0", scrape="false"),
    ]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    done = promtool("check", "service-discovery", "--timeout=5s", "prometheus.yml", "driftline", cwd=tmp_path)
    found = [each["labels"] for each in json.loads(done.stdout) if each["labels"]]
    assert {each["__address__"] for each in found} == {
        "10.0.0.1:8080",
        "10.0.0.2:9001",
        "[fd00::3]:9001",
        "10.0.0.4:8080",
    }
    assert all((each["job"], each["pod"]) == ("driftline", "flights") for each in found)


def test_the_operator_takes_its_objects_and_looks_for_the_same_pods() -> None:
    for name in ("podmonitor", "prometheusrule"):
        (document,) = documents(MONITORING / f"operator/{name}.yaml")
        assert document["apiVersion"] == "monitoring.coreos.com/v1"
        assert refusals(document) == []
        document["spec"]["wrong"] = True
        assert len(refusals(document)) == 1
    (rule,) = documents(MONITORING / "operator/prometheusrule.yaml")
    assert rule["spec"] == yaml.safe_load((MONITORING / "rules.yaml").read_text()), "make prometheusrule"
    (monitor,) = documents(MONITORING / "operator/podmonitor.yaml")
    (job,) = yaml.safe_load((MONITORING / "prometheus-cluster.yml").read_text())["scrape_configs"]
    image = ["__meta_kubernetes_pod_container_image"]
    (kept,) = [one["regex"] for one in job["relabel_configs"] if one["source_labels"] == image]
    ports: dict[str, list[str]] = {}
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        first, *others, last = endpoint["relabelings"]
        assert first == {"sourceLabels": image, "regex": kept, "action": "keep"}
        assert last == {"targetLabel": "job", "replacement": job["job_name"]}
        ports[endpoint["port"]] = [one["replacement"] for one in others]
        assert all(re.fullmatch(one["regex"], "10.0.0.1:9000") for one in others)
    assert ports == {"http1": [], "h2c": ["$1:8080"], "drift": []}
    for path in ("runtime-cpu.yaml", "runtime-gpu.yaml", "runtime-grpc.yaml", "samples/sidecar.yaml"):
        (asked,) = scraped(documents(DEPLOY / "kserve" / path)[0])
        named = {
            port["name"]: str(port["containerPort"])
            for container in containers(documents(DEPLOY / "kserve" / path))
            for port in container["ports"]
        }
        # The port that has this number, or one whose address is set to it.
        asking = {name: ports[name] or [f"$1:{number}"] for name, number in named.items() if name in ports}
        assert [f"$1:{asked}"] in asking.values(), path


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = {"type": "prometheus", "uid": "${datasource}"}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + across, place["y"] + down)
            for across in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == sources
            assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])


def test_the_adapter_makes_the_metric_that_is_scaled_on() -> None:
    (rule,) = yaml.safe_load((MONITORING / "adapter.yaml").read_text())
    _, scaler = yaml.safe_load_all((DEPLOY / "kserve/samples/scaled-by-hpa.yaml").read_text())
    metrics: list[Any] = scaler["spec"]["metrics"]
    assert [each["pods"]["metric"]["name"] for each in metrics] == [rule["name"]["as"]]


def test_kustomize_finds_what_it_packs() -> None:
    kustomization = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())
    for generator in kustomization["configMapGenerator"]:
        assert all((MONITORING / name).is_file() for name in generator["files"])
    operator = yaml.safe_load((MONITORING / "operator/kustomization.yaml").read_text())
    names = {path.name for path in (MONITORING / "operator").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(operator["resources"]) == names
