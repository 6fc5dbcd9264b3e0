"""What a cluster is given, held against the schemas of Kubernetes and KServe, and against our commands."""

from __future__ import annotations

import copy
from pathlib import Path

import click
import pytest
import yaml
from manifests import DEPLOY, containers, documents, refusals

from driftline import __version__
from driftline.cli import main

KSERVE = DEPLOY / "kserve"
FILES = sorted([*KSERVE.glob("*.yaml"), *(KSERVE / "samples").glob("*.yaml")])
RUNTIMES = ("cpu", "gpu", "grpc")
OURS = {"kustomization.yaml", "images.yaml"}
"""Read by kustomize, not by a cluster."""
MANIFESTS = [path for path in FILES if path.name not in OURS]
APIS = {
    "ClusterServingRuntime": "serving.kserve.io/v1alpha1",
    "ClusterStorageContainer": "serving.kserve.io/v1alpha1",
    "InferenceService": "serving.kserve.io/v1beta1",
    "Deployment": "apps/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "Service": "v1",
}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_cluster_takes_every_manifest(path: Path) -> None:
    for document in documents(path):
        assert document["apiVersion"] == APIS[document["kind"]]
        assert refusals(document) == []


def test_what_is_wrong_is_refused() -> None:
    (right,) = documents(KSERVE / "runtime-cpu.yaml")
    for where, key, value in (
        (["spec"], "protocolVersion", ["v2"]),
        (["spec", "containers", 0], "port", 8080),
        (["spec", "containers", 0, "readinessProbe", "httpGet"], "uri", "/"),
        (["spec", "containers", 0, "securityContext"], "runAsUser", "nobody"),
        (["spec", "containers", 0, "resources", "limits"], "cpu", "much"),
        (["spec", "volumes", 0, "emptyDir"], "size", "1Gi"),
    ):
        wrong = copy.deepcopy(right)
        at = wrong
        for step in where:
            at = at[step]
        at[key] = value
        assert len(refusals(wrong)) >= 1, (where, key)
    del right["spec"]["containers"]
    assert len(refusals(right)) == 1


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_our_containers_have_no_rights_and_our_commands_understand_them(path: Path) -> None:
    for container in containers(documents(path)):
        assert container["image"].partition(":")[2] == __version__
        rights = container["securityContext"]
        assert rights["runAsNonRoot"] is rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert "runAsUser" not in rights  # the image has one, and OpenShift refuses all but its own
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"  # our errors are a line
        words = [*container.get("command", ["driftline"])[1:], *container.get("args", [])]
        command = main.commands[words[0]]
        arguments = [word.replace("{{.Name}}", "flights") for word in words[1:]]
        if words[0] == "fetch":  # as KServe calls it
            arguments = ["models:/flights@production", "/mnt/models"]
        try:
            command.make_context(words[0], arguments)
        except click.UsageError as error:
            raise AssertionError(f"{path.name}: {error.message}") from error


def test_kserve_knows_when_a_runtime_is_ready() -> None:
    for name in ("cpu", "gpu"):
        (runtime,) = documents(KSERVE / f"runtime-{name}.yaml")
        (container,) = runtime["spec"]["containers"]
        assert container["name"] == "kserve-container"
        port = container["ports"][0]["containerPort"]
        assert f"--http_port={port}" in container["args"]
        assert container["readinessProbe"]["httpGet"] == {"path": "/v2/models/{{.Name}}/ready", "port": port}
        assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == str(port)
    (runtime,) = documents(KSERVE / "runtime-grpc.yaml")
    (container,) = runtime["spec"]["containers"]
    (port,) = [each["containerPort"] for each in container["ports"]]
    assert f"--grpc_port={port}" in container["args"]
    assert container["readinessProbe"]["grpc"] == {"port": port, "service": "{{.Name}}"}
    assert f"--http_port={container['livenessProbe']['httpGet']['port']}" in container["args"]
    assert runtime["spec"]["protocolVersions"] == ["grpc-v2"]


def test_what_answers_clients_ends_in_the_time_that_kubernetes_gives_it() -> None:
    files = ("runtime-cpu.yaml", "runtime-gpu.yaml", "runtime-grpc.yaml", "samples/sidecar.yaml")
    ours = [each for name in files for each in containers(documents(KSERVE / name))]
    assert len(ours) == len(files)
    for container in ours:
        command, *arguments = container["args"]
        params = main.commands[command].make_context(command, arguments).params
        assert params["stop_delay_seconds"] >= 2
        assert params["stop_delay_seconds"] + params["drain_seconds"] <= 25


def test_a_runtime_takes_no_model_away_from_another() -> None:
    formats = [
        each
        for name in RUNTIMES
        for runtime in documents(KSERVE / f"runtime-{name}.yaml")
        for each in runtime["spec"]["supportedModelFormats"]
    ]
    assert {each["name"] for each in formats if each.get("autoSelect")} == {"driftline"}


def test_samples_name_what_is_there() -> None:
    (storage,) = documents(KSERVE / "storage-mlflow.yaml")
    runtimes = {
        each["metadata"]["name"]: {known["name"] for known in each["spec"]["supportedModelFormats"]}
        for name in RUNTIMES
        for each in documents(KSERVE / f"runtime-{name}.yaml")
    }
    samples = [each for path in (KSERVE / "samples").glob("*.yaml") for each in documents(path)]
    models = [each["spec"]["predictor"]["model"] for each in samples if each["kind"] == "InferenceService"]
    assert len(models) == 5
    (prefix,) = storage["spec"]["supportedUriFormats"]
    for model in models:
        assert model["modelFormat"]["name"] in runtimes[model["runtime"]]
        assert model["storageUri"].startswith(prefix["prefix"])


def test_kustomize_finds_everything_once() -> None:
    kustomization = yaml.safe_load((KSERVE / "kustomization.yaml").read_text())
    assert set(kustomization) == {"apiVersion", "kind", "resources", "images", "configurations"}
    named = {*kustomization["resources"], *kustomization["configurations"], "kustomization.yaml"}
    assert named == {path.name for path in KSERVE.glob("*.yaml")}
    images = {each["image"].partition(":")[0] for path in MANIFESTS for each in containers(documents(path))}
    assert images == {each["name"] for each in kustomization["images"]}
