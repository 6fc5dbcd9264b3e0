"""Fit steps to data, as scikit-learn's estimators do; missing values are ignored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Any

import numpy as np

from driftline.errors import BadRequest
from driftline.features import spec
from driftline.features.program import Builder, Number, Pair, Slot, State, Text, words_of
from driftline.features.sources import Sources
from driftline.tensors import Array, shorten
from driftline_kernels import transforms as kernel


@dataclass(frozen=True, slots=True)
class Fitting:
    """Fits steps in order, each to the output of those before it.

    builder  the program so far
    sources  the raw columns
    texts    the raw columns of strings as Arrow arrays, by index
    target   (rows,) float64, or None
    """

    builder: Builder
    sources: Sources
    texts: dict[int, Any]
    target: Array | None

    def values(self, column: str) -> Array:
        """Return a column, (rows,) float64, NaN for missing; BadRequest if all are, or one is infinite."""
        values = self.finite(self.builder.number(column))
        if np.isnan(values).all():
            raise BadRequest(f"expected numbers to fit, got {len(values)} missing ones")
        return values

    def finite(self, register: int) -> Array:
        """Return the values of a register; BadRequest if any is infinite."""
        values = self.register(register)
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise BadRequest(f"row {infinite[0]}: expected finite numbers to fit, got {values[infinite[0]]}")
        return values

    def register(self, register: int) -> Array:
        """Return the values of a register; executes only the instructions that it depends on."""
        needed, code = {register}, []
        for index in range(len(self.builder.code) - 1, -1, -1):
            instruction = self.builder.code[index]
            if instruction[1] in needed and instruction[0] != kernel.CHECK:
                needed.discard(instruction[1])
                needed |= {instruction[2], instruction[3]} - {kernel.FAULTS}
                code.append(instruction)
        reads = [read for read in self.builder.reads if read[1] in needed]
        operands = {operand for instruction in code for operand in instruction[1:4]}
        used = sorted({*needed, register, *operands, kernel.FAULTS})
        index_of = {number: index for index, number in enumerate(used)}
        builder = Builder(self.builder.inputs, registers=len(used), parameters=self.builder.parameters)
        builder.tables = self.builder.tables
        builder.reads = [(read[0], index_of[read[1]], *read[2:]) for read in reads]
        builder.code = [
            (instruction[0], *(index_of[operand] for operand in instruction[1:4]), *instruction[4:])
            for instruction in reversed(code)
        ]
        registers = np.zeros((len(used), self.sources.rows))
        kernel.read(self.sources.table, builder.program(), registers)
        kernel.run(registers, builder.program(), np.empty((self.sources.rows, 0), np.float32))
        values: Array = registers[index_of[register]]
        return values

    def distinct(self, slot: Slot) -> tuple[list[Any], Array]:
        """Return a column's categories, sorted, missing last, and each row's index among them."""
        if isinstance(slot, Text):
            return self._distinct_text(slot)
        if isinstance(slot, Pair):
            left, a = self.distinct(slot.left)
            right, b = self.distinct(slot.right)
            keys, codes = np.unique(a * max(len(right), 1) + b, return_inverse=True)
            return [(left[key // len(right)], right[key % len(right)]) for key in keys.tolist()], codes
        if not isinstance(slot, Number):
            raise BadRequest(f"expected strings or numbers, got {words_of(slot)}")
        values, codes = np.unique(self.finite(slot.register), return_inverse=True)
        return [_category(value) for value in values.tolist()], codes

    def _distinct_text(self, slot: Text) -> tuple[list[Any], Array]:
        import pyarrow as pa

        array = self.texts[slot.source]
        if slot.fill is not None:
            array = array.fill_null(slot.fill)
        array = array.cast(pa.large_string()).dictionary_encode(null_encoding="encode")
        values = array.dictionary.to_pylist()
        order = sorted(range(len(values)), key=lambda index: (values[index] is None, values[index] or ""))
        code_of = np.empty(len(values), np.int64)
        code_of[order] = np.arange(len(values))
        codes = code_of[array.indices.to_numpy(zero_copy_only=False)]
        return [values[index] for index in order], codes

    @singledispatchmethod
    def fit(self, step: spec.Step) -> State:
        """Return the state that a step fits to the data; empty for most."""
        return {}

    @fit.register
    def _(self, step: spec.Impute) -> State:
        if step.using == "constant":
            return {"value": step.value}
        if step.using == "most_frequent":
            categories, codes = self.distinct(self.builder[step.reads[0]])
            counts = np.bincount(codes, minlength=len(categories))[: len(categories) - (None in categories)]
            if not len(counts):
                raise BadRequest(f"expected values to fit, got {len(codes)} missing ones")
            return {"value": categories[int(counts.argmax())]}
        values = self.values(step.reads[0])
        return {"value": float(np.nanmean(values) if step.using == "mean" else np.nanmedian(values))}

    @fit.register
    def _(self, step: spec.Standardise) -> State:
        values = self.values(step.reads[0])
        count, mean = np.count_nonzero(~np.isnan(values)), float(np.nanmean(values))
        variance, epsilon = float(np.nanvar(values)), np.finfo(np.float64).eps
        # As StandardScaler: a column whose variance is within rounding error is constant.
        constant = variance <= count * epsilon * variance + (count * mean * epsilon) ** 2
        return {"mean": mean, "deviation": 1.0 if constant else float(np.sqrt(variance))}

    @fit.register
    def _(self, step: spec.MinMax) -> State:
        values = self.values(step.reads[0])
        return {"least": float(np.nanmin(values)), "most": float(np.nanmax(values))}

    @fit.register
    def _(self, step: spec.Robust) -> State:
        values = self.values(step.reads[0])
        low, high = np.nanpercentile(values, [step.lower, step.upper])
        width = float(high - low)
        constant = width < 10 * np.finfo(np.float64).eps
        return {"median": float(np.nanmedian(values)), "range": 1.0 if constant else width}

    @fit.register
    def _(self, step: spec.Bucketise) -> State:
        if step.edges:
            return {"edges": list(step.edges)}
        values = self.values(step.reads[0])
        levels = np.linspace(0, 100, step.quantiles + 1)
        edges = np.nanpercentile(values, levels, method="averaged_inverted_cdf")
        edges = edges[np.ediff1d(edges, to_begin=np.inf) > 1e-8]  # as KBinsDiscretizer
        return {"edges": edges[1:-1].tolist()}

    @fit.register
    def _(self, step: spec.Quantile) -> State:
        values = self.values(step.reads[0])
        levels = 100 * np.linspace(0, 1, max(2, min(step.points, len(values))))
        # Rounding must not make them descend.
        return {"quantiles": np.maximum.accumulate(np.nanpercentile(values, levels)).tolist()}

    @fit.register
    def _(self, step: spec.Encoding) -> State:
        categories, codes = self.distinct(self.builder[step.reads[0]])
        counts = np.bincount(codes, minlength=len(categories))
        if step.categories is not None:
            seen = {
                _comparable(category): count
                for category, count in zip(categories, counts.tolist(), strict=True)
            }
            categories = missing_last(step.categories)
            counts = np.array([seen.get(_comparable(category), 0) for category in categories], np.int64)
        # OrdinalEncoder encodes missing values separately, however rare they are.
        has_missing = isinstance(step, spec.Ordinal) and None in categories
        rare = _is_infrequent(counts[: len(counts) - has_missing], len(codes), step)
        state: State = {"categories": categories}
        if rare.any():
            state["infrequent"] = [categories[index] for index in np.flatnonzero(rare)]
        return state

    @fit.register
    def _(self, step: spec.Frequency) -> State:
        categories, codes = self.distinct(self.builder[step.reads[0]])
        counts = np.bincount(codes, minlength=len(categories))
        return {"categories": categories, "shares": (counts / max(len(codes), 1)).tolist()}

    @fit.register
    def _(self, step: spec.TargetMean) -> State:
        if self.target is None:
            raise BadRequest("expected a target to fit, got none")
        categories, codes = self.distinct(self.builder[step.reads[0]])
        overall = float(self.target.mean())
        counts = np.bincount(codes, minlength=len(categories))
        sums = np.bincount(codes, self.target, len(categories))
        if step.smoothing is not None:
            means = (sums + step.smoothing * overall) / (counts + step.smoothing)
        else:
            means = _shrink(self.target, codes, sums / counts, counts, overall)
        return {"categories": categories, "means": means.tolist(), "overall": overall}


def missing_last(categories: Sequence[Any]) -> list[Any]:
    """Return categories in the order of their codes."""
    present = [category for category in categories if category is not None]
    return [*present, None] if len(present) < len(categories) else present


def target_of(target: Any, rows: int) -> Array | None:
    """Return a target as numbers: the two classes of a classifier become 0 and 1."""
    if target is None:
        return None
    array: Array = np.asarray(target).ravel()
    if array.dtype.kind not in "fiub":
        classes, array = np.unique(array, return_inverse=True)
        if len(classes) > 2:
            raise BadRequest(f"target: expected numbers or two classes, got {shorten(classes.tolist())}")
    array = array.astype(np.float64)
    if len(array) != rows or not np.isfinite(array).all():
        raise BadRequest(f"target: expected {rows} finite numbers, got {shorten(target)}")
    return array


def _shrink(target: Array, codes: Array, means: Array, counts: Array, overall: float) -> Array:
    """Shrink means towards the overall mean, by their categories' variance (empirical Bayes).

    Micci-Barreca: A preprocessing scheme for high-cardinality categorical attributes (2001), eq. 5 and 6.
    """
    squares = np.bincount(codes, (target - means[codes]) ** 2, len(counts))
    weight = target.var() * counts
    with np.errstate(invalid="ignore"):
        weight = weight / (weight + squares / counts)
    shrunk: Array = np.where(np.isnan(weight), overall, weight * means + (1 - weight) * overall)
    return shrunk


def _is_infrequent(counts: Array, rows: int, step: spec.Encoding) -> Array:
    """Return which categories are grouped as infrequent, as scikit-learn's encoders do."""
    rare = np.zeros(len(counts), bool)
    if isinstance(step.min_frequency, int):
        rare = counts < step.min_frequency
    elif step.min_frequency is not None:
        rare = counts < step.min_frequency * rows
    if step.max_categories is not None and step.max_categories < len(counts) - rare.sum() + 1:
        kept = step.max_categories - 1
        rare[np.argsort(counts, kind="mergesort")[: len(counts) - kept]] = True
    return rare


def _category(value: float) -> Any:
    """Return a number as written in files and names: 5, not 5.0."""
    if value != value:
        return None
    return int(value) if value.is_integer() else value


def _comparable(category: Any) -> Any:
    return float(category) if isinstance(category, (int, float)) else category
