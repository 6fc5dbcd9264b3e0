"""A transform of 20 raw columns beside scikit-learn's, its conversion to ONNX, and polars, on one core."""

from __future__ import annotations

import importlib.util
import tracemalloc
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa

import driftline as dl
from bench.common import SERVER_CORE, Effort, Sample, on_core
from bench.results import Result, Table, Target

ROWS = 100_000
CATEGORIES = 20
NUMBERS = [f"number_{index}" for index in range(12)]
STRINGS = [f"string_{index}" for index in range(6)]
TIMES = ["time_0", "time_1"]
MISSING = 0.05

Work = Callable[[], object]


def run(effort: Effort) -> Result:
    """Time one row and many with each of them in turn, round by round; all compute the same features."""
    from bench.peers import column_transformer, onnx, polars

    many = table(ROWS)
    single = many.slice(0, 1)
    single = pa.RecordBatch.from_pydict(single.to_pydict(), many.schema)
    ours, bare = driftline(many), driftline(many.select([*NUMBERS, *STRINGS]))
    fitted = column_transformer(many.to_pandas())
    session, feed = onnx(fitted, NUMBERS, STRINGS)
    peers: dict[str, Callable[[pa.RecordBatch], Work]] = {
        "driftline": lambda batch: arrow_work(ours, batch),
        "driftline, numpy columns": lambda batch: numpy_work(ours, batch),
        "driftline, without times": lambda batch: arrow_work(bare, batch.select([*NUMBERS, *STRINGS])),
        "driftline, numpy columns, without times": lambda batch: numpy_work(bare, batch),
        "ColumnTransformer, without times": lambda batch: frame_work(fitted, batch),
        "skl2onnx in ONNX Runtime, without times": lambda batch: onnx_work(session, feed(batch)),
    }
    if importlib.util.find_spec("polars"):
        peers["polars, without times"] = lambda batch: polars(fitted, batch, NUMBERS, STRINGS)
    check_same(ours, fitted, session, feed, many)
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in peers}
    with on_core(SERVER_CORE):
        work = {name: (peer(single), peer(many)) for name, peer in peers.items()}
        for _ in range(effort.rounds):
            for name, (small, large) in work.items():
                seconds[name][0].append(seconds_of(small, effort.seconds / 10))
                seconds[name][1].append(seconds_of(large, effort.seconds / 5))
    samples = {name: (Sample.of(small), Sample.of(large)) for name, (small, large) in seconds.items()}
    matrix = ROWS * ours.width * np.dtype(np.float32).itemsize
    memory = {
        "driftline": peak(arrow_work(ours, many)) / matrix,
        "driftline, numpy columns": peak(numpy_work(ours, many)) / matrix,
    }
    return report(samples, memory)


def table(rows: int) -> pa.RecordBatch:
    """Return a table of numbers, some of them missing, strings, and times."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for name in NUMBERS:
        values = random.standard_normal(rows, dtype=np.float32)
        columns[name] = np.where(random.random(rows) < MISSING, np.float32(np.nan), values)
    for name in STRINGS:
        categories = np.array([f"category {index}" for index in range(CATEGORIES)])
        columns[name] = pa.array(random.choice(categories, rows).tolist())
    for name in TIMES:
        columns[name] = pa.array(random.integers(0, 2 * 10**15, rows)).cast(pa.timestamp("us"))
    return pa.RecordBatch.from_pydict(columns)


def driftline(batch: pa.RecordBatch) -> dl.Transform:
    """Fit our transform: the two times become an hour and a weekday, cyclic."""
    times = [
        *(dl.DatePart("time_0", "hour"), dl.Cyclic("time_0_hour", 24)),
        *(dl.DatePart("time_1", "weekday"), dl.Cyclic("time_1_weekday", 7)),
    ]
    steps = [dl.Impute(NUMBERS), dl.Standardise(NUMBERS), dl.OneHot(STRINGS)]
    return dl.Transform([*steps, *(times if "time_0" in batch.schema.names else [])]).fit(batch)


def seconds_of(work: Work, budget: float) -> float:
    """Return the seconds of one call: the least average of three runs that share the budget."""
    work()
    begin = perf_counter()
    work()
    count = max(1, int(budget / 3 / max(perf_counter() - begin, 1e-6)))
    averages = []
    for _ in range(3):
        begin = perf_counter()
        for _ in range(count):
            work()
        averages.append((perf_counter() - begin) / count)
    return min(averages)


def arrow_work(transform: dl.Transform, batch: pa.RecordBatch) -> Work:
    """Return our work on a record batch."""
    return lambda: transform.apply(batch)


def numpy_work(transform: dl.Transform, batch: pa.RecordBatch) -> Work:
    """Return our work on arrays by name, as a request's in the server: strings are Python's."""
    columns = {
        name: np.array(column.to_pylist(), object)
        if name in STRINGS
        else column.to_numpy(zero_copy_only=False)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return lambda: transform.apply(columns)


def peak(work: Work) -> int:
    """Return the peak of allocated bytes: numpy's, Python's, and those of Arrow's pool."""
    work()
    default_pool = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(default_pool)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(default_pool)


