"""What to compute: steps that name their columns.

A step reads a column and puts what it makes in its place, so that steps on one column are a chain; with
`into` it makes a new column and leaves the old one as it was. The features are the columns that steps have
made, in the order in which they were first made. A list of columns is the same step for each of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from driftline.features.step import Encoding as Encoding
from driftline.features.step import Step as Step

# -- columns ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read(Step):
    """How a raw column is read; needed only for what its steps and the data don't say.

    `on_error` "missing" takes numbers and times that can't be read as missing, and counts them.
    """

    name: ClassVar[str] = "read"

    kind: Literal["number", "string", "datetime"] | None = None
    on_error: Literal["raise", "missing"] = "raise"


@dataclass(frozen=True, slots=True)
class Pass(Step):
    """A column as it is."""

    name: ClassVar[str] = "pass"


@dataclass(frozen=True, slots=True)
class Drop(Step):
    """A column that earlier steps made and later ones used, and that is no feature itself."""

    name: ClassVar[str] = "drop"


# -- numbers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Impute(Step):
    """What is missing becomes the mean, the median, the most frequent value, or a constant, also of strings.

    `indicator` also makes COLUMN_missing, 0 or 1.
    """

    name: ClassVar[str] = "impute"

    using: Literal["mean", "median", "most_frequent", "constant"] = "mean"
    value: float | str = 0.0
    indicator: bool = False


@dataclass(frozen=True, slots=True)
class Missing(Step):
    """1 where a column is missing, else 0."""

    name: ClassVar[str] = "missing"


@dataclass(frozen=True, slots=True)
class Standardise(Step):
    """(x - mean) / standard deviation, as scikit-learn's StandardScaler."""

    name: ClassVar[str] = "standardise"

    centre: bool = True
    scale: bool = True


@dataclass(frozen=True, slots=True)
class MinMax(Step):
    """The range that was seen becomes low to high, as MinMaxScaler; `clip` keeps the rest within it."""

    name: ClassVar[str] = "min_max"

    low: float = 0.0
    high: float = 1.0
    clip: bool = False

    def check(self) -> None:
        """The range must not be empty."""
        if self.low >= self.high:
            raise self.refuse("high", f"a number above {self.low}")


@dataclass(frozen=True, slots=True)
class Robust(Step):
    """(x - median) / the distance of two percentiles, as RobustScaler."""

    name: ClassVar[str] = "robust"

    lower: float = 25.0
    upper: float = 75.0
    centre: bool = True
    scale: bool = True

    def check(self) -> None:
        """Percentiles ascend."""
        if not 0 <= self.lower < self.upper <= 100:
            raise self.refuse("upper", f"a percentile above {self.lower}, at most 100")


@dataclass(frozen=True, slots=True)
class Clip(Step):
    """Nothing below low or above high."""

    name: ClassVar[str] = "clip"

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Log1p(Step):
    """log(1 + x)."""

    name: ClassVar[str] = "log1p"


@dataclass(frozen=True, slots=True)
class Power(Step):
    """x to the power of an exponent.

    form  'box_cox', for numbers above 0, and 'yeo_johnson', for all, are the transforms of that lambda, as a
          PowerTransformer's that `Transform.from_sklearn` takes
    """

    name: ClassVar[str] = "power"

    exponent: float = 2.0
    form: Literal["plain", "box_cox", "yeo_johnson"] = "plain"


@dataclass(frozen=True, slots=True)
class Bucketise(Step):
    """The number of the bucket edge_k <= x < edge_k+1: 0 below the first of `edges`.

    Without edges, `quantiles` many buckets of equal share, as KBinsDiscretizer's.
    """

    name: ClassVar[str] = "bucketise"

    edges: Sequence[float] = ()
    quantiles: int = 5

    def check(self) -> None:
        """Edges ascend."""
        if any(low >= high for low, high in itertools.pairwise(self.edges)):
            raise self.refuse("edges", "ascending numbers")
        if self.quantiles < 2:
            raise self.refuse("quantiles", "2 at least")


@dataclass(frozen=True, slots=True)
class Quantile(Step):
    """The share of values below x, as QuantileTransformer.

    points  so many quantiles are remembered, at equal steps; between them it is interpolated
    normal  not the share but the normal distribution's quantile of it
    """

    name: ClassVar[str] = "quantile"

    points: int = 1000
    normal: bool = False

    def check(self) -> None:
        """There is something between them."""
        if self.points < 2:
            raise self.refuse("points", "2 at least")


@dataclass(frozen=True, slots=True)
class Arithmetic(Step):
    """A column and another, or a number: +, -, * or /."""

    name: ClassVar[str] = "arithmetic"

    operator: Literal["+", "-", "*", "/"] = "+"
    other: str | float = 0.0

    @property
    def reads(self) -> tuple[str, ...]:
        """One or two columns."""
        columns = Step.reads.fget(self)  # type: ignore[attr-defined]
        return (*columns, self.other) if isinstance(self.other, str) else tuple(columns)


@dataclass(frozen=True, slots=True)
class Linear(Step):
    """The sum of columns, each times its weight, and a bias, as one output of PCA; `into` names it."""

    name: ClassVar[str] = "linear"

    weights: Sequence[float] = ()
    bias: float = 0.0

    def check(self) -> None:
        """A weight for each column, and a name for what is none of them."""
        if not self.weights or len(self.weights) != len(self.reads):
            raise self.refuse("weights", f"as many as columns, {len(self.reads)}")
        if self.into is None:
            raise self.refuse("into", "a name")

    def each(self) -> Iterator[Step]:
        """All columns make one step."""
        yield self


