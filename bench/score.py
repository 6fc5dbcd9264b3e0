"""Offline scoring of a Parquet file, compared with ONNX Runtime with the same rows already in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import models
from bench.common import MEASURED, Effort, Matrix, Sample, peak_megabytes
from bench.raw import Raw, powers_of_two
from bench.results import Result, Table, Target
from driftline.engine.bundle import Bundle
from driftline.engine.score import score
from driftline.machine import available_cores

SHARE_OF_RAW = 0.9
MAX_GROWTH = 1.10
NETWORK_SHARE = 20
"""The network takes this many times longer for a row, so its file is that much shorter."""
SCAN = powers_of_two(64, 32_768)
SCANNED_SHARE = 10
"""A tenth of the rows is enough to find the best batch size."""
CHECKED_ROWS = 1000


def run(effort: Effort) -> Result:
    """Measure both models in turn, then the memory for the larger file and for a quarter of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trees = Contest("XGBoost, 30 columns", models.xgboost(), models.rows(effort.rows, models.FEATURES))
        network_rows = models.rows(effort.rows // NETWORK_SHARE, models.MLP[0])
        network = Contest("MLP, one list column of 512", models.mlp(), network_rows)
        for contest in (trees, network):
            contest.run(folder, effort)
        sizes = (effort.rows // 4, effort.rows)
        peaks = {rows: score_peak(trees.model, trees.matrix[:rows], folder) for rows in sizes}
    return report([trees, network], peaks)


class Contest:
    """One model and its rows: the speed of ONNX Runtime on them, and of scoring their file."""

    def __init__(self, name: str, model: Path, matrix: Matrix) -> None:
        self.name = name
        self.model = model
        self.matrix = matrix
        self.raw_rates: list[float] = []
        self.rates: list[float] = []
        self.best = 0

    def run(self, folder: Path, effort: Effort) -> None:
        """Measure both in turn, round by round."""
        bundle = Bundle.open(self.model)
        raw = Raw(self.model, bundle.settings.engine.threads_on(available_cores()))
        scanned = self.matrix[: len(self.matrix) // SCANNED_SHARE]
        scan = raw.scan(scanned, [rows for rows in SCAN if rows <= len(scanned)])
        self.best = max(scan, key=lambda batch: scan[batch])
        data = write(self.matrix, folder / "rows.parquet")
        output = folder / "scores.parquet"
        score(bundle, data, output)
        self.check(raw, output)
        for _ in range(effort.rounds):
            self.raw_rates.append(raw.run_all(self.matrix, self.best))
            begin = perf_counter()
            score(bundle, data, output)
            self.rates.append(len(self.matrix) / (perf_counter() - begin))

    def check(self, raw: Raw, output: Path) -> None:
        """Raise RuntimeError if the file does not contain the model's outputs."""
        scored = pq.read_table(output)
        expected = np.column_stack(raw.predict(self.matrix[-CHECKED_ROWS:]))
        last = scored.slice(len(self.matrix) - CHECKED_ROWS)
        scores = np.column_stack([column.to_numpy() for column in last.columns])
        if len(scored) != len(self.matrix) or not np.allclose(scores, expected, atol=1e-5):
            raise RuntimeError(f"{self.name}: the scores are not the model's")


def write(matrix: Matrix, path: Path) -> Path:
    """Write rows as Parquet: up to 30 columns as such, more as one column of lists."""
    if matrix.shape[1] <= models.FEATURES:
        table = pa.table({f"input_{index}": column for index, column in enumerate(matrix.T)})
    else:
        table = pa.table({"input": pa.FixedSizeListArray.from_arrays(matrix.ravel(), matrix.shape[1])})
    pq.write_table(table, path, row_group_size=131_072)
    return path


def score_peak(model: Path, matrix: Matrix, folder: Path) -> float:
    """Return the peak memory of `driftline score` for these rows, in MB."""
    data = write(matrix, folder / "rows.parquet")
    return peak_megabytes([*MEASURED, *map(str, ("score", model, data, "-o", folder / "scores.parquet"))])


def report(contests: list[Contest], peaks: dict[int, float]) -> Result:
    """Return the medians and ratios of all rounds, and the memory."""
    rows, targets, figures = [], [], []
    for contest in contests:
        raw, rate = Sample.of(contest.raw_rates), Sample.of(contest.rates)
        share = rate / raw
        best, count = contest.best, len(contest.matrix)
        rows.append([contest.name, f"{count:,}", f"{raw:,.0f}", str(best), f"{rate:,.0f}", f"{share:.3f}"])
        targets.append(
            Target(f"{contest.name}: of ONNX Runtime's rows/s", share.median, "at least", SHARE_OF_RAW)
        )
        figures.append(
            {
                "model": contest.name,
                "rows": count,
                "raw_rows_per_second": raw,
                "raw_best_batch": best,
                "rows_per_second": rate,
                "share_of_raw": share,
            }
        )
    (few, low), (many, high) = peaks.items()
    targets.append(Target("peak memory at four times the rows", high / low, "at most", MAX_GROWTH))
    return Result(
        "offline scoring, all cores",
        Table(["data", "rows", "ONNX Runtime rows/s", "its batch", "score rows/s", "of ONNX Runtime"], rows),
        targets,
        [
            "ONNX Runtime has all cores for each batch, its best batch size, and its rows in memory; "
            "scoring reads and writes Parquet, and runs a batch on each core.",
            f"Peak memory of `driftline score`: {low:.0f} MB for {few:,} rows of the first, "
            f"{high:.0f} MB for {many:,}.",
        ],
        {"models": figures, "peak_megabytes_by_rows": peaks},
    )
