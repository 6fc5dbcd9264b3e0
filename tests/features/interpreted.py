"""Fits all steps and applies them to hard values, interpreted and then compiled; prints what differs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from driftline_kernels import compiling

compiling.interpret()

import driftline as dl  # noqa: E402  # what is imported above would be compiled

ROWS = 300
HARD = [np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e-300, 5e-324, 1e300, -1e16, 0.1, 2.0**53, -1.0000001]
PARTS = (*("year", "month", "day", "hour", "minute", "second"), *("weekday", "yearday", "quarter", "epoch"))
RANDOM = np.random.default_rng(7)


def strings(rows: int, values: list[str | None]) -> Any:
    column = np.array([values[index % len(values)] for index in range(rows)], object)
    return RANDOM.permutation(column)


TEXT = ["", "a", "ab", "abc", "AA", "Zürich Air", "über-vier", "x" * 16, "y" * 17, "z" * 40, "é" * 100, None]


def columns(rows: int, hard: bool) -> dict[str, Any]:
    """Columns of all kinds; with `hard`, values that few have thought of."""
    x, y = RANDOM.normal(3, 10, rows), RANDOM.normal(0, 1e-3, rows)
    if hard:
        x[: len(HARD)], y[-len(HARD) :] = HARD, HARD
    times = RANDOM.integers(-(10**11), 10**11, rows).astype("datetime64[s]")
    if hard:
        times[::7] = np.datetime64("NaT", "s")
    return {
        "x": x,
        "y": y,
        "small": np.clip(x, -1e38, 1e38).astype(np.float32),
        "when": times,
        "whole": RANDOM.integers(-5, 5, rows),
        "byte": RANDOM.integers(0, 200, rows).astype(np.uint8),
        "flag": RANDOM.integers(0, 2, rows).astype(bool),
        "text": strings(rows, [*TEXT, "unseen", "unseen by any"] if hard else TEXT),
        "city": strings(rows, ["Ulm", "Bern", None]),
    }


def steps() -> Iterator[Any]:
    yield dl.Impute("x", "median", into="filled", indicator=True)
    yield dl.Standardise("x", into="standard")
    yield dl.MinMax("x", into="between", clip=True)
    yield dl.Robust("y", into="robust")
    yield dl.Clip("y", low=-1e-3, high=2e-3, into="clipped")
    yield dl.Log1p("x", into="logarithm")
    yield from (
        dl.Power("x", exponent, into=f"power{index}") for index, exponent in enumerate((0.5, -1.5, 3))
    )
    yield dl.Bucketise("x", quantiles=7, into="bucket")
    yield dl.Quantile("x", 9, into="share_below")
    yield dl.Quantile("x", 9, normal=True, into="normal")
    yield dl.Power("x", -0.5, "yeo_johnson", into="yeo_johnson")
    yield dl.Power("x", 0.0, "box_cox", into="log")
    yield from (dl.Arithmetic("x", operator, "y", into=f"by{index}") for index, operator in enumerate("+-*/"))
    yield dl.Linear(["x", "y", "whole"], [0.3, -1e3, 0.7], 0.1, into="sum")
    pieces = [[1, 0, 0], [0.1, 0.2, -0.3], [3, 2, 1]]
    yield dl.Piecewise("x", [0, 2.5], pieces, into="pieces")
    yield dl.Piecewise("x", [0, 2.5], pieces, 2.4, into="round")
    yield from (dl.Equals(name, value, into=f"is_{name}") for name, value in (("text", "ab"), ("whole", 3)))
    yield dl.Ordinal("text", into="ordinal")
    yield dl.Ordinal("byte", into="byte_ordinal")
    yield dl.Frequency("text", into="share")
    yield dl.TargetMean("city", into="mean")
    yield dl.Hash("text", 97, into="hash")
    yield dl.Cross(["text", "city"], into="cross")
    yield dl.Hash("cross", 1009, into="hash_of_cross")
    yield dl.Frequency("cross", into="share_of_cross")
    yield from (dl.DatePart("when", part, into=part) for part in PARTS)
    yield dl.Cyclic("hour", 24)
    yield dl.Cyclic("x", 7.3, into="wave")
    yield dl.Cyclic("small", 1e-3, into="ripple")
    yield dl.Missing("small", into="gap")
    yield from (dl.Pass(name, into=f"as_{name}") for name in ("small", "whole", "byte", "flag"))
    yield dl.Drop("cross")
    yield dl.OneHot("city")


def main() -> None:
    easy = columns(ROWS, hard=False)
    target = RANDOM.normal(size=ROWS)
    transform = dl.Transform(steps()).fit(easy, target)
    data: list[Any] = [columns(ROWS, hard=True) for _ in range(3)]
    data += [{name: column[row : row + 1] for name, column in data[0].items()} for row in range(60)]
    if "--arrow" in sys.argv:
        import pyarrow as pa

        data = [pa.RecordBatch.from_pydict(batch).slice(1) for batch in data[:3]]
    assert compiling.interpreted()
    interpreted = [transform.apply(batch) for batch in data]
    compiling.load()
    compiled = [transform.apply(batch) for batch in data]
    again = dl.Transform(steps()).fit(easy, target)
    differ = {
        name
        for before, after in zip(interpreted, compiled, strict=True)
        for name, a, b in zip(
            transform.outputs, before.view(np.uint32).T, after.view(np.uint32).T, strict=True
        )
        if not np.array_equal(a, b)
    }
    same = again.to_dict() == transform.to_dict()
    sys.stdout.write(f"{len(transform.outputs)} {sorted(differ)} {same}\n")


main()