def frame_work(fitted: Any, batch: pa.RecordBatch) -> Work:
    """Return scikit-learn's work on an existing DataFrame."""
    frame = batch.to_pandas()
    return lambda: fitted.transform(frame)


def onnx_work(session: ort.InferenceSession, tensors: dict[str, Any]) -> Work:
    """Return ONNX Runtime's work on existing tensors."""
    return lambda: session.run(None, tensors)


def check_same(ours: dl.Transform, fitted: Any, session: Any, feed: Any, batch: pa.RecordBatch) -> None:
    """Raise AssertionError unless all compute the same features."""
    few = batch.slice(0, 1000)
    width = len(NUMBERS) + CATEGORIES * len(STRINGS)
    matrix = ours.apply(few)[:, :width]
    np.testing.assert_allclose(matrix, fitted.transform(few.to_pandas()), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(matrix, session.run(None, feed(few))[0], rtol=1e-4, atol=1e-5)


def report(samples: dict[str, tuple[Sample, Sample]], memory: dict[str, float]) -> Result:
    """Return the figures beside the targets."""
    bare = samples["driftline, without times"]
    numpy, bare_numpy = (samples[f"driftline, numpy columns{end}"] for end in ("", ", without times"))
    onnx = samples["skl2onnx in ONNX Runtime, without times"]
    micro = {name: Sample.of([value * 1e6 for value in few.values]) for name, (few, _) in samples.items()}
    milli = {name: Sample.of([value * 1e3 for value in large.values]) for name, (_, large) in samples.items()}
    return Result(
        "raw columns to features, one core",
        Table(
            ["way", "one row, µs", f"{ROWS:,} rows, ms", "memory, of the matrix"],
            [
                [
                    name,
                    f"{micro[name]:.1f}",
                    f"{milli[name]:.1f}",
                    f"{memory[name]:.3f}" if name in memory else "",
                ]
                for name in samples
            ],
        ),
        targets(samples, memory["driftline"]),
        [
            "12 numbers imputed and standardised, 6 strings one-hot of 20 categories each, 2 times cyclic, "
            "from an Arrow record batch into a new matrix. The others do no times, and get what they like "
            "best: a DataFrame, tensors, a DataFrame of polars, made before the clock starts.",
            f"Without times, one row takes {(bare[0] / onnx[0]).median:.2f} of skl2onnx's time; as numpy "
            "columns, strings Python's, which is what the server hands over, "
            f"{(bare_numpy[0] / onnx[0]).median:.2f}, and with times {(numpy[0] / onnx[0]).median:.2f}.",
            "Memory is what numpy, Python and Arrow's pool have allocated at most; other ways' is not seen.",
        ],
        {
            "rows": ROWS,
            "one_row_microseconds": micro,
            "many_rows_milliseconds": milli,
            "memory_of_the_matrix": memory,
        },
    )


def targets(samples: dict[str, tuple[Sample, Sample]], memory: float) -> list[Target]:
    """Return the targets."""
    ours, numpy = samples["driftline"], samples["driftline, numpy columns, without times"]
    theirs = samples["ColumnTransformer, without times"]
    onnx = samples["skl2onnx in ONNX Runtime, without times"]
    slow, many = "times faster than ColumnTransformer", f"{ROWS:,} rows"
    return [
        Target("one row, of skl2onnx's time", (ours[0] / onnx[0]).median, "at most", 0.8),
        Target("the same of numpy columns, without times", (numpy[0] / onnx[0]).median, "at most", 0.8),
        Target(f"one row, {slow}", (theirs[0] / ours[0]).median, "at least", 200),
        Target(f"{many}, {slow}", (theirs[1] / ours[1]).median, "at least", 4),
        Target(f"{many}, times faster than skl2onnx", (onnx[1] / ours[1]).median, "at least", 1.7),
        Target(f"memory of {many}, of the matrix", memory, "at most", 1.1),
    ]
