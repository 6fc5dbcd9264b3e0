"""The reference profile: the data when the model was trained. Fitted once and kept beside the model."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from driftline.columns import as_table, columns_of, declared_of, names_of, temporal_of
from driftline.errors import BadRequest, listed
from driftline.monitor.reference.column import Categorical, Numeric, Reference, categorical, numeric
from driftline.monitor.reference.fitting import Fit
from driftline.monitor.reference.quantiles import Exact
from driftline.monitor.reference.summary import html, table
from driftline.monitor.reference.whole import Tables, Whole, scaling
from driftline.tensors import Signature
from driftline_kernels import moments

FEW_ROWS = 100
"""A reference of fewer rows is too weak for useful alarms."""

MAX_NAMED = 6
"""Columns that a profile's repr names, at most."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Profile:
    """A reference: `Profile.fit(columns)`, `profile.save(path)`, `Profile.load(path)`.

    references  one for each column, in order
    whole       of the numeric columns together
    """

    references: tuple[Reference, ...]
    whole: Whole
    _tables: list[Tables] = field(default_factory=list, init=False)

    @classmethod
    def fit(
        cls,
        columns: object,
        kinds: Mapping[str, str] | None = None,
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> Profile:
        """Fit a profile exactly, to data in memory.

        columns  a pyarrow Table, a DataFrame or arrays by name, as in `columns_of`
        kinds    'numeric' or 'categorical' by column name, to override the rule. By it, categorical are:
                 strings, booleans, categories of pandas or Arrow, and integers without nulls of at most 20
                 different values, except dates and times
        names    by the name of a two-dimensional array, the names of its columns in reports, instead of
                 NAME_0, NAME_1, ...: `fit({"input": frame.to_numpy()}, names={"input": frame.columns})`

        Warns below 100 rows. Raises BadRequest for columns with no rows, of unequal length, without a name,
        or of a type that is neither numbers nor strings, and if `names` are not as many as the columns, or
        not all different.
        """
        return cls._of(Fit(kinds, most_bytes=math.inf), [columns], names)

    @classmethod
    def fit_batches(
        cls,
        batches: Any,
        kinds: Mapping[str, str] | None = None,
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> Profile:
        """Fit a profile to batches, in memory that does not grow with them; see `fit`.

        Batches are tables, each in a form that `fit` takes, or a pyarrow Dataset or Scanner that reads them:
        `fit_batches(pyarrow.dataset.dataset("training/"))`.

        Up to 128 MiB, the profile is exact. Beyond that, quantiles come from KLL sketches: their ranks are
        off by at most 0.07 % of the rows, so the reference counts as no more rows than a sample of that
        accuracy has, about half a million. The first 128 MiB then decide whether integers are categories,
        and the means and standard deviations that scale whole rows.

        Partitions, such as a file for each day, are batches, too. Profiles of single partitions can't be
        added up afterwards, since each has its own bins.
        """
        return cls._of(Fit(kinds), _batches_of(batches), names)

    @classmethod
    def _of(cls, fit: Fit, batches: Iterable[object], names: Mapping[str, Sequence[str]] | None) -> Profile:
        for batch in batches:
            batch = as_table(batch)  # a stream can be read only once
            fit.update(columns_of(batch), temporal_of(batch), declared_of(batch))
        profile = cls(*fit.result())
        if not profile.references or not profile.rows:
            raise BadRequest("a profile: expected columns with rows, got none")
        if profile.rows < FEW_ROWS:
            warnings.warn(
                f"a profile of {profile.rows} rows is weak: its alarms need a great drift or long; "
                f"expected at least {FEW_ROWS}",
                stacklevel=3,
            )
        return profile._with_array_names(names) if names else profile

    def _with_array_names(self, names: Mapping[str, Sequence[str]]) -> Profile:
        """Return the profile with other names for the columns of some arrays."""
        new_names: dict[str, str] = {}
        for array, column_names in names.items():
            width = sum(1 for name in self.names if re.fullmatch(rf"{re.escape(array)}(_\d+)?", name))
            if width != len(column_names):
                raise BadRequest(f"names of {array!r}: expected {width}, got {len(column_names)}")
            new_names |= zip(names_of(array, len(column_names)), map(str, column_names), strict=True)
        return self.renamed(new_names)

    def renamed(self, names: Mapping[str, str]) -> Profile:
        """Return the profile with other names for some columns, by names in batches (in `fit`: by array).

        Raises BadRequest if two columns would have the same name.
        """
        new_names = [names.get(reference.source, reference.name) for reference in self.references]
        for name in new_names:
            if new_names.count(name) > 1:
                raise BadRequest(f"column {name!r}: expected one of this name, there would be several")
        name_of = dict(zip(self.names, new_names, strict=True))
        return Profile(
            tuple(replace(reference, name=name_of[reference.name]) for reference in self.references),
            replace(self.whole, names=tuple(name_of[name] for name in self.whole.names)),
        )

    @classmethod
    def empty(cls, kinds: Mapping[str, str]) -> Profile:
        """Return a profile of no rows, for counting without a reference.

        kinds  'numeric', 'string', 'integer' or 'boolean' by column name
        """
        names = [name for name, kind in kinds.items() if kind == "numeric"]
        no_moments = moments.start(len(names))
        references = [
            numeric(name, Exact(np.empty(0, np.float32)), np.zeros(3, np.int64), moments.start(1)[0])
            if kind == "numeric"
            else categorical(name, ({}, {}), 0, kind)
            for name, kind in kinds.items()
        ]
        whole = Whole(
            tuple(names), scaling(no_moments), features=np.zeros(0), comoments=np.zeros((0, 0)), rows=0
        )
        return cls(tuple(references), whole)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile; BadRequest if the file isn't one, or has a newer format."""
        from driftline.monitor.reference.storage import read

        return cls(*read(Path(path)))

    def save(self, path: str | Path) -> None:
        """Write the profile to a file, replaced only when complete; BadRequest if that fails."""
        from driftline.monitor.reference.storage import write

        write(Path(path), self.references, self.whole)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(reference.name for reference in self.references)

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the columns in batches."""
        return tuple(reference.source for reference in self.references)

    @property
    def rows(self) -> int:
        """How many rows the reference has."""
        return self.whole.rows

    @property
    def tables(self) -> Tables:
        """The tables that rows are counted by, made on first use and shared by all counters."""
        if not self._tables:
            edges = [reference.edges for reference in self.references if isinstance(reference, Numeric)]
            padded = np.full((len(edges), max(map(len, edges), default=0)), np.inf, np.float32)
            for row, edge_values in zip(padded, edges, strict=True):
                row[: len(edge_values)] = edge_values
            self._tables.append(self.whole.tables(padded))
        return self._tables[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return Profile, (self.references, self.whole)

    @property
    def fingerprint(self) -> str:
        """A hash of the content: rows counted by profiles with the same one may be added up."""
        digest = sha256(repr((self.whole.names, self.whole.rows, self.whole.seed)).encode())
        arrays = [self.whole.scaling, self.whole.features, self.whole.comoments]
        for reference in self.references:
            kind, categories = (
                ("numeric", ()) if isinstance(reference, Numeric) else (reference.kind, reference.categories)
            )
            digest.update(repr((reference.name, reference.source, kind, categories)).encode())
            arrays += [reference.counts, reference.split, reference.gaps]
            arrays += [reference.edges, reference.moments] if isinstance(reference, Numeric) else []
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def __getitem__(self, name: str) -> Reference:
        """Return the reference of a column; BadRequest if there is none."""
        for reference in self.references:
            if reference.name == name:
                return reference
        raise BadRequest(f"column {name!r}: the profile has no such column; it has: {listed(self.names)}")

    def __repr__(self) -> str:
        """Return the number of rows and the first columns."""
        more = ", ..." if len(self.names) > MAX_NAMED else ""
        return f"Profile({self.rows:,} rows: {', '.join(self.names[:MAX_NAMED])}{more})"

    def __str__(self) -> str:
        """Return the table as text."""
        from driftline.monitor.reporting.render import plain

        return plain(self)

    def __rich__(self) -> Any:
        """Return a table for the terminal, one line for each column."""
        return table(self.references, f"{self.rows:,} rows")

    def _repr_html_(self) -> str:
        """Return a table for a notebook, one line for each column."""
        return html(self.references, f"{self.rows:,} rows")

    def validate(self, signature: Signature) -> None:
        """Check that every column of the profile is one of a model's inputs or outputs, and of the same kind.

        A tensor of several columns is NAME_0, NAME_1, ...; what has no column in the profile is not watched.
        Raises BadRequest with the name of a column that is not, or that the model has in another place.
        """
        model_names = {
            source: name
            for spec in signature.inputs
            for source, name in zip(
                names_of(spec.name, len(spec.column_names)), spec.column_names, strict=True
            )
        }
        specs = {name: spec for spec in (*signature.inputs, *signature.outputs) for name in spec.columns}
        for reference in self.references:
            name = reference.source
            spec = specs.get(name) or specs.get(f"{name.rpartition('_')[0]}_*")
            if spec is None:
                raise BadRequest(f"column {name!r}: the model has no such column; it has: {listed(specs)}")
            actual = (
                "strings" if isinstance(reference, Categorical) and reference.kind == "string" else "numbers"
            )
            expected = "strings" if spec.datatype.name == "BYTES" else "numbers"
            if actual != expected:
                raise BadRequest(f"column {name!r}: the model has {expected}, the profile {actual}")
            model_name = model_names.get(name, reference.name)
            # Other names are fine, but not one that the model has for another column.
            if reference.name not in (name, model_name) and reference.name in model_names.values():
                raise BadRequest(
                    f"column {name!r}: the model calls it {model_name!r}, the profile {reference.name!r}, "
                    "which is another column of the model"
                )


def _batches_of(data: Any) -> Iterable[object]:
    """Return batches unchanged, or those that a Dataset or Scanner reads; BadRequest for a single table."""
    if hasattr(data, "to_batches"):
        batches: Iterable[object] = data.to_batches()
        return batches
    if isinstance(data, (Mapping, str, Path)) or hasattr(data, "columns") or not isinstance(data, Iterable):
        raise BadRequest(
            f"batches: expected tables, one after the other, got one {type(data).__name__}; "
            "Profile.fit takes a table"
        )
    return data
