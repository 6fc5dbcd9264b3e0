"""The instructions that each step adds to a program."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from driftline.errors import BadRequest
from driftline.features import spec
from driftline.features.program import Builder, Number, OneHot, Pair, State, Text
from driftline_kernels import transforms as kernel

_BOUNDS = {
    "month": 13,
    "day": 32,
    "hour": 24,
    "minute": 60,
    "second": 60,
    "weekday": 7,
    "yearday": 367,
    "quarter": 5,
}
"""For each part of times that has few values: one more than the greatest."""


@singledispatch
def add(step: spec.Step, state: State, builder: Builder) -> None:
    """Add a step, with its fitted state, to a program.

    Raises BadRequest if the step does not accept the kind of its column.
    """
    raise NotImplementedError(step.name)


@add.register
def _(step: spec.Read, state: State, builder: Builder) -> None:
    """Add nothing: the builder's inputs hold it already."""


@add.register
def _(step: spec.Pass, state: State, builder: Builder) -> None:
    builder.put(step.makes, builder[step.reads[0]])


@add.register
def _(step: spec.Drop, state: State, builder: Builder) -> None:
    builder.features.pop(step.reads[0], None)


@add.register
def _(step: spec.Impute, state: State, builder: Builder) -> None:
    column, value = step.reads[0], state["value"]
    if step.indicator:
        indicator = builder.missing(column)
    slot = builder[column]
    if isinstance(slot, Text) and isinstance(value, str):
        builder.put(step.makes, slot if slot.fill is not None else Text(slot.source, value))
    elif isinstance(value, str):
        raise BadRequest(f"value: expected a number for a column of numbers, got {value!r}")
    else:
        builder.change(step, kernel.FILL, value)
    if step.indicator:
        builder.put(f"{step.makes}_missing", Number(indicator))


@add.register
def _(step: spec.Missing, state: State, builder: Builder) -> None:
    builder.put(step.makes, Number(builder.missing(step.reads[0])))


@add.register
def _(step: spec.Standardise, state: State, builder: Builder) -> None:
    builder.change(
        step, kernel.CENTRE, state["mean"] if step.centre else 0, state["deviation"] if step.scale else 1
    )


@add.register
def _(step: spec.MinMax, state: State, builder: Builder) -> None:
    width = state["most"] - state["least"]
    scale = (step.high - step.low) / (width if width >= 10 * np.finfo(np.float64).eps else 1.0)
    builder.change(step, kernel.SCALE, scale, step.low - state["least"] * scale)
    if step.clip:
        register = builder.number(step.makes)
        builder.compute(kernel.CLIP, register, step.low, step.high, into=register)


@add.register
def _(step: spec.Robust, state: State, builder: Builder) -> None:
    builder.change(
        step, kernel.CENTRE, state["median"] if step.centre else 0, state["range"] if step.scale else 1
    )


@add.register
def _(step: spec.Clip, state: State, builder: Builder) -> None:
    low = -np.inf if step.low is None else step.low
    builder.change(step, kernel.CLIP, low, np.inf if step.high is None else step.high)


@add.register
def _(step: spec.Log1p, state: State, builder: Builder) -> None:
    builder.change(step, kernel.LOG1P)


@add.register
def _(step: spec.Power, state: State, builder: Builder) -> None:
    operation = {"plain": kernel.POWER, "box_cox": kernel.BOX_COX, "yeo_johnson": kernel.YEO_JOHNSON}
    builder.change(step, operation[step.form], step.exponent)


@add.register
def _(step: spec.Bucketise, state: State, builder: Builder) -> None:
    builder.change(step, kernel.BIN, *state["edges"])


@add.register
def _(step: spec.Quantile, state: State, builder: Builder) -> None:
    # As QuantileTransformer for normal output: how near to an end a value counts as the end.
    builder.change(step, kernel.SHARE, 1e-7 if step.normal else 0, *state["quantiles"])
    if step.normal:
        register = builder.number(step.makes)
        builder.compute(kernel.PROBIT, register, into=register)


@add.register
def _(step: spec.Arithmetic, state: State, builder: Builder) -> None:
    if isinstance(step.other, str):
        other = builder.number(step.other)
    else:
        other = builder.compute(kernel.CONSTANT, 0, step.other)
    operation = {"+": kernel.ADD, "-": kernel.SUBTRACT, "*": kernel.MULTIPLY, "/": kernel.DIVIDE}[
        step.operator
    ]
    builder.put(step.makes, Number(builder.compute(operation, builder.number(step.reads[0]), b=other)))


@add.register
def _(step: spec.Linear, state: State, builder: Builder) -> None:
    registers = [builder.number(column) for column in step.reads]
    total = builder.compute(kernel.SCALE, registers[0], step.weights[0], step.bias)
    for register, weight in zip(registers[1:], step.weights[1:], strict=True):
        builder.compute(kernel.ADD_SCALED, register, weight, b=total, into=total)
    builder.put(step.makes, Number(total))


