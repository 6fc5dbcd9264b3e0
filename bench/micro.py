"""The cost of counting, looking and reading: values/s beside other tools, a row, a look, a report, JSON."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from timeit import repeat

import numpy as np
import orjson
from datasketches import kll_floats_sketch
from scipy.stats import ks_2samp

from bench.common import HERE, SERVER_CORE, Effort, Matrix, Sample, on_core, pinned
from bench.results import Result, Table, Target
from driftline.monitor.detection.onset import Look
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.column import BINS, Numeric
from driftline.monitor.reference.profile import Profile
from driftline.protocols import numbers
from driftline.protocols.v2 import V2Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec
from driftline_kernels import bins, moments

ROWS, COLUMNS, WIDE = 100_000, 30, 300
REFERENCE_ROWS = 20_000
SHAPES = ((1, 30), (32, 30), (1, 150_528))
WHYLOGS = ("whylogs>=1.6", "numpy<2", "pandas", "setuptools")
"""It can't be installed with numpy 2, so it gets a virtual environment of its own."""

Figures = dict[str, float | None]


def run(effort: Effort) -> Result:
    """Measure everything on one core; peers in turn, round by round."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((ROWS, COLUMNS), np.float32)
    log = logging.getLogger("driftline.monitor")
    log.disabled = True
    try:
        with on_core(SERVER_CORE):
            counters = rate_functions(rows)
            rounds = [{name: count() for name, count in counters.items()} for _ in range(effort.rounds)]
            rates = {name: Sample.of([figures[name] for figures in rounds]) for name in counters}
            narrow, wide = monitor_of(COLUMNS), monitor_of(WIDE)
            figures: Figures = {"whylogs": whylogs_rate()}
            costs = {"one row, us": row_cost(narrow, 0), "one row, looks included, us": row_cost(narrow, 100)}
            for columns, monitor in ((COLUMNS, narrow), (WIDE, wide)):
                costs[f"report on {columns} columns, ms"] = fastest(monitor.report, 3) * 1e3
                costs[f"look at {columns} columns, us a column"] = look_cost(monitor) / columns * 1e6
            read = reading(effort)
            costs[f"one row of {WIDE} columns, us"] = row_cost(wide, 0)
            costs[f"state of {COLUMNS} columns, KB"] = own_bytes(narrow) / 1e3
    finally:
        log.disabled = False
    return report(rates, figures, costs, read)


# -- counting -------------------------------------------------------------------------------------


def rate_of(count: Callable[[], object], values: int) -> float:
    """Return the values/s of one call, after another that warms up."""
    count()
    begin = perf_counter()
    count()
    return values / (perf_counter() - begin)


def rate_functions(rows: Matrix) -> dict[str, Callable[[], float]]:
    """Return functions by name that measure values/s of counting `rows`, or a part where that takes long."""
    profile = Profile.fit({"input": rows[:REFERENCE_ROWS]})
    edges = np.array(
        [column.edges[: BINS - 1] for column in profile.references if isinstance(column, Numeric)]
    )
    prepared, counts = bins.prepare(edges), np.zeros((COLUMNS, edges.shape[1] + 4), np.int64)
    monitor = Monitor(profile, look_rows=0)
    columns = [np.ascontiguousarray(column) for column in rows.T]

    def with_numpy() -> None:
        for column, column_edges in zip(columns, edges, strict=True):
            np.bincount(np.searchsorted(column_edges, column, side="right"), minlength=BINS)

    def with_kll() -> None:
        for column in columns:
            kll_floats_sketch(200).update(column)

    return {
        "driftline, bins": lambda: rate_of(lambda: bins.count(rows, prepared, counts), rows.size),
        "driftline, all that a monitor keeps": lambda: rate_of(
            lambda: monitor.observe({"input": rows}), rows.size
        ),
        "datasketches KLL": lambda: rate_of(with_kll, rows.size),
        "numpy searchsorted, bincount": lambda: rate_of(with_numpy, rows.size),
        "scipy ks_2samp": lambda: rate_of(lambda: ks_2samp(columns[0], columns[1], method="asymp"), ROWS),
    }


_WHYLOGS = f"""
import numpy as np, pandas as pd, time, whylogs
rows = np.random.default_rng(0).standard_normal(({ROWS} // 5, {COLUMNS}), np.float32)
frame = pd.DataFrame(rows, columns=[str(index) for index in range({COLUMNS})])
whylogs.log(frame[:100])
begin = time.perf_counter()
whylogs.log(frame)
print(rows.size / (time.perf_counter() - begin))
"""


def whylogs_rate() -> float | None:
    """Return the values/s of whylogs; None if it can't be installed."""
    folder = HERE / "cache" / "whylogs"
    python = folder / "bin" / "python"
    try:
        if not (folder / ".installed").exists():
            uv("venv", "--clear", folder)
            uv("pip", "install", "--python", python, *WHYLOGS)
            (folder / ".installed").touch()
        completed = subprocess.run(
            pinned(SERVER_CORE, python, "-c", _WHYLOGS), capture_output=True, text=True, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return float(completed.stdout.split()[-1])


def uv(*arguments: str | Path) -> None:
    """Run uv, which is installed beside this Python, quietly."""
    command = [str(Path(sys.executable).with_name("uv")), *map(str, arguments), "--quiet"]
    subprocess.run(command, capture_output=True, check=True, timeout=300)


# -- one call -------------------------------------------------------------------------------------


def fastest(call: Callable[[], object], number: int) -> float:
    """Return the seconds of one call: the fastest of many repetitions, which nothing disturbed."""
    return min(repeat(call, number=number, repeat=50)) / number


def monitor_of(columns: int) -> Monitor:
    """Return a monitor that has observed some rows."""
    random = np.random.default_rng(0)
    profile = Profile.fit({"input": random.standard_normal((REFERENCE_ROWS, columns), np.float32)})
    monitor = Monitor(profile)
    monitor.observe({"input": random.standard_normal((1_050, columns), np.float32)})
    return monitor


def row_cost(monitor: Monitor, look_rows: int) -> float:
    """Return the microseconds of observing a batch of one row; each is a different row of 1,000."""
    columns = len(monitor.profile.references)
    counting = Monitor(monitor.profile, look_rows=look_rows)
    random = np.random.default_rng(1)
    batches = [{"input": random.standard_normal((1, columns), np.float32)} for _ in range(1_000)]
    counting.observe(batches[0])

    def observe() -> None:
        for batch in batches:
            counting.observe(batch)

    return fastest(observe, 1) / len(batches) * 1e6


def look_cost(monitor: Monitor) -> float:
    """Return the seconds of a look at 100 rows of each column, distributed like the reference."""
    detectors = monitor._detectors
    assert detectors is not None
    random = np.random.default_rng(2)
    counts = np.concatenate(
        [random.multinomial(100, column.counts / column.rows) for column in monitor._counter.references]
    )
    look = Look(counts, moments.start(len(monitor._counter.numeric)), 0, 0.0)
    return fastest(lambda: detectors.look(look, 100), 5)


def arrays(thing: object, seen: set[int]) -> Iterator[np.ndarray]:
    """Yield all arrays reachable from an object; for a view, the owner of its memory."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        if isinstance(thing.base, np.ndarray):
            yield from arrays(thing.base, seen)
        else:
            yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from arrays(value, seen)
    elif isinstance(thing, list | tuple | set) or type(thing).__name__ == "deque":
        for value in thing:  # type: ignore[attr-defined]
            yield from arrays(value, seen)
    elif is_dataclass(thing):
        for name in type(thing).__dataclass_fields__:
            yield from arrays(getattr(thing, name), seen)
    elif type(thing).__module__.startswith("driftline"):
        for value in vars(thing).values():
            yield from arrays(value, seen)


def own_bytes(monitor: Monitor) -> int:
    """Return the bytes of all arrays of a monitor that are not its profile's."""
    seen: set[int] = set()
    list(arrays(monitor.profile, seen))
    return sum(array.nbytes for array in arrays(monitor, seen))


# -- numbers in JSON --------------------------------------------------------------------------------


def reading(effort: Effort) -> dict[str, Sample]:
    """Return how many times faster the kernel reads JSON, of an array and of a whole request."""
    numbers.load()
    random = np.random.default_rng(3)
    ratios = {}
    for shape in SHAPES:
        data = random.standard_normal(shape).ravel().tolist()
        spec = TensorSpec("x", DATATYPES["FP32"], (-1, shape[1]))
        codec = V2Codec(Signature((spec,), (spec,), True), "m", 1)
        text = orjson.dumps(data)
        body = orjson.dumps({"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": data}]})
        array, layout = numbers.Numbers(text, 0, len(text)), numbers.Layout.of(spec, shape)
        read, read_numpy = partial(numbers.read, array, layout), partial(read_with_numpy, text)
        with_kernel, without = partial(codec.decode, body), partial(without_kernel, codec, body)
        calls = max(1, 3_000 // len(data))
        for name, slow, fast in (("array", read_numpy, read), ("request", without, with_kernel)):
            rounds = [fastest(slow, calls) / fastest(fast, calls) for _ in range(effort.rounds)]
            ratios[f"{name} of {shape[0]} x {shape[1]:,}"] = Sample.of(rounds)
    return ratios


def read_with_numpy(text: bytes) -> Matrix:
    """Read an array without the kernel."""
    return np.array(orjson.loads(text), np.float32)


def without_kernel(codec: V2Codec, body: bytes) -> object:
    """Decode a request as before the kernel is loaded."""
    kernel, numbers._kernel = numbers._kernel, None
    try:
        return codec.decode(body)
    finally:
        numbers._kernel = kernel


# -- results --------------------------------------------------------------------------------------


def report(
    rates: dict[str, Sample], peers: Figures, costs: dict[str, float], read: dict[str, Sample]
) -> Result:
    """Return the figures beside the targets."""
    binning = rates["driftline, bins"]
    whylogs = peers["whylogs"]
    table = [[f"{name}, million values/s", f"{rate.median / 1e6:,.1f}"] for name, rate in rates.items()]
    table += [["whylogs, million values/s", "not installed" if whylogs is None else f"{whylogs / 1e6:.2f}"]]
    table += [[name, f"{cost:,.2f}"] for name, cost in costs.items()]
    table += [[f"JSON {name}, of orjson + numpy", f"{ratio.median:.1f}"] for name, ratio in read.items()]
    targets = [
        Target("binning, million values/s", binning.median / 1e6, "at least", 250),
        Target("binning, of datasketches KLL", (binning / rates["datasketches KLL"]).median, "at least", 8),
        Target(f"a batch of 1 x {COLUMNS} observed, us", costs["one row, us"], "at most", 2),
        Target(f"report on {COLUMNS} columns, ms", costs[f"report on {COLUMNS} columns, ms"], "at most", 5),
        Target(
            f"report on {WIDE} columns, of {WIDE // COLUMNS} times that on {COLUMNS}",
            costs[f"report on {WIDE} columns, ms"]
            / costs[f"report on {COLUMNS} columns, ms"]
            / (WIDE / COLUMNS),
            "at most",
            1.25,
        ),
        Target(f"state of {COLUMNS} columns, KB", costs[f"state of {COLUMNS} columns, KB"], "at most", 100),
    ]
    for name, ratio in read.items():
        if name.startswith("request"):
            limit = 5 if name.endswith(f"{SHAPES[-1][1]:,}") else 1
            targets.append(Target(f"JSON {name}, of orjson + numpy", ratio.median, "at least", limit))
    if whylogs is not None:
        targets.insert(2, Target("binning, of whylogs", binning.median / whylogs, "at least", 100))
    return Result(
        "counting and looking, one core",
        Table(["what", "measured"], table),
        targets,
        [
            f"{ROWS:,} x {COLUMNS} float32 in {BINS} bins; KLL sketches of k = 200; ks_2samp of one column "
            "with another.",
            "A call's cost is the least of 50 repetitions. A row's is without looks, unless it says so: one "
            "comes after 100 rows.",
        ]
        + ([] if whylogs is not None else ["whylogs could not be installed (uv and an index are needed)."]),
        {"rates": rates, "peers": peers, "costs": costs, "read": read},
    )
