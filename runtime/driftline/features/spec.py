"""The steps of transforms, each with the columns that it reads.

A step replaces the column that it reads by its result, so steps on one column form a chain; with `into` it
makes a new column and leaves the old one unchanged. The features are the columns that steps have made, in
the order in which they were first made. A list of columns applies the step to each of them.
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
    """How a raw column is read; needed only for what its steps and the data don't tell.

    `on_error="missing"` counts numbers and times that can't be read, and takes them as missing.
    """

    name: ClassVar[str] = "read"

    kind: Literal["number", "string", "datetime"] | None = None
    on_error: Literal["raise", "missing"] = "raise"


@dataclass(frozen=True, slots=True)
class Pass(Step):
    """A column, unchanged."""

    name: ClassVar[str] = "pass"


@dataclass(frozen=True, slots=True)
class Drop(Step):
    """Remove a column from the features: one that was made only for other steps."""

    name: ClassVar[str] = "drop"


# -- numbers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Impute(Step):
    """Replace missing values by the mean, the median, the most frequent value or a constant.

    The last two also for strings. `indicator` also makes COLUMN_missing, 0 or 1.
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
    """Scale the range seen in fitting to low..high, as MinMaxScaler; `clip` limits other values to it."""

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
    """(x - median) / (upper percentile - lower percentile), as RobustScaler."""

    name: ClassVar[str] = "robust"

    lower: float = 25.0
    upper: float = 75.0
    centre: bool = True
    scale: bool = True

    def check(self) -> None:
        """Percentiles must ascend."""
        if not 0 <= self.lower < self.upper <= 100:
            raise self.refuse("upper", f"a percentile above {self.lower}, at most 100")


@dataclass(frozen=True, slots=True)
class Clip(Step):
    """Limit values to low..high."""

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

    form  'box_cox', for numbers above 0, and 'yeo_johnson', for all, are PowerTransformer's transforms with
          the exponent as lambda; `Transform.from_sklearn` imports fitted ones
    """

    name: ClassVar[str] = "power"

    exponent: float = 2.0
    form: Literal["plain", "box_cox", "yeo_johnson"] = "plain"


@dataclass(frozen=True, slots=True)
class Bucketise(Step):
    """The number of the bucket edge_k <= x < edge_k+1; 0 below the first of `edges`.

    Without edges, `quantiles` buckets of equal shares are fitted, as KBinsDiscretizer does.
    """

    name: ClassVar[str] = "bucketise"

    edges: Sequence[float] = ()
    quantiles: int = 5

    def check(self) -> None:
        """Edges must ascend."""
        if any(low >= high for low, high in itertools.pairwise(self.edges)):
            raise self.refuse("edges", "ascending numbers")
        if self.quantiles < 2:
            raise self.refuse("quantiles", "2 at least")


@dataclass(frozen=True, slots=True)
class Quantile(Step):
    """The share of values below x, as QuantileTransformer.

    points  how many quantiles are fitted, at equal steps; values between them are interpolated
    normal  return the normal distribution's quantile of the share
    """

    name: ClassVar[str] = "quantile"

    points: int = 1000
    normal: bool = False

    def check(self) -> None:
        """At least two points are needed."""
        if self.points < 2:
            raise self.refuse("points", "2 at least")


@dataclass(frozen=True, slots=True)
class Arithmetic(Step):
    """A column +, -, * or / another column or a number."""

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
    """The weighted sum of columns plus a bias, as one output of PCA; `into` names it."""

    name: ClassVar[str] = "linear"

    weights: Sequence[float] = ()
    bias: float = 0.0

    def check(self) -> None:
        """Each column needs a weight, and the result a name."""
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

    coefficients  of the piece below the first edge, each piece between edges, and the piece above the last:
                  of the powers of x - edge, from the 0th on; edge is the piece's lower one, else the first
    period        x repeats after this much, counted from the first edge
    """

    name: ClassVar[str] = "piecewise"

    edges: Sequence[float] = ()
    coefficients: Sequence[Sequence[float]] = ()
    period: float | None = None

    def check(self) -> None:
        """Edges must ascend, all pieces have equally many coefficients, and a period be above 0."""
        if not self.edges or any(low >= high for low, high in itertools.pairwise(self.edges)):
            raise self.refuse("edges", "one or more ascending numbers")
        if len(self.coefficients) != len(self.edges) + 1 or len(set(map(len, self.coefficients))) != 1:
            raise self.refuse("coefficients", f"{len(self.edges) + 1} lists of one length")
        if self.period is not None and self.period <= 0:
            raise self.refuse("period", "a number above 0")


# -- categories ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ordinal(Encoding):
    """The index of a category, as OrdinalEncoder."""

    name: ClassVar[str] = "ordinal"

    unknown: Literal["error", "value"] = "value"
    unknown_value: float | None = -1
    missing_value: float | None = None


@dataclass(frozen=True, slots=True)
class OneHot(Encoding):
    """A column of zeros and ones for each category, as OneHotEncoder.

    unknown  a category that was not fitted is all zeros, one of the infrequent, or an error
    drop     the index of the category that gets no column
    """

    name: ClassVar[str] = "one_hot"

    unknown: Literal["zeros", "infrequent", "error"] = "zeros"
    drop: int | None = None


@dataclass(frozen=True, slots=True)
class Equals(Step):
    """1 where a column equals a value, else 0."""

    name: ClassVar[str] = "equals"

    value: str | float = 1.0


@dataclass(frozen=True, slots=True)
class Frequency(Step):
    """The share of the fitted rows that have the category; 0 for an unknown one."""

    name: ClassVar[str] = "frequency"


@dataclass(frozen=True, slots=True)
class TargetMean(Step):
    """The mean of the target over a category's rows, shrunk towards that of all rows, as TargetEncoder.

    smoothing  how many rows of the overall mean are added to each category's; None weights by variance
               (empirical Bayes)
    folds      of `Transform.fit_apply`, which encodes each row by the targets of the other folds only
    """

    name: ClassVar[str] = "target_mean"

    smoothing: float | None = None
    folds: int = 5
    seed: int = 0

    def check(self) -> None:
        """At least two folds are needed."""
        if self.folds < 2:
            raise self.refuse("folds", "2 at least")


@dataclass(frozen=True, slots=True)
class Hash(Step):
    """The number of the bucket of a string's XXH64 hash; missing stays missing."""

    name: ClassVar[str] = "hash"

    buckets: int = 16

    def check(self) -> None:
        """At least one bucket is needed."""
        if self.buckets < 1:
            raise self.refuse("buckets", "1 at least")


@dataclass(frozen=True, slots=True)
class Cross(Step):
    """Two columns as one whose categories are pairs; a step that encodes it must follow."""

    name: ClassVar[str] = "cross"

    def check(self) -> None:
        """Exactly two columns are needed."""
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
        """`into`, or the column's name and the part."""
        return self.into if self.into is not None else f"{self.reads[0]}_{self.part}"


@dataclass(frozen=True, slots=True)
class Cyclic(Step):
    """Sine and cosine of a number that repeats after a period: COLUMN_sin and COLUMN_cos."""

    name: ClassVar[str] = "cyclic"

    period: float = 24.0

    def check(self) -> None:
        """The period must not be 0."""
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
"""All steps, by their names in files."""
