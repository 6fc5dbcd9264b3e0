from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx_models import identity, scale

from driftline.errors import BadRequest
from driftline.registry.directory import DirectoryRegistry
from driftline.registry.source import Reference, Version
from driftline.serving.host import Entry, Host
from driftline.serving.http import triton


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    registry = DirectoryRegistry(tmp_path / "models")
    for number in (1, 2):
        registry.register([scale(tmp_path / "model.onnx", float(number))], "m")
    settings = tmp_path / "driftline.toml"
    settings.write_text("[batching]\nmax_batch_rows = 16\nmax_delay_us = 50\n[engine]\ninstances = 2\n")
    registry.register([identity(tmp_path / "model.onnx", "BYTES", ("N", 2, "K")), settings], "text")
    registry.register([identity(tmp_path / "model.onnx", "INT64", (4, 2))], "fixed")
    references = [Reference("m"), Reference("m", version=1), Reference("text"), Reference("fixed")]
    host = Host(registry, references, interval=3600)
    await host.start()
    yield host
    await host.close()


# -- index --------------------------------------------------------------------------------------------


def row(name: str, version: int, state: str, reason: str = "") -> dict[str, object]:
    return {"name": name, "version": str(version), "state": state, "reason": reason}


async def test_the_index_has_what_registry_and_memory_hold(host: Host) -> None:
    await host.unload("text")
    registered = [Version("m", 1), Version("m", 2), Version("m", 10), Version("a", 1)]
    assert triton.index(host, registered, {}, only_ready=False)[:5] == [
        row("a", 1, "UNAVAILABLE"),
        row("fixed", 1, "READY"),
        row("m", 1, "READY"),
        row("m", 2, "READY"),
        row("m", 10, "UNAVAILABLE"),
    ]
    assert triton.index(host, registered, {}, only_ready=True) == [
        row("fixed", 1, "READY"),
        row("m", 1, "READY"),
        row("m", 2, "READY"),
    ]


async def test_tags_and_lineage_are_shown_where_there_are_some(host: Host) -> None:
    served = host.find("m", "2")
    lineage = {"run_id": "r", "datasets": [{"name": "train", "digest": "d"}]}
    served.version = replace(served.version, tags={"team": "a"}, lineage=lineage)
    origin = {"tags": {"team": "a"}, "lineage": lineage}
    registered = [Version("m", 1), Version("m", 2), Version("m", 3, tags={"team": "b"})]
    assert triton.index(host, registered, {}, only_ready=False)[1:] == [
        row("m", 1, "READY"),
        row("m", 2, "READY") | origin,
        row("m", 3, "UNAVAILABLE") | {"tags": {"team": "b"}},
        row("text", 1, "READY"),
    ]
    assert triton.metadata(served, [1, 2]).items() >= origin.items()


async def test_the_index_says_what_goes_on_with_a_version(host: Host) -> None:
    m = host.entries["m"]
    host.entries["m"] = Entry(
        "m",
        versions=dict(m.versions),
        failures={1: "its new files are broken", 3: "its files are broken", 4: "they were broken"},
        loading={4},
        unloading=[*m.versions.values()],
    )
    host.entries["m"].versions.pop(2)
    assert [entry for entry in triton.index(host, [], {}, only_ready=False) if entry["name"] == "m"] == [
        row("m", 1, "READY", "its new files are broken"),
        row("m", 2, "UNLOADING"),
        row("m", 3, "UNAVAILABLE", "its files are broken"),
        row("m", 4, "LOADING"),
    ]
    host.entries["m"] = m


# -- statistics -----------------------------------------------------------------------------------------


async def test_statistics_count_requests_rows_and_batches(host: Host) -> None:
    batcher = host.find("m").batcher
    requests = [batcher.submit({"x": np.zeros((rows, 3), np.float32)}, ("y",)) for rows in (1, 2)]
    for request in requests:
        await request
    await batcher.submit({"x": np.zeros((5, 3), np.float32)}, ("y",))
    batcher.counters.record_failure(BadRequest("no"), 77)
    (statistics,) = triton.statistics([host.find("m")])["model_stats"]  # type: ignore[misc]
    counters = batcher.counters
    assert (statistics["name"], statistics["version"]) == ("m", "2")
    assert (statistics["inference_count"], statistics["execution_count"]) == (8, 2)
    assert statistics["last_inference"] == int(counters.last_inference * 1000) > 1_600_000_000_000
    assert statistics["inference_stats"] == {
        "success": {"count": 3, "ns": counters.request_ns},
        "fail": {"count": 1, "ns": 77},
        "queue": {"count": 3, "ns": counters.queue_ns},
        "compute_input": {"count": 2, "ns": counters.input_ns},
        "compute_infer": {"count": 2, "ns": counters.infer_ns},
        "compute_output": {"count": 2, "ns": counters.output_ns},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    assert 0 < counters.queue_ns < counters.request_ns
    sizes = {entry["batch_size"]: entry for entry in statistics["batch_stats"]}
    assert list(sizes) == [3, 5]
    assert all(size["compute_infer"]["count"] == 1 for size in sizes.values())
    total = sum(size["compute_infer"]["ns"] for size in sizes.values())
    assert total == counters.infer_ns > 0


async def test_statistics_of_many_versions(host: Host) -> None:
    statistics = triton.statistics(host.served())["model_stats"]
    assert isinstance(statistics, list)
    assert {(entry["name"], entry["version"]) for entry in statistics} == {
        ("m", "1"),
        ("m", "2"),
        ("text", "1"),
        ("fixed", "1"),
    }
    assert all(entry["last_inference"] == 0 for entry in statistics)


# -- configuration and metadata ---------------------------------------------------------------------------


async def test_the_configuration_leaves_the_batch_dimension_out(host: Host) -> None:
    config = triton.config(host.find("text"))
    assert (config["name"], config["platform"], config["backend"]) == (
        "text",
        "onnxruntime_onnx",
        "onnxruntime",
    )
    assert config["max_batch_size"] == 16
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 50}
    assert config["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [2, -1]}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_STRING", "dims": [2, -1]}]
    assert config["instance_group"] == [{"name": "text", "kind": "KIND_CPU", "count": 2}]


async def test_a_model_without_batches_has_all_its_dimensions(host: Host) -> None:
    config = triton.config(host.find("fixed"))
    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config
    assert config["input"] == [{"name": "x", "data_type": "TYPE_INT64", "dims": [4, 2]}]


async def test_metadata_names_versions_and_tensors(host: Host) -> None:
    served = host.find("m")
    assert triton.metadata(served, host.entries["m"].versions) == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "total", "datatype": "FP32", "shape": [-1]},
        ],
    }