@add.register
def _(step: spec.Piecewise, state: State, builder: Builder) -> None:
    numbers = itertools.chain(step.edges, *step.coefficients)
    builder.change(step, kernel.PIECEWISE, len(step.edges), step.period or 0, *numbers)


@add.register
def _(step: spec.Ordinal, state: State, builder: Builder) -> None:
    categories, infrequent = state["categories"], state.get("infrequent", [])
    codes = builder.codes(builder[step.reads[0]], categories)
    indices = _indices_of([category for category in categories if category is not None], infrequent)
    if None in categories:
        indices.append(_or_nan(step.missing_value))
    if step.unknown == "error":
        builder.check(codes, len(categories), step.reads[0])
    unknown = _or_nan(step.unknown_value)
    builder.put(step.makes, Number(builder.compute(kernel.TABLE, codes, *indices, unknown)))


@add.register
def _(step: spec.OneHot, state: State, builder: Builder) -> None:
    categories, infrequent = state["categories"], state.get("infrequent", [])
    codes = builder.codes(builder[step.reads[0]], categories)
    if step.unknown == "error":
        builder.check(codes, len(categories), step.reads[0])
    indices = _indices_of(categories, infrequent)
    labels = [label(category) for category in categories if category not in infrequent]
    unknown = -1
    if infrequent:
        unknown = len(labels) if step.unknown == "infrequent" else -1
        labels.append("infrequent")
    indices.append(unknown)
    if step.drop is not None and step.drop < len(labels):
        dropped = step.drop
        labels.pop(dropped)
        indices = [-1 if index == dropped else index - (index > dropped) for index in indices]
    builder.put(step.makes, OneHot(codes, tuple(map(int, indices)), tuple(labels)))


@add.register
def _(step: spec.Equals, state: State, builder: Builder) -> None:
    codes = builder.codes(builder[step.reads[0]], [step.value])  # 0, and 1 for all others
    builder.put(step.makes, Number(builder.compute(kernel.SCALE, codes, -1, 1)))


@add.register
def _(step: spec.Frequency, state: State, builder: Builder) -> None:
    codes = builder.codes(builder[step.reads[0]], state["categories"])
    builder.put(step.makes, Number(builder.compute(kernel.TABLE, codes, *state["shares"], 0.0)))


@add.register
def _(step: spec.TargetMean, state: State, builder: Builder) -> None:
    codes = builder.codes(builder[step.reads[0]], state["categories"])
    builder.put(step.makes, Number(builder.compute(kernel.TABLE, codes, *state["means"], state["overall"])))


@add.register
def _(step: spec.Hash, state: State, builder: Builder) -> None:
    hashes = builder.hashes(builder[step.reads[0]])
    builder.put(step.makes, Number(builder.compute(kernel.BUCKET, hashes, step.buckets)))


@add.register
def _(step: spec.Cross, state: State, builder: Builder) -> None:
    left, right = (builder[column] for column in step.reads)
    if not isinstance(left, (Number, Text)) or not isinstance(right, (Number, Text)):
        raise BadRequest(f"expected two columns of strings or numbers, got {list(step.reads)}")
    builder.put(step.makes, Pair(left, right))


@add.register
def _(step: spec.DatePart, state: State, builder: Builder) -> None:
    seconds = builder.time(step.reads[0])
    register = builder.compute(kernel.PART, seconds, spec.PARTS.index(step.part))
    if step.part in _BOUNDS:
        builder.bounds[register] = _BOUNDS[step.part]
    builder.put(step.makes, Number(register))


@add.register
def _(step: spec.Cyclic, state: State, builder: Builder) -> None:
    register = builder.number(step.reads[0])
    if register in builder.bounds:  # few values: a table is faster
        turns = 2 * np.pi * np.arange(builder.bounds[register]) / step.period
        sine = builder.compute(kernel.TABLE, register, *np.sin(turns))
        cosine = builder.compute(kernel.TABLE, register, *np.cos(turns))
    else:
        sine = builder.compute(kernel.SINE, register, step.period)
        cosine = builder.compute(kernel.COSINE, register, step.period)
    if step.into is None:
        builder.features.pop(step.reads[0], None)
    builder.put(f"{step.makes}_sin", Number(sine))
    builder.put(f"{step.makes}_cos", Number(cosine))


def label(category: Any) -> str:
    """Return the text of a category in its column's name."""
    if isinstance(category, (tuple, list)):
        return "_".join(map(label, category))
    return "missing" if category is None else str(category)


def _indices_of(categories: Sequence[Any], infrequent: Sequence[Any]) -> list[float]:
    """Return each category's index among the frequent ones; infrequent ones share the next index."""
    indices: list[float] = []
    next_index = 0
    for category in categories:
        is_rare = category in infrequent
        indices.append(len(categories) - len(infrequent) if is_rare else next_index)
        next_index += not is_rare
    return indices


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
