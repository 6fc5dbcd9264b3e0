"""A GPU's times: every kernel checked and timed, and batches of 1 to 4096 rows on the CPU and the GPU.

Needs a GPU: without one, a line says what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from typing import Any

import click
import numpy as np
import onnxruntime

import driftline as dl
from bench import models
from bench.common import HERE, Effort, Sample, machine
from bench.gpu_kernels import BINS, cases, check, copy_in, map_arrays
from bench.results import Result, Table, Target, replace
from driftline.config import Engine
from driftline.engine.cuda.counter import CategoryCounts, DeviceCounter
from driftline.engine.cuda.device import PROVIDER, Device, Gpu, missing
from driftline.engine.cuda.features import FeatureStaging
from driftline.engine.cuda.session import DeviceSession
from driftline.engine.features import Features
from driftline.engine.model import session_of
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.tensors import Tensors
from driftline_kernels.device import load_cuda

JSON = HERE / "results" / "gpu.json"
COLUMNS = 30
ANSWERS = ("output",)
MAX_COPIES = 500
"""The most copies that keep a device busy: it would not queue more without waiting."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    batches    rows of batches that run end to end
    rows       on which kernels are timed, and
    checked    on which their results are checked: no multiple of anything
    reference  rows of the monitors' profiles
    copy       bytes that a device copies
    calls      that are timed together
    """

    batches: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    rows: int = 1_000_000
    checked: int = 4099
    reference: int = 10_000
    copy: int = 256 * 2**20
    calls: int = 20


class NoGpu(click.ClickException):
    """There is no GPU to measure."""

    exit_code = 2


def needs() -> None:
    """Raise NoGpu, with a one-line reason, if no GPU can be used here."""
    if lacking := missing():
        raise NoGpu(f"gpu: {'; '.join(lacking)}")


def run(effort: Effort) -> Result:
    """Check and measure the first GPU."""
    needs()
    return measure(Gpu(0), effort.rounds, models.mlp(), Sizes())


def keep(result: Result) -> None:
    """Write the result to a file of its own, with the GPU's name."""
    name = load_cuda().gpus[0].name
    document = {
        "gpu": name.decode() if isinstance(name, bytes) else name,
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "targets": [str(target) for target in result.targets],
        **result.figures,
    }
    replace(JSON, json.dumps(document, indent=2, default=lambda sample: list(sample.values)) + "\n")


def measure(device: Device, rounds: int, model: Path, sizes: Sizes) -> Result:
    """Check the kernels on few rows and time them on many; then batches of a network on CPU and device."""
    for case in cases(sizes.checked, COLUMNS):
        check(device, case)
    for path in (model, models.xgboost()):
        check_answers(device, path, sizes)
    copy = copy_rate(device, rounds, sizes)
    kernels: dict[str, Sample] = {}
    shown = [["device copy", "", "", f"{copy:.0f}", ""]]
    for case in cases(sizes.rows, COLUMNS):
        with device.active():
            arguments = map_arrays(case.arguments, lambda array: copy_in(device, array))
            ns = timed(device, lambda arguments=arguments, case=case: case.call(*arguments), rounds, sizes)
        kernels[case.name] = rate = Sample.of([case.nbytes / value for value in ns.values])
        shown.append(
            [case.name, f"{sizes.rows:,}", f"{ns.median / 1e3:.1f}", f"{rate:.0f}", f"{rate / copy:.2f}"]
        )
    ways = end_to_end(device, rounds, model, sizes)
    for way, points in ways.items():
        shown += [[way, f"{batch:,}", f"{ns.median / 1e3:.1f}", "", ""] for batch, ns in points.items()]
    targets = [
        Target(
            "bins and moments of all columns, of the device copy's GB/s",
            (kernels[f"rows_cuda._observe_cuda: {BINS}"] / copy).median, "at least", 0.7,
        )
    ]  # fmt: skip
    if 256 in sizes.batches:
        raw, plain, watched = (ways[way][256] for way in ("raw, GPU", "inference, GPU", "watched, GPU"))
        targets.append(Target("256 rows, of ONNX Runtime's rows/s", (raw / plain).median, "at least", 0.9))
        share = (watched / plain).median
        targets.append(Target("256 rows watched, of the time unwatched", share, "at most", 1.03))
    return Result(
        f"kernels on {sizes.rows:,} x {COLUMNS}, batches end to end: {device.name}",
        Table(["what", "rows", "us", "GB/s", "of copy"], shown),
        targets,
        [
            "All kernels found what the CPU finds; a network and trees answered as on the CPU.",
            "GB/s: every array once, of kernels; what is read and what is written, of the copy.",
        ],
        {"copy_gb_s": copy, "kernels_gb_s": kernels, "ns": ways},
    )


def check_answers(device: Device, model: Path, sizes: Sizes) -> None:
    """Raise AssertionError if the outputs of consecutive batches differ from those on the CPU."""
    session = session_of(model, Engine(), None)
    on_gpu = DeviceSession(device, session_of(model, Engine(), device))
    (spec,) = session.signature.inputs
    outputs = [output.name for output in session.signature.outputs]
    for seed, batch in enumerate(sizes.batches * 2):
        inputs = {spec.name: models.rows(batch, spec.shape[1], seed)}
        expected, actual = session.run(inputs, outputs), on_gpu.run(inputs, outputs)
        for name in outputs:
            np.testing.assert_allclose(
                actual[name], expected[name], rtol=1e-3, atol=1e-4, err_msg=f"{model.stem}: {name}"
            )
    on_gpu.close()


