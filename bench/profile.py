"""`driftline profile` of a large Parquet file on one core: values/s, peak memory, rank error."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.common import MEASURED, SERVER_CORE, Effort, Sample, peak_megabytes, pinned
from bench.results import Result, Table, Target
from driftline.monitor.reference.column import Numeric
from driftline.monitor.reference.profile import Profile

COLUMNS = 30
TIMES = 5
"""This many times the rows that are scored: 10 million."""
PART_ROWS = 500_000
MIN_RATE = 5e6
MAX_MEGABYTES = 1000.0
MAX_ERROR = 0.0014
"""Twice the sketch's 0.07 %: once for each of the two ranks that are compared."""


def run(effort: Effort) -> Result:
    """Profile the same file, round by round, each in a new process."""
    rows = TIMES * effort.rows
    rates, peaks, errors = [], [], []
    with tempfile.TemporaryDirectory() as name:
        data, few, output = (Path(name) / file for file in ("rows.parquet", "few.parquet", "profile.arrow"))
        write(PART_ROWS // 100, few)
        write(rows, data)
        peak_megabytes(command(few, output))  # so that the kernels are compiled
        for _ in range(effort.rounds):
            begin = perf_counter()
            peaks.append(peak_megabytes(command(data, output)))
            rates.append(rows * COLUMNS / (perf_counter() - begin))
            errors.append(rank_error(output, data))
    return report(rows, Sample.of(rates), max(peaks), max(errors))


def write(rows: int, path: Path) -> None:
    """Write normal columns, with more rows than are in memory at once."""
    random = np.random.default_rng(0)
    schema = pa.schema([(f"input_{index}", pa.float32()) for index in range(COLUMNS)])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start in range(0, rows, PART_ROWS):
            shape = (COLUMNS, min(PART_ROWS, rows - start))
            part = random.standard_normal(shape, dtype=np.float32)
            writer.write_table(pa.table(list(part), schema), row_group_size=131_072)


def command(data: Path, output: Path) -> list[str]:
    """Return the command line of `driftline profile` on the server's core."""
    return pinned(SERVER_CORE, *MEASURED, "profile", data, "-o", output)


def rank_error(profile: Path, data: Path) -> float:
    """Return the largest error of a column's counts below its edges, as a share of the rows."""
    reference = Profile.load(profile)["input_0"]
    assert isinstance(reference, Numeric)
    values = np.sort(pq.read_table(data, columns=["input_0"]).column(0).to_numpy())
    below = np.searchsorted(values, reference.edges, side="left")
    return float(np.abs(np.cumsum(reference.counts)[: len(below)] - below).max() / len(values))


def report(rows: int, rate: Sample, peak: float, error: float) -> Result:
    """Return the figures beside the targets."""
    return Result(
        "profile of a Parquet file, one core",
        Table(
            ["rows x columns", "values/s", "peak MB", "rank error"],
            [[f"{rows:,} x {COLUMNS}", f"{rate:,.0f}", f"{peak:.0f}", f"{error:.3%}"]],
        ),
        [
            Target("values/s", rate.median, "at least", MIN_RATE),
            Target("peak memory, MB", peak, "at most", MAX_MEGABYTES),
            Target("error of ranks, share of the rows", error, "at most", MAX_ERROR),
        ],
        ["`driftline profile` from exec to exit, float32 columns; most of it is the KLL sketch."],
        {"rows": rows, "values_per_second": rate, "peak_megabytes": peak, "rank_error": error},
    )
