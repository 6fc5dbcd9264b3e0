"""The public class: steps, fitted once, applied to raw columns wherever a model needs features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from driftline.columns import as_table
from driftline.errors import BadRequest, listed, shown
from driftline.features import spec, storage
from driftline.features.compiling import add
from driftline.features.fitting import Fitting, missing_last, target_of
from driftline.features.program import Builder, State
from driftline.features.raw import Input, by_name, kind_of, make_readable
from driftline.features.sources import Reader
from driftline.features.wiring import inputs_of
from driftline.tensors import Array, shorten
from driftline_kernels import transforms as kernel

PART_ROWS = 8192
"""Rows of an Arrow table that are read at a time; this limits the memory that conversions take."""


class Transform:
    """Makes a matrix of features from raw columns.

        transform = dl.Transform([dl.Impute(["temp", "wind"], "median"), dl.Standardise(["temp", "wind"]),
                                  dl.OneHot("carrier", min_frequency=100)]).fit(columns)
        matrix = transform.apply(columns)

    `columns` is a pyarrow Table or RecordBatch, a DataFrame of pandas or Polars, or arrays by name. Raises
    BadRequest for steps that don't fit together: one reads a column made later, or two make the same column.
    """

    def __init__(self, steps: Iterable[spec.Step]) -> None:
        self.steps: tuple[spec.Step, ...] = tuple(
            single_step for step in _to_list(steps) for single_step in step.each()
        )
        self._raw = inputs_of(self.steps)
        self._states: list[State] | None = None
        self._checks: dict[int, str] = {}
        self._outputs: tuple[str, ...] = ()
        self._program: Any = None
        self._reader = Reader(())

    # -- what it is ---------------------------------------------------------------------------------

    @property
    def fitted(self) -> bool:
        """Whether it is fitted and can be applied."""
        return self._states is not None

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The raw columns, in the order in which steps name them; a kind not known before fit is 'string'."""
        return (
            self._reader.inputs if self.fitted else tuple(_with_kind(field, "string") for field in self._raw)
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the matrix's columns; before fit, BadRequest if they depend on data."""
        if self.fitted:
            return self._outputs
        builder = Builder(self.inputs)
        for index, step in enumerate(self.steps):
            self._add(index, step, _state_without_data(step), builder)
        return builder.finish()[1]

    @property
    def width(self) -> int:
        """The number of columns of the matrix."""
        return len(self.outputs)

    @property
    def program(self) -> kernel.Program:
        """The compiled program of a fitted transform."""
        program: kernel.Program = self._program
        return program

    @property
    def numbers(self) -> dict[int, str]:
        """The names of the raw columns that are numbers, by their indices in `inputs`."""
        return {index: field.name for index, field in enumerate(self.inputs) if field.kind == "number"}

    @property
    def checked(self) -> tuple[str, ...]:
        """The columns in which an unknown category is an error."""
        return tuple(dict.fromkeys(self._checks.values()))

    @property
    def errors(self) -> Counter[str]:
        """How many values were taken as missing because they could not be read, by column."""
        return self._reader.errors

    def __repr__(self) -> str:
        columns = f"{len(self._raw)} columns to {self.width}" if self.fitted else "not fitted"
        return f"Transform({len(self.steps)} steps, {columns})"

    # -- fit and apply ------------------------------------------------------------------------------

    def fit(self, columns: Any, target: Any = None) -> Self:
        """Fit the steps to data; `target` is (rows,) numbers or two classes, if a step needs it."""
        table = by_name(columns)
        inputs = tuple(_with_kind(field, _kind_in(table, field.name)) for field in self._raw)
        self._set_fitted(inputs, self._fit(inputs, table, target))
        return self

    def fit_apply(self, columns: Any, target: Any = None) -> Array:
        """Fit, and return the matrix to train a model on.

        It is the matrix of `apply`, except that each row's TargetMean comes from other rows' targets:
        otherwise a model would learn to trust it too much.
        """
        columns = as_table(columns)
        self.fit(columns, target)
        matrix = self.apply(columns)
        target_means = [step for step in self.steps if isinstance(step, spec.TargetMean)]
        if target_means and self._states is not None:
            table = {field.name: _with_take(_column(by_name(columns), field.name)) for field in self.inputs}
            fold_of = (
                np.random.default_rng(target_means[0].seed).permutation(len(matrix)) % target_means[0].folds
            )
            for index in range(target_means[0].folds):
                held_out, rest = np.flatnonzero(fold_of == index), np.flatnonzero(fold_of != index)
                states = self._fit(self.inputs, _rows_of(table, rest), np.asarray(target).ravel()[rest])
                transform = Transform(self.steps)
                transform._set_fitted(
                    self.inputs,
                    [
                        fold_state if isinstance(step, spec.TargetMean) else state
                        for step, state, fold_state in zip(self.steps, self._states, states, strict=True)
                    ],
                )
                matrix[held_out] = transform.apply(_rows_of(table, held_out))
        return matrix

    def apply(self, columns: Any, out: Array | None = None) -> Array:
        """Return the features, (rows, width) float32, C-contiguous, written into `out` if it is given.

        Raises BadRequest with the column, the row and the value, for a value that can't be read and for an
        unknown category if the step makes it an error.
        """
        if self._program is None:
            raise BadRequest("expected a transform that is fitted; call fit first")
        columns = as_table(columns)
        if hasattr(columns, "to_batches") or getattr(columns, "num_rows", 0) > PART_ROWS:
            return self._apply_parts(columns, out)
        return self._apply(columns, out, 0)

    def read(self, columns: Any, program: kernel.Program, registers: Array) -> None:
        """Read columns into the registers of `program`: the part of `apply` that needs this process's memory.

        program    this transform's own, or the one that `reads_first` made from it
        registers  (registers, at least as many as the columns have rows) float64, written

        Raises BadRequest as `apply` does, and for more rows than the registers hold.
        """
        sources = self._reader.acquire(columns)
        try:
            if sources.rows > registers.shape[1]:
                raise BadRequest(f"expected {registers.shape[1]} rows at most, got {sources.rows}")
            kernel.read(sources.table, program, registers, sources.rows)
        finally:
            self._reader.release(sources)

    def _apply(self, columns: Any, out: Array | None, first: int) -> Array:
        """Return the features of columns that start at row `first` of the caller's data."""
        sources = self._reader.acquire(columns, first)
        try:
            shape = (sources.rows, len(self._outputs))
            if out is None:
                out = np.empty(shape, np.float32)
            elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
                raise BadRequest(f"out: expected float32 {list(shape)}, got {out.dtype} {list(out.shape)}")
            failed = kernel.apply(sources.table, self._program, out)
        finally:
            self._reader.release(sources)
        if failed >= 0:
            raise self._unknown(columns, first, *divmod(failed, len(self._program.code)))
        return out

    def _apply_parts(self, columns: Any, out: Array | None) -> Array:
        """Apply to a table or a long batch in parts, without joining its chunks."""
        if out is None:
            out = np.empty((columns.num_rows, len(self._outputs)), np.float32)
        elif out.shape != (columns.num_rows, len(self._outputs)):
            raise BadRequest(f"out: expected {columns.num_rows} rows, got shape {list(out.shape)}")
        chunks = columns.to_batches() if hasattr(columns, "to_batches") else [columns]
        first = 0
        for chunk in chunks:
            for start in range(0, len(chunk), PART_ROWS):
                part = chunk.slice(start, PART_ROWS)
                self._apply(part, out[first : first + len(part)], first)
                first += len(part)
        return out

    # -- files --------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the fitted transform as JSON that reads well in a diff."""
        storage.save(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Transform:
        """Read a file that `save` wrote; BadRequest names the file and the place of an error in it."""
        return storage.load(Path(path), cls.from_dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the document that `save` writes."""
        if self._states is None:
            raise BadRequest("expected a transform that is fitted; call fit first")
        return storage.to_dict(self.inputs, self.steps, self._states)

    @classmethod
    def from_dict(cls, document: Any) -> Transform:
        """Return the transform of a document that `to_dict` returned."""
        inputs, steps, states = storage.from_dict(document)
        return cls.of(steps, states, inputs)

    @classmethod
    def of(cls, steps: Sequence[spec.Step], states: list[State], inputs: Sequence[Input]) -> Transform:
        """Return a transform with states that were fitted elsewhere; each step has one column."""
        transform = cls(steps)
        expected, actual = [field.name for field in transform._raw], [field.name for field in inputs]
        if expected != actual:
            raise BadRequest(f"inputs: expected {shorten(expected, 200)}, got {shorten(actual, 200)}")
        transform._set_fitted(tuple(inputs), states)
        return transform

    # -- scikit-learn -------------------------------------------------------------------------------

    @classmethod
    def from_sklearn(cls, fitted: Any) -> Transform:
        """Import a fitted ColumnTransformer, Pipeline or transformer of scikit-learn, with the same outputs.

        It may consist of SimpleImputer, MissingIndicator, StandardScaler, MinMaxScaler, MaxAbsScaler,
        RobustScaler, Normalizer (l1, l2), PowerTransformer, QuantileTransformer, KBinsDiscretizer, Binarizer,
        PolynomialFeatures, SplineTransformer, PCA, IncrementalPCA, TruncatedSVD, OneHotEncoder,
        OrdinalEncoder, TargetEncoder, FunctionTransformer of log1p, log, log2, log10, sqrt and square,
        feature selectors, FeatureUnion and ColumnTransformer, also with weights, and Pipeline.

        Fit it on float64. On float32, scikit-learn computes in float32, and values at a category, an edge of
        a bin or a threshold may fall on its other side here.

        Raises BadRequest with the name of a transformer that can't be expressed.
        """
        from driftline.features.sklearn import import_fitted, width_of

        importer = import_fitted(fitted)
        transform = cls.of(importer.steps, importer.states, importer.inputs)
        width = width_of(fitted, importer)
        if width not in (None, transform.width):
            kind = type(fitted).__name__
            raise BadRequest(f"{kind}: expected its {width} columns, got {transform.width}")
        return transform

    def to_sklearn(self) -> Any:
        """Return an estimator with these steps for a Pipeline of scikit-learn; it can be cloned."""
        from driftline.features.estimator import TransformEstimator

        return TransformEstimator(self.steps)

    # -- inside -------------------------------------------------------------------------------------

    def _fit(self, inputs: tuple[Input, ...], table: Any, target: Any) -> list[State]:
        reader = Reader(inputs)
        with reader.open(table) as sources:
            texts = {
                index: make_readable(field, _column(table, field.name), reader.errors)
                for index, field in enumerate(inputs)
                if field.kind == "string"
            }
            builder = Builder(inputs)
            fitting = Fitting(builder, sources, texts, target_of(target, sources.rows))
            states = []
            for index, step in enumerate(self.steps):
                try:
                    states.append(fitting.fit(step))
                except BadRequest as error:
                    raise BadRequest(f"{_where(index, step)}: {error}") from None
                self._add(index, step, states[-1], builder)
        return states

    def _set_fitted(self, inputs: tuple[Input, ...], states: list[State]) -> None:
        builder = Builder(inputs)
        for index, (step, state) in enumerate(zip(self.steps, states, strict=True)):
            self._add(index, step, state, builder)
        self._program, self._outputs = builder.finish()
        self._checks, self._states, self._reader = builder.checks, states, Reader(inputs)

    def _add(self, index: int, step: spec.Step, state: State, builder: Builder) -> None:
        try:
            add(step, state, builder)
        except BadRequest as error:
            raise BadRequest(f"{_where(index, step)}: {error}") from None

    def _unknown(self, columns: Any, first: int, row: int, instruction: int) -> BadRequest:
        column = self._checks[instruction]
        table = by_name(columns)
        actual = shown(_item(table[column], row)) if column in table else "another"
        where = f"column {column!r}, row {first + row}"
        return BadRequest(f"{where}: expected a category that was fitted, got {actual}")


def _to_list(steps: Iterable[spec.Step]) -> list[spec.Step]:
    """Return steps as a list; BadRequest for anything else, including a single step."""
    result = list(steps) if isinstance(steps, Iterable) else [None]
    if not all(isinstance(step, spec.Step) for step in result):
        expected = "a list of steps such as dl.OneHot('carrier')"
        raise BadRequest(f"steps: expected {expected}, got {shorten(steps)}")
    return result


def _where(index: int, step: spec.Step) -> str:
    return f"steps[{index}]: {step.name} of {', '.join(map(repr, step.reads))}"


def _with_kind(field: Input, kind: str) -> Input:
    return field if field.kind else Input(field.name, kind, field.on_error)


def _column(table: Any, name: str) -> Any:
    if name not in table:
        raise BadRequest(f"column {name!r}: expected it to fit, got nothing; there are: {listed(table)}")
    return table[name]


def _kind_in(table: Any, name: str) -> str:
    return kind_of(name, _column(table, name))


def _item(column: Any, row: int) -> Any:
    value = column.iloc[row] if hasattr(column, "iloc") else column[row]
    if isinstance(value, np.generic):
        return value.item()
    return value.as_py() if hasattr(value, "as_py") else value


def _with_take(column: Any) -> Any:
    """Return a column that has Arrow's `take`: string views, as of Polars, have none."""
    return column.cast("large_string") if str(getattr(column, "type", "")) == "string_view" else column


def _rows_of(table: dict[str, Any], rows: Array) -> dict[str, Any]:
    """Return some rows of columns."""
    selected = {}
    for name, column in table.items():
        if hasattr(column, "iloc"):
            selected[name] = column.iloc[rows]
        elif hasattr(column, "take"):
            selected[name] = column.take(rows)
        else:
            selected[name] = [column[row] for row in rows.tolist()]
    return selected


def _state_without_data(step: spec.Step) -> State:
    """Return a state whose outputs have the right names, whatever their values."""
    if isinstance(step, spec.OneHot):
        if step.categories is None or step.min_frequency is not None or step.max_categories is not None:
            raise BadRequest(f"one_hot of {step.reads[0]!r}: its outputs depend on data; call fit first")
        return {"categories": missing_last(step.categories)}
    if isinstance(step, spec.Encoding):
        return {"categories": []}
    value = step.value if isinstance(step, spec.Impute) and step.using == "constant" else 0.0
    numbers = dict.fromkeys(("mean", "least", "median", "overall"), 0.0)
    ones = dict.fromkeys(("deviation", "most", "range"), 1.0)
    lists: State = {"edges": [], "categories": [], "shares": [], "means": []}
    return {"value": value, **numbers, **ones, "quantiles": [0.0, 1.0], **lists}