def end_to_end(device: Device, rounds: int, model: Path, sizes: Sizes) -> dict[str, dict[int, Sample]]:
    """Return the nanoseconds of a batch from memory to memory, by way and rows.

    `inference` is a network alone, `watched` with its inputs counted. `transform` is a small network on raw
    columns, which are imputed and standardised, `all` with the raw columns counted.
    """
    session = session_of(model, Engine(), None)
    on_gpu, raw = DeviceSession(device, session_of(model, Engine(), device)), raw_session(model, device)
    (spec,) = session.signature.inputs
    outputs = [output.name for output in session.signature.outputs]
    counter = DeviceCounter.of(
        on_gpu, Monitor(Profile.fit({spec.name: models.rows(sizes.reference, spec.shape[1])}))
    )
    reference = columns(sizes.reference, seed=3)
    small, features = featured(reference)
    staged = DeviceSession(
        device, session_of(small, Engine(), device), staging=FeatureStaging(device, features)
    )
    cpu_session, monitor = session_of(small, Engine(), None), Monitor(Profile.fit(reference))
    staged_counter = DeviceCounter.of(staged, Monitor(Profile.fit(reference)))
    samples: dict[str, dict[int, Sample]] = {}
    for batch in sizes.batches:
        inputs, table = {spec.name: models.rows(batch, spec.shape[1])}, columns(batch)

        def all_on_cpu(table: Tensors = table) -> None:
            cpu_session.run(features.apply(table), ANSWERS)
            monitor.observe(table)

        ways: dict[str, Callable[[], Any]] = {
            "raw, GPU": lambda inputs=inputs: raw_run(raw, inputs, outputs),
            "inference, GPU": lambda inputs=inputs: on_gpu.run(inputs, outputs),
            "watched, GPU": lambda inputs=inputs: watched(on_gpu, counter, inputs, outputs),
            "inference, CPU": lambda inputs=inputs: session.run(inputs, outputs),
            "transform, GPU": lambda table=table: staged.run(table, ANSWERS),
            "all, GPU": lambda table=table: watched(staged, staged_counter, table, ANSWERS),
            "transform, CPU": lambda table=table: cpu_session.run(features.apply(table), ANSWERS),
            "all, CPU": all_on_cpu,
        }
        for way, work in ways.items():
            samples.setdefault(way, {})[batch] = wall(work, rounds, sizes.calls)
        counter.drain()
        staged_counter.drain()
    return samples


def columns(count: int, seed: int = 1) -> Tensors:
    """Return raw columns with some values missing."""
    matrix = models.rows(count, COLUMNS, seed).astype(np.float64)
    matrix[::9] = np.nan
    return {f"c{column}": np.ascontiguousarray(values) for column, values in enumerate(matrix.T)}


def featured(reference: Tensors) -> tuple[Path, Features]:
    """Return a small network, and the transform in front of it."""
    model = models.mlp((COLUMNS, 256, 1))
    steps = [dl.Impute([*reference], "median"), dl.Standardise([*reference])]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "transform.json"
        dl.Transform(steps).fit(reference).save(path)
        return model, Features.of(path, session_of(model, Engine(), None).signature)


def watched(on_gpu: DeviceSession, counter: DeviceCounter, inputs: Tensors, outputs: Sequence[str]) -> None:
    """Run a batch, and count it."""
    counted: list[CategoryCounts | None] = []
    on_gpu.run(inputs, outputs, lambda buffers, rows: counted.append(counter.count(buffers, rows)))
    for categories in counted:
        assert categories is not None
        categories.settle(inputs)


def raw_session(model: Path, device: Device) -> Any:
    """Return ONNX Runtime's own session, with nothing around it."""
    options = {"device_id": str(device.index), "use_tf32": "0"}  # as in ours
    is_gpu = device.memory != "cpu"
    return onnxruntime.InferenceSession(
        str(model), providers=[(PROVIDER, options)] if is_gpu else ["CPUExecutionProvider"]
    )


def raw_run(session: Any, inputs: dict[str, Any], outputs: Sequence[str]) -> None:
    """Run a batch with ONNX Runtime's bindings and copies."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for output in outputs:
        binding.bind_output(output, "cpu")
    session.run_with_iobinding(binding)
    binding.copy_outputs_to_cpu()


def copy_rate(device: Device, rounds: int, sizes: Sizes) -> Sample:
    """Return the GB/s of a copy within a device's memory, bytes read plus bytes written."""
    with device.active():
        source, target = (device.empty((sizes.copy,), np.uint8) for _ in range(2))
        ns = timed(device, lambda: device.copy_in(source, target), rounds, sizes)
    return Sample.of([2 * sizes.copy / value for value in ns.values])


def timed(device: Device, work: Callable[[], Any], rounds: int, sizes: Sizes) -> Sample:
    """Return the nanoseconds of work on a device, by its own clock.

    The device is kept busy until all work is queued: queueing may take longer than the work.
    """
    source, target = (device.empty((sizes.copy,), np.uint8) for _ in range(2))
    work()
    begin = perf_counter_ns()
    for _ in range(sizes.calls):
        work()
    queueing_ns = perf_counter_ns() - begin
    start = device.mark()
    device.copy_in(source, target)
    end = device.mark()
    device.wait(end)
    copies = 1 + 2 * queueing_ns // max(1, device.between(start, end))
    times = []
    for _ in range(rounds):
        for _ in range(min(copies, MAX_COPIES)):
            device.copy_in(source, target)
        first = device.mark()
        for _ in range(sizes.calls):
            work()
        last = device.mark()
        device.wait(last)
        times.append(device.between(first, last) / sizes.calls)
    return Sample.of(times)


def wall(work: Callable[[], Any], rounds: int, calls: int) -> Sample:
    """Return the nanoseconds of work, by our clock."""
    work()
    times = []
    for _ in range(rounds):
        begin = perf_counter_ns()
        for _ in range(calls):
            work()
        times.append((perf_counter_ns() - begin) / calls)
    return Sample.of(times)
