from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from onnx_models import scale
from prometheus_client.parser import text_string_to_metric_families

from driftline import __version__
from driftline.errors import BadRequest, Cancelled, ModelError, Unavailable
from driftline.registry.directory import DirectoryRegistry
from driftline.registry.source import Reference
from driftline.serving.host import Host
from driftline.serving.metrics import exposition

COUNTERS = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
}


class Scrape:
    """A scrape, read by Prometheus' own parser: values by sample name and labels."""

    def __init__(self, host: Host) -> None:
        content, self.content_type = exposition(host, {})
        self.text = content.decode()
        self.types = {}
        self.samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in text_string_to_metric_families(self.text):
            self.types[family.name] = family.type
            for sample in family.samples:
                # The parser gives every counter the suffix that Triton's have not.
                name = sample.name.removesuffix("_total") if sample.name.startswith("nv_") else sample.name
                values = self.samples.setdefault(name, {})
                labels = frozenset(sample.labels.items())
                assert labels not in values, "a series is there twice"
                values[labels] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[name][frozenset(labels.items())]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    registry = DirectoryRegistry(tmp_path / "models")
    for number in (1, 2):
        registry.register([scale(tmp_path / "model.onnx", float(number))], "m")
    registry.promote("m", 1)
    registry.promote("m", 1, "champion")
    host = Host(registry, [Reference("m"), Reference("m", version=2)], interval=3600)
    await host.start()
    yield host
    await host.close()


def labels(version: int) -> dict[str, str]:
    return {"model": "m", "version": str(version)}


async def test_requests_rows_and_batches_are_counted_by_version(host: Host) -> None:
    batcher = host.find("m").batcher
    requests = [batcher.submit({"x": np.zeros((rows, 3), np.float32)}, ("y",)) for rows in (1, 2)]
    for request in requests:
        await request
    await batcher.submit({"x": np.zeros((300, 3), np.float32)}, ("y",))
    scrape = Scrape(host)
    assert scrape("nv_inference_request_success", **labels(1)) == 3
    assert scrape("nv_inference_request_success", **labels(2)) == 0
    assert scrape("nv_inference_count", **labels(1)) == 303
    assert scrape("nv_inference_exec_count", **labels(1)) == 4
    assert scrape("driftline_batch_rows_bucket", **labels(1), le="2") == 0
    assert scrape("driftline_batch_rows_bucket", **labels(1), le="4") == 1
    assert scrape("driftline_batch_rows_bucket", **labels(1), le="64") == 2
    assert scrape("driftline_batch_rows_bucket", **labels(1), le="128") == 4
    assert scrape("driftline_batch_rows_bucket", **labels(1), le="+Inf") == 4
    assert scrape("driftline_batch_rows_sum", **labels(1)) == 303
    assert scrape("driftline_batch_rows_count", **labels(1)) == 4


async def test_times_are_in_microseconds(host: Host) -> None:
    counters = host.find("m").batcher.counters
    counters.record_batch(1, 1_500, 2_500_000, 3_999)
    counters.request_ns, counters.queue_ns = 7_000_000, 8_000
    scrape = Scrape(host)
    durations = {
        name: scrape(f"nv_inference_{name}_duration_us", **labels(1))
        for name in ("request", "queue", "compute_input", "compute_infer", "compute_output")
    }
    assert durations == {
        "request": 7_000,
        "queue": 8,
        "compute_input": 1,
        "compute_infer": 2_500,
        "compute_output": 3,
    }


async def test_failures_are_counted_by_reason_and_all_reasons_are_there(host: Host) -> None:
    counters = host.find("m").batcher.counters
    for error in (BadRequest("a"), BadRequest("b"), Cancelled("c"), ModelError("d")):
        counters.record_failure(error, 1)
    scrape = Scrape(host)
    failures = {
        reason: scrape("nv_inference_request_failure", **labels(1), reason=reason)
        for reason in ("OTHER", "CANCELED", "BACKEND", "REJECTED")
    }
    assert failures == {"OTHER": 2, "CANCELED": 1, "BACKEND": 1, "REJECTED": 0}
    counters.record_failure(Unavailable("e"), 1)
    assert Scrape(host)("nv_inference_request_failure", **labels(1), reason="REJECTED") == 1