@dataclass(frozen=True, slots=True)
class Piecewise(Step):
    """A polynomial for each piece between edges, as one output of a SplineTransformer.

    coefficients  of each piece, and of what is below the first edge and above the last: of the powers of
                  x - edge, from the 0th on, of the edge that the piece starts at; below the first, of that
    period        x comes round after so much, from the first edge on
    """

    name: ClassVar[str] = "piecewise"

    edges: Sequence[float] = ()
    coefficients: Sequence[Sequence[float]] = ()
    period: float | None = None

    def check(self) -> None:
        """Edges ascend, pieces have as many coefficients, and nothing comes round after no time."""
        if not self.edges or any(low >= high for low, high in itertools.pairwise(self.edges)):
            raise self.refuse("edges", "one or more ascending numbers")
        if len(self.coefficients) != len(self.edges) + 1 or len(set(map(len, self.coefficients))) != 1:
            raise self.refuse("coefficients", f"{len(self.edges) + 1} lists of one length")
        if self.period is not None and self.period <= 0:
            raise self.refuse("period", "a number above 0")


# -- categories ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ordinal(Encoding):
    """The place of a category, as OrdinalEncoder."""

    name: ClassVar[str] = "ordinal"

    unknown: Literal["error", "value"] = "value"
    unknown_value: float | None = -1
    missing_value: float | None = None


@dataclass(frozen=True, slots=True)
class OneHot(Encoding):
    """A column of zeros and ones for each category, as OneHotEncoder.

    unknown  what was not seen is all zeros, or counted among the infrequent, or an error
    drop     the category, by its place, that gets no column
    """

    name: ClassVar[str] = "one_hot"

    unknown: Literal["zeros", "infrequent", "error"] = "zeros"
    drop: int | None = None


@dataclass(frozen=True, slots=True)
class Equals(Step):
    """1 where a column is a value, else 0."""

    name: ClassVar[str] = "equals"

    value: str | float = 1.0


@dataclass(frozen=True, slots=True)
class Frequency(Step):
    """The share of the rows that a category had; 0 for what was not seen."""

    name: ClassVar[str] = "frequency"


@dataclass(frozen=True, slots=True)
class TargetMean(Step):
    """The mean of the target over a category's rows, drawn to that of all rows, as TargetEncoder.

    smoothing  how many rows of the overall mean are added to each category's; None weighs by variance
               (empirical Bayes)
    folds      of `Transform.fit_apply`, which encodes each row by the others' targets only
    """

    name: ClassVar[str] = "target_mean"

    smoothing: float | None = None
    folds: int = 5
    seed: int = 0

    def check(self) -> None:
        """Folds leave something out."""
        if self.folds < 2:
            raise self.refuse("folds", "2 at least")


@dataclass(frozen=True, slots=True)
class Hash(Step):
    """The number of the bucket that a string's XXH64 falls into; missing stays missing."""

    name: ClassVar[str] = "hash"

    buckets: int = 16

    def check(self) -> None:
        """Buckets are at least one."""
        if self.buckets < 1:
            raise self.refuse("buckets", "1 at least")


@dataclass(frozen=True, slots=True)
class Cross(Step):
    """Two columns as one whose categories are pairs; a step that encodes it must follow."""

    name: ClassVar[str] = "cross"

    def check(self) -> None:
        """Exactly two."""
        if isinstance(self.column, str) or len(self.column) != 2:
            raise self.refuse("column", "two columns")

    @property
    def makes(self) -> str:
        """The two names, joined."""
        return self.into if self.into is not None else "_x_".join(self.reads)

    def each(self) -> Iterator[Step]:
        """Two columns make one step."""
        yield self


# -- times --------------------------------------------------------------------------------------------

PARTS = ("year", "month", "day", "hour", "minute", "second", "weekday", "yearday", "quarter", "epoch")
"""In the order of driftline_kernels.scalars."""


@dataclass(frozen=True, slots=True)
class DatePart(Step):
    """A part of a date or time in UTC, by default into COLUMN_PART.

    Weekdays count from 0, Monday; days of the year from 1; `epoch` is seconds since 1970.
    """

    name: ClassVar[str] = "date_part"

    part: Literal[
        "year", "month", "day", "hour", "minute", "second", "weekday", "yearday", "quarter", "epoch"
    ] = "hour"

    @property
    def makes(self) -> str:
        """A name that tells the part."""
        return self.into if self.into is not None else f"{self.reads[0]}_{self.part}"


@dataclass(frozen=True, slots=True)
class Cyclic(Step):
    """Sine and cosine of a number that comes round after a period: COLUMN_sin and COLUMN_cos."""

    name: ClassVar[str] = "cyclic"

    period: float = 24.0

    def check(self) -> None:
        """Nothing comes round after no time."""
        if self.period == 0:
            raise self.refuse("period", "a number that isn't 0")


STEPS: dict[str, type[Step]] = {
    step.name: step
    for step in (
        *(Read, Pass, Drop, Impute, Missing, Standardise, MinMax, Robust, Clip, Log1p, Power),
        *(Bucketise, Quantile, Arithmetic, Linear, Piecewise),
        *(Ordinal, OneHot, Equals, Frequency, TargetMean, Hash, Cross, DatePart, Cyclic),
    )
}
"""All steps by the name that stands in files."""
