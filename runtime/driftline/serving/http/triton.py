"""Responses of Triton's extensions: repository index, statistics, model configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from driftline.registry.source import Version
from driftline.serving.base_host import Entry
from driftline.serving.host import Host
from driftline.serving.served import Served
from driftline.tensors import TensorSpec

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
)
"""The extensions, as server metadata names them."""

PLATFORM = "onnxruntime_onnx"


def index(host: Host, registered: Iterable[Version], only_ready: bool) -> list[dict[str, Any]]:
    """List every version in the registry or in memory, with its state and the reason of a failure."""
    versions = {(version.name, version.number): version for version in registered}
    rows: dict[tuple[str, int], tuple[str, str]] = dict.fromkeys(versions, ("UNAVAILABLE", ""))
    for entry in host.entries.values():
        rows |= {(entry.name, number): state for number, state in _states(entry).items()}
        versions |= {(entry.name, number): served.version for number, served in entry.versions.items()}
    return [
        {"name": name, "version": str(number), "state": state, "reason": reason}
        | (origin(versions[name, number]) if (name, number) in versions else {})
        for (name, number), (state, reason) in sorted(rows.items())
        if state == "READY" or not only_ready
    ]


def origin(version: Version) -> dict[str, Any]:
    """A version's tags and lineage, if the registry has any; Triton has no field for them."""
    fields = {"tags": dict(version.tags), "lineage": dict(version.lineage)}
    return {key: value for key, value in fields.items() if value}


def _states(entry: Entry) -> dict[int, tuple[str, str]]:
    states = {number: ("UNAVAILABLE", reason) for number, reason in entry.failures.items()}
    states |= {served.version.number: ("UNLOADING", "") for served in entry.unloading}
    states |= dict.fromkeys(entry.loading, ("LOADING", ""))
    # A version that is being served has a reason, too, if its files have changed and can't be loaded.
    return states | {number: ("READY", entry.failures.get(number, "")) for number in entry.versions}


def statistics(versions: Iterable[Served]) -> dict[str, object]:
    """Return the statistics extension's response for versions in memory."""
    return {"model_stats": [_statistics_of(served) for served in versions]}


def _statistics_of(served: Served) -> dict[str, object]:
    counters = served.batcher.counters
    # For batches on a GPU, the device's session measures the time of copies.
    sessions = served.model.device_sessions
    copy_in_ns = sum(session.times.input_ns for session in sessions)
    copy_out_ns = sum(session.times.output_ns for session in sessions)
    failures = sum(counters.failures.values())
    return {
        "name": served.version.name,
        "version": str(served.version.number),
        "last_inference": int(counters.last_inference * 1000),
        "inference_count": counters.inferences,
        "execution_count": counters.executions,
        "inference_stats": {
            "success": _duration(counters.requests, counters.request_ns),
            "fail": _duration(failures, counters.failure_ns),
            "queue": _duration(counters.requests, counters.queue_ns),
            "compute_input": _duration(counters.executions, counters.input_ns + copy_in_ns),
            "compute_infer": _duration(
                counters.executions, max(counters.infer_ns - copy_in_ns - copy_out_ns, 0)
            ),
            "compute_output": _duration(counters.executions, counters.output_ns + copy_out_ns),
            "cache_hit": _duration(0, 0),
            "cache_miss": _duration(0, 0),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(size.count, size.input_ns),
                "compute_infer": _duration(size.count, size.infer_ns),
                "compute_output": _duration(size.count, size.output_ns),
            }
            for rows, size in sorted(counters.batches.items())
        ],
    }


def _duration(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}


def config(served: Served) -> dict[str, Any]:
    """Return the configuration extension's response; as in Triton, dims omit the batch dimension."""
    signature, settings = served.signature, served.model.settings
    max_batch_rows = settings.batching.max_batch_rows if signature.batched else 0

    def tensor(spec: TensorSpec) -> dict[str, object]:
        dims = spec.shape[1:] if signature.batched else spec.shape
        return {"name": spec.name, "data_type": spec.datatype.triton, "dims": list(dims)}

    device = settings.engine.device
    on_gpu = bool(served.model.device_sessions) if device == "auto" else device != "cpu"
    kind = "KIND_GPU" if on_gpu else "KIND_CPU"
    answer: dict[str, Any] = {
        "name": served.version.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": max_batch_rows,
        "input": [tensor(spec) for spec in signature.inputs],
        "output": [tensor(spec) for spec in signature.outputs],
        "instance_group": [{"name": served.version.name, "kind": kind, "count": settings.engine.instances}],
        "default_model_filename": "model.onnx",
    }
    if max_batch_rows:
        answer["dynamic_batching"] = {"max_queue_delay_microseconds": settings.batching.max_delay_us}
    return answer


def metadata(served: Served, versions: Iterable[int]) -> dict[str, object]:
    """Return the protocol's model metadata."""
    return {
        "name": served.version.name,
        "versions": [str(number) for number in sorted(versions)],
        "platform": PLATFORM,
        "inputs": [spec.as_json() for spec in served.signature.inputs],
        "outputs": [spec.as_json() for spec in served.signature.outputs],
        **origin(served.version),
    }