async def test_what_waits_is_shown(host: Host) -> None:
    batcher = host.find("m", "2").batcher
    requests = [batcher.submit({"x": np.zeros((rows, 3), np.float32)}, ("y",)) for rows in (1, 4)]
    scrape = Scrape(host)
    assert scrape("nv_inference_pending_request_count", **labels(2)) == 2
    assert scrape("driftline_queue_rows", **labels(2)) == 5
    assert scrape("driftline_queue_bytes", **labels(2)) == sum(request.nbytes for request in requests)
    assert scrape("driftline_queue_rows", **labels(1)) == 0
    for request in requests:
        await request
    assert Scrape(host)("nv_inference_pending_request_count", **labels(2)) == 0


async def test_versions_loads_and_swaps_are_shown(host: Host) -> None:
    scrape = Scrape(host)
    info = "driftline_model_version_info"
    assert scrape(info, **labels(1), aliases="champion,production", default="true") == 1
    assert scrape(info, **labels(2), aliases="", default="false") == 1
    assert scrape("driftline_loads_total", model="m", outcome="success") == 2
    assert scrape("driftline_swaps_total", model="m") == 0
    assert scrape("driftline_load_seconds", model="m") > 0
    assert scrape("driftline_build_info", version=__version__) == 1

    host.registry.promote("m", 2)
    host.registry.promote("m", 2, "champion")
    await host.refresh()
    scrape = Scrape(host)
    assert scrape(info, **labels(2), aliases="champion,production", default="true") == 1
    assert len(scrape.samples[info]) == 1
    assert scrape("driftline_swaps_total", model="m") == 1


async def test_loads_that_fail_are_counted(host: Host, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    version = host.registry.register([tmp_path / "model.onnx"], "m")
    host.registry.promote("m", version.number)
    await host.refresh()
    scrape = Scrape(host)
    assert scrape("driftline_loads_total", model="m", outcome="failure") == 1
    assert scrape("driftline_swaps_total", model="m") == 0


async def test_latency_is_a_histogram_of_a_model(host: Host) -> None:
    for ns in (50_000, 200_000, 60_000_000_000):
        host.find("m").latency.observe(ns)
    scrape = Scrape(host)
    name = "driftline_request_duration_seconds"
    assert scrape(f"{name}_bucket", model="m", le="0.0001") == 1
    assert scrape(f"{name}_bucket", model="m", le="0.00025") == 2
    assert scrape(f"{name}_bucket", model="m", le="10.0") == 2
    assert scrape(f"{name}_bucket", model="m", le="+Inf") == 3
    assert scrape(f"{name}_count", model="m") == 3
    assert scrape(f"{name}_sum", model="m") == pytest.approx(60.00025)


async def test_tritons_counters_have_tritons_names(host: Host) -> None:
    scrape = Scrape(host)
    for name in COUNTERS:
        assert f"\n# TYPE {name} counter\n" in f"\n{scrape.text}"
        assert f"\n# HELP {name} " in f"\n{scrape.text}"
        assert f"\n{name}{{" in scrape.text
        assert f"{name}_total" not in scrape.text
    assert "# TYPE driftline_swaps_total counter" in scrape.text
    assert scrape.types["nv_inference_pending_request_count"] == "gauge"
    assert scrape.content_type.startswith("text/plain; version=0.0.4")
    assert scrape("process_resident_memory_bytes") > 0


async def test_a_model_that_is_unloaded_leaves_no_version(host: Host) -> None:
    await host.unload("m")
    scrape = Scrape(host)
    assert "nv_inference_count" not in scrape.samples
    assert scrape("driftline_loads_total", model="m", outcome="success") == 2
