"""The reference profile: what the data was when the model was made. Fitted once, kept beside the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from driftline.errors import BadRequest
from driftline.monitor.columns import columns_of
from driftline.monitor.fitting import Fit
from driftline.monitor.reference import Numeric, Reference
from driftline.monitor.whole import Whole
from driftline.tensors import Signature

FEW_ROWS = 100
"""A reference of fewer rows is too weak for an alarm worth having."""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """A reference: `Profile.fit(columns)`, `profile.save(path)`, `Profile.load(path)`.

    references  by column, in order
    whole       of the numeric columns together
    """

    references: tuple[Reference, ...]
    whole: Whole

    @classmethod
    def fit(cls, columns: object, kinds: Mapping[str, str] | None = None) -> Profile:
        """The profile of data in memory, exactly.

        columns  a pyarrow Table, a DataFrame or arrays by name, as `columns_of` says
        kinds    'numeric' or 'categorical' by column name, where the rule's choice is not wanted: strings
                 and booleans are categorical, and integers of at most 20 different values

        Warns below 100 rows. Raises BadRequest for columns of no rows, of unequal length, or of a type
        that is neither numbers nor strings.
        """
        return cls._of(Fit(exact=True, kinds=kinds), [columns])

    @classmethod
    def fit_batches(cls, batches: Iterable[object], kinds: Mapping[str, str] | None = None) -> Profile:
        """The profile of batches, in memory that does not grow with them.

        Quantiles come from KLL sketches. Their ranks are off by at most 0.07 % of the rows, so the reference
        counts as no more rows than a sample of that accuracy has, about half a million. Whether integers are
        categories is told from the first batch.
        """
        return cls._of(Fit(exact=False, kinds=kinds), batches)

    @classmethod
    def _of(cls, fit: Fit, batches: Iterable[object]) -> Profile:
        for batch in batches:
            fit.update(columns_of(batch))
        profile = cls(fit.references(), fit.whole())
        if not profile.references or not profile.rows:
            raise BadRequest("a profile: expected columns with rows, came none")
        if profile.rows < FEW_ROWS:
            warnings.warn(
                f"a profile of {profile.rows} rows is weak: its alarms need a great drift or long; "
                f"expected at least {FEW_ROWS}",
                stacklevel=3,
            )
        return profile

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile; BadRequest if the file is none, or of a newer format."""
        from driftline.monitor.storage import read

        return cls(*read(Path(path)))

    def save(self, path: str | Path) -> None:
        """Write the profile to a file, replacing it when all is written; BadRequest if that fails."""
        from driftline.monitor.storage import write

        write(Path(path), self.references, self.whole)

    def merge(self, other: Profile) -> Profile:
        """The profile of both references' rows.

        Both must have been counted in the same bins. What one adds to the other are rows that were counted
        after the ranks were cut, as live rows are. Raises BadRequest if columns or bins differ.
        """
        if self.names != other.names or self.whole.names != other.whole.names:
            raise BadRequest(
                f"profiles of the columns {', '.join(self.names)} and {', '.join(other.names)}: "
                "expected the same ones"
            )
        pairs = zip(self.references, other.references, strict=True)
        return Profile(tuple(_add(one, two) for one, two in pairs), _add_whole(self.whole, other.whole))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(reference.name for reference in self.references)

    @property
    def rows(self) -> int:
        """How many rows the reference has."""
        return self.whole.rows

    def __getitem__(self, name: str) -> Reference:
        """The reference of a column; BadRequest if there is none."""
        for reference in self.references:
            if reference.name == name:
                return reference
        raise BadRequest(f"column {name!r}: the profile has no such column; it has: {', '.join(self.names)}")

    def validate(self, signature: Signature) -> None:
        """Whether every input of a model has a reference of its kind; BadRequest names the one that has not.

        An input of two dimensions is its columns, NAME_0, NAME_1, ...; outputs need none.
        """
        for spec in signature.inputs:
            width = spec.shape[1] if len(spec.shape) == 2 else 1
            names = (
                (spec.name,) if len(spec.shape) < 2 else [f"{spec.name}_{i}" for i in range(max(width, 0))]
            )
            for name in names:
                reference = self[name]
                if spec.datatype.name == "BYTES" and isinstance(reference, Numeric):
                    raise BadRequest(f"column {name!r}: the model takes strings, the profile has numbers")


def _add(one: Reference, two: Reference) -> Reference:
    if isinstance(one, Numeric) and isinstance(two, Numeric) and np.array_equal(one.edges, two.edges):
        m, n = one.counts[: one.missing].sum(), two.counts[: two.missing].sum()
        if not m or not n:
            mean, sd = (one.mean, one.sd) if m else (two.mean, two.sd)
        else:
            mean = (m * one.mean + n * two.mean) / (m + n)
            variance = (m * one.sd**2 + n * two.sd**2) / (m + n) + m * n * (one.mean - two.mean) ** 2 / (
                m + n
            ) ** 2
            sd = float(np.sqrt(variance))
        return replace(
            one,
            counts=one.counts + two.counts,
            gaps=one.gaps + two.counts @ one.split,
            mean=mean,
            sd=sd,
            minimum=float(np.fmin(one.minimum, two.minimum)),
            maximum=float(np.fmax(one.maximum, two.maximum)),
        )
    if not isinstance(one, Numeric) and not isinstance(two, Numeric) and one.categories == two.categories:
        return replace(one, counts=one.counts + two.counts, gaps=one.gaps + two.counts @ one.split)
    raise BadRequest(f"column {one.name!r}: expected profiles of the same bins, came different ones")


def _add_whole(one: Whole, two: Whole) -> Whole:
    if not (np.array_equal(one.center, two.center) and np.array_equal(one.scale, two.scale)):
        raise BadRequest("profiles: expected columns standardised alike, came different ones")
    return replace(
        one,
        features=one.features + two.features,
        sums=one.sums + two.sums,
        products=one.products + two.products,
        rows=one.rows + two.rows,
    )
