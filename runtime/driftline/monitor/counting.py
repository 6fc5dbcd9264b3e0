"""Rows counted as they come: columns become a matrix of numbers and codes of categories, then counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from driftline.columns import Column, Columns, columns_of, float32, text_of, validity_of
from driftline.errors import BadRequest
from driftline.monitor.profile import Profile
from driftline.monitor.reference import Categorical, Numeric, Reference
from driftline.monitor.window import Window
from driftline.tensors import Array, shorten
from driftline_kernels import bins, categories, moments, rows, strings

BLOCK_ROWS = 8_192
"""Rows that are converted together: columns of any length take bounded memory."""

_FLOAT32 = np.dtype(np.float32)
_ALL_VALID = np.empty(0, np.uint8)


Codes = tuple[Array, ...]
"""(rows,) int32 for each categorical column: the place of each value among the categories."""


class Counter:
    """What was counted, in the bins of a profile."""

    def __init__(self, profile: Profile) -> None:
        self.numeric = [one for one in profile.references if isinstance(one, Numeric)]
        self.categorical = [one for one in profile.references if isinstance(one, Categorical)]
        self.references: list[Reference] = [*self.numeric, *self.categorical]
        self._names = tuple(reference.name for reference in self.numeric)
        self._stem = common_stem(self._names) if not self.categorical else ""
        self._width = len(self.numeric)
        self._tables = [_table(reference) for reference in self.categorical]
        edges = max((len(reference.edges) for reference in self.numeric), default=0)
        self._state = profile.whole.state(_padded([reference.edges for reference in self.numeric], edges))
        self._categories = [np.zeros(len(reference.counts), np.int64) for reference in self.categorical]
        self._places = _places([len(reference.edges) for reference in self.numeric], edges)

    # -- in -----------------------------------------------------------------------------------------

    def as_it_is(self, columns: object) -> Array | None:
        """The matrix that is the profile's columns without any conversion, if `columns` is one."""
        if type(columns) is dict and len(columns) == 1 and self._stem:
            matrix = columns.get(self._stem)
            if (
                type(matrix) is np.ndarray
                and matrix.dtype is _FLOAT32
                and matrix.ndim == 2
                and matrix.shape[1] == self._width
                and matrix.flags.c_contiguous
            ):
                return matrix
        return None

    def blocks(self, columns: object) -> Iterator[tuple[Array, Codes]]:
        """Columns of any form, block by block: the numeric ones as a matrix, codes of the categorical ones.

        Raises BadRequest, with the column's name, if one of the profile is missing or of another type.
        """
        named = columns_of(columns)
        for reference in self.references:
            if reference.name not in named:
                raise BadRequest(
                    f"column {reference.name!r}: expected as in the profile, came none; "
                    f"there are {shorten(', '.join(named))}"
                )
        length = len(next(iter(named.values()), ()))
        for start in range(0, length, BLOCK_ROWS):
            block = {name: column[start : start + BLOCK_ROWS] for name, column in named.items()}
            yield self._matrix(block, min(BLOCK_ROWS, length - start)), self._codes(block)

    def _matrix(self, block: Columns, length: int) -> Array:
        matrix = np.empty((length, self._width), np.float32)
        for index, name in enumerate(self._names):
            if not isinstance(block[name], np.ndarray):
                raise BadRequest(f"column {name!r}: expected numbers as in the profile, came strings")
            matrix[:, index] = float32(block[name])
        return matrix

    def _codes(self, block: Columns) -> Codes:
        return tuple(
            codes_of(reference, table, block[reference.name])
            for reference, table in zip(self.categorical, self._tables, strict=True)
        )

    def add(self, matrix: Array, codes: Codes) -> None:
        """Count rows; one thread at a time."""
        rows.observe(matrix, self._state)
        for own, counts in zip(codes, self._categories, strict=True):
            categories.count(own, counts)

    def warm_up(self) -> None:
        """Load what is compiled: count no rows."""
        self.add(np.empty((0, self._width), np.float32), self._codes(self._nothing()))

    def _nothing(self) -> Columns:
        return {
            reference.name: pa.array([], pa.string()) if reference.kind == "string" else np.empty(0, np.int64)
            for reference in self.categorical
        }

    # -- out ----------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Begin anew."""
        self._state.counts[:] = 0
        self._state.sums[:] = 0
        self._state.moments[:] = moments.start(self._width)
        for counts in self._categories:
            counts[:] = 0

    @property
    def counts(self) -> Array:
        """(natural bins,) int64, a copy: of the numeric columns, then of the categorical ones, one behind the
        other, each as long as its reference's counts."""
        return np.concatenate([self._state.counts.ravel()[self._places], *self._categories])

    def window(self, rows: int, began: datetime) -> Window:
        """A copy of all that was counted."""
        ends = np.cumsum([len(reference.counts) for reference in self.references])[:-1]
        names = [reference.name for reference in self.references]
        return Window(
            began,
            datetime.now(UTC),
            rows,
            dict(zip(names, np.split(self.counts, ends), strict=True)),
            dict(zip(self._names, self._state.moments.copy(), strict=True)),
            self._state.features.copy(),
            self._state.comoments.copy(),
        )


def common_stem(names: Sequence[str]) -> str:
    """The name of a matrix whose columns these are: 'x' of x_0, x_1, ...; '' if there is none."""
    stem = names[0].rpartition("_")[0] if names else ""
    return stem if list(names) == [f"{stem}_{index}" for index in range(len(names))] else ""


def _padded(edges: Sequence[Array], width: int) -> Array:
    """(columns, width) float32: each column's edges, then +inf."""
    padded = np.full((len(edges), width), np.inf, np.float32)
    for row, own in zip(padded, edges, strict=True):
        row[: len(own)] = own
    return padded


def _places(edges: Sequence[int], width: int) -> Array:
    """Where each column's own bins are among (columns, width + 4) counts: padded edges have none."""
    places = [
        column * (width + 4) + np.concatenate([np.arange(own + 1), width + 1 + np.arange(bins.SPECIAL)])
        for column, own in enumerate(edges)
    ]
    return np.concatenate(places) if places else np.empty(0, np.intp)


def _table(reference: Categorical) -> strings.Table | strings.IntegerTable:
    """The codes of a reference's categories."""
    if reference.kind == "string":
        return strings.build_table(*text_of(pa.array(reference.categories, pa.string())))
    numbers = [text == "True" if reference.kind == "boolean" else int(text) for text in reference.categories]
    return strings.build_integer_table(np.array(numbers, np.int64))


def codes_of(reference: Categorical, table: strings.Table | strings.IntegerTable, values: Column) -> Array:
    """(rows,) int32: the place of each value among the categories, the one behind them, or -1 for missing."""
    codes = np.empty(len(values), np.int32)
    if isinstance(table, strings.Table):
        if isinstance(values, np.ndarray):
            raise BadRequest(
                f"column {reference.name!r}: expected strings as in the profile, came {values.dtype} numbers"
            )
        strings.look_up(*text_of(values), *validity_of(values), table, reference.unseen, codes)
        return codes
    if not isinstance(values, np.ndarray):
        raise BadRequest(
            f"column {reference.name!r}: expected {reference.kind}s as in the profile, came strings"
        )
    whole = np.nan_to_num(values).astype(np.int64)
    strings.look_up_integers(whole, _ALL_VALID, 0, table, reference.unseen, codes)
    if values.dtype.kind == "f":
        codes[whole != values] = reference.unseen
        codes[np.isnan(values)] = strings.MISSING
    return codes
