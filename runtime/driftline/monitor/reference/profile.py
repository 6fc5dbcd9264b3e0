"""The reference profile: what the data was when the model was made. Fitted once, kept beside the model."""

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

from driftline.columns import columns_of, declared_of, names_of, tabled, temporal_of
from driftline.errors import BadRequest, listed
from driftline.monitor.reference.column import Categorical, Numeric, Reference, categorical, numeric
from driftline.monitor.reference.fitting import Fit
from driftline.monitor.reference.quantiles import Exact
from driftline.monitor.reference.summary import html, table
from driftline.monitor.reference.whole import Tables, Whole, scaling
from driftline.tensors import Signature
from driftline_kernels import moments

FEW_ROWS = 100
"""A reference of fewer rows is too weak for an alarm worth having."""

NAMED = 6
"""Columns that a profile's repr names."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Profile:
    """A reference: `Profile.fit(columns)`, `profile.save(path)`, `Profile.load(path)`.

    references  by column, in order
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
        """The profile of data in memory, exactly.

        columns  a pyarrow Table, a DataFrame or arrays by name, as `columns_of` says
        kinds    'numeric' or 'categorical' by column name, where the rule's choice is not wanted: strings
                 and booleans are categorical, what pandas or Arrow has as categories, and integers without
                 nulls of at most 20 different values, dates and times apart
        names    by the name of an array of two dimensions, what its columns are to be called in reports
                 instead of NAME_0, NAME_1, ...: `fit({"input": frame.to_numpy()}, names={"input":
                 frame.columns})`

        Warns below 100 rows. Raises BadRequest for columns of no rows, of unequal length, without a name, or
        of a type that is neither numbers nor strings, and for names that are not as many as the columns, or
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
        """The profile of batches, in memory that does not grow with them; see `fit`.

        They are tables, each in a form that `fit` takes, or a pyarrow Dataset or Scanner that reads them:
        `fit_batches(pyarrow.dataset.dataset("training/"))`.

        Up to 128 MiB it is exact. Of more, quantiles come from KLL sketches: their ranks are off by at most
        0.07 % of the rows, so the reference counts as no more rows than a sample of that accuracy has, about
        half a million. Then the first 128 MiB tell whether integers are categories, and the means and
        standard deviations by which whole rows are scaled.

        Partitions are batches, too, a day's file say. Profiles of one each can't be added up afterwards,
        since each has bins of its own.
        """
        return cls._of(Fit(kinds), _batches_of(batches), names)

    @classmethod
    def _of(cls, fit: Fit, batches: Iterable[object], names: Mapping[str, Sequence[str]] | None) -> Profile:
        for batch in batches:
            batch = tabled(batch)  # a stream is read once
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
        return profile._of_arrays(names) if names else profile

    def _of_arrays(self, names: Mapping[str, Sequence[str]]) -> Profile:
        """With other names for the columns of some arrays."""
        called: dict[str, str] = {}
        for array, these in names.items():
            width = sum(1 for one in self.names if re.fullmatch(rf"{re.escape(array)}(_\d+)?", one))
            if width != len(these):
                raise BadRequest(f"names of {array!r}: expected {width}, got {len(these)}")
            called |= zip(names_of(array, len(these)), map(str, these), strict=True)
        return self.renamed(called)

    def renamed(self, names: Mapping[str, str]) -> Profile:
        """The same, with other names for some columns, by what batches call them; as `fit` has them by array.

        Raises BadRequest if two columns would have one name.
        """
        called = [names.get(one.source, one.name) for one in self.references]
        for name in called:
            if called.count(name) > 1:
                raise BadRequest(f"column {name!r}: expected one of this name, there would be several")
        now = dict(zip(self.names, called, strict=True))
        return Profile(
            tuple(replace(one, name=now[one.name]) for one in self.references),
            replace(self.whole, names=tuple(now[name] for name in self.whole.names)),
        )

    @classmethod
    def empty(cls, kinds: Mapping[str, str]) -> Profile:
        """A profile of no rows, for counting without a reference.

        kinds  'numeric', 'string', 'integer' or 'boolean' by column name
        """
        names = [name for name, kind in kinds.items() if kind == "numeric"]
        nothing = moments.start(len(names))
        references = [
            numeric(name, Exact(np.empty(0, np.float32)), np.zeros(3, np.int64), moments.start(1)[0])
            if kind == "numeric"
            else categorical(name, ({}, {}), 0, kind)
            for name, kind in kinds.items()
        ]
        whole = Whole(
            tuple(names), scaling(nothing), features=np.zeros(0), comoments=np.zeros((0, 0)), rows=0
        )
        return cls(tuple(references), whole)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile; BadRequest if the file is none, or of a newer format."""
        from driftline.monitor.reference.storage import read

        return cls(*read(Path(path)))

    def save(self, path: str | Path) -> None:
        """Write the profile to a file, replacing it when all is written; BadRequest if that fails."""
        from driftline.monitor.reference.storage import write

        write(Path(path), self.references, self.whole)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(reference.name for reference in self.references)

    @property
    def sources(self) -> tuple[str, ...]:
        """What batches call them."""
        return tuple(reference.source for reference in self.references)

    @property
    def rows(self) -> int:
        """How many rows the reference has."""
        return self.whole.rows

    @property
    def tables(self) -> Tables:
        """What rows are counted by: made when it is first asked for, and once for all counters."""
        if not self._tables:
            edges = [one.edges for one in self.references if isinstance(one, Numeric)]
            padded = np.full((len(edges), max(map(len, edges), default=0)), np.inf, np.float32)
            for row, own in zip(padded, edges, strict=True):
                row[: len(own)] = own
            self._tables.append(self.whole.tables(padded))
        return self._tables[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return Profile, (self.references, self.whole)

    @property
    def fingerprint(self) -> str:
        """The same for every profile of the same content: rows counted by one may be added to the other's."""
        digest = sha256(repr((self.whole.names, self.whole.rows, self.whole.seed)).encode())
        arrays = [self.whole.scaling, self.whole.features, self.whole.comoments]
        for one in self.references:
            kind, categories = ("numeric", ()) if isinstance(one, Numeric) else (one.kind, one.categories)
            digest.update(repr((one.name, one.source, kind, categories)).encode())
            arrays += [one.counts, one.split, one.gaps]
            arrays += [one.edges, one.moments] if isinstance(one, Numeric) else []
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def __getitem__(self, name: str) -> Reference:
        """The reference of a column; BadRequest if there is none."""
        for reference in self.references:
            if reference.name == name:
                return reference
        raise BadRequest(f"column {name!r}: the profile has no such column; it has: {listed(self.names)}")

    def __repr__(self) -> str:
        """Its rows and its first columns."""
        more = ", ..." if len(self.names) > NAMED else ""
        return f"Profile({self.rows:,} rows: {', '.join(self.names[:NAMED])}{more})"

    def __str__(self) -> str:
        """The table as text."""
        from driftline.monitor.reporting.render import plain

        return plain(self)

    def __rich__(self) -> Any:
        """A table for the terminal, a line a column."""
        return table(self.references, f"{self.rows:,} rows")

    def _repr_html_(self) -> str:
        """A table for a notebook, a line a column."""
        return html(self.references, f"{self.rows:,} rows")

    def validate(self, signature: Signature) -> None:
        """Whether every column of the profile is one of a model's inputs or outputs, and of its kind.

        A tensor of several columns is NAME_0, NAME_1, ...; what the profile has no column of is not watched.
        Raises BadRequest, with the column's name, if that is not so.
        """
        specs = {name: spec for spec in (*signature.inputs, *signature.outputs) for name in spec.columns}
        for reference in self.references:
            name = reference.source
            spec = specs.get(name) or specs.get(f"{name.rpartition('_')[0]}_*")
            if spec is None:
                raise BadRequest(f"column {name!r}: the model has no such column; it has: {listed(specs)}")
            came = (
                "strings" if isinstance(reference, Categorical) and reference.kind == "string" else "numbers"
            )
            expected = "strings" if spec.datatype.name == "BYTES" else "numbers"
            if came != expected:
                raise BadRequest(f"column {name!r}: the model has {expected}, the profile {came}")


def _batches_of(data: Any) -> Iterable[object]:
    """Batches as they are, or those of what is read batch by batch; BadRequest for one table alone."""
    if hasattr(data, "to_batches"):
        batches: Iterable[object] = data.to_batches()
        return batches
    if isinstance(data, (Mapping, str, Path)) or hasattr(data, "columns") or not isinstance(data, Iterable):
        raise BadRequest(
            f"batches: expected tables, one after the other, got one {type(data).__name__}; "
            "Profile.fit takes a table"
        )
    return data
