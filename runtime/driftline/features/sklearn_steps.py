"""Import fitted transformers of scikit-learn as steps, by the names of their classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from driftline.errors import BadRequest
from driftline.features import spec
from driftline.features.splines import edges_of, pieces_of
from driftline.tensors import shorten

if TYPE_CHECKING:
    from driftline.features.sklearn import Import


def _impute(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    _set_missing(work, fitted, columns)
    made, indicators = [], []
    if fitted.add_indicator:
        for index in fitted.indicator_.features_:
            into = work.fresh(f"{columns[index]}_missing")
            work.add(spec.Missing(columns[index], into=into))
            work.encoded.add(into)
            indicators.append(into)
    for column, value in zip(columns, fitted.statistics_, strict=True):
        if value is None:
            work.set_missing(column, None)
        if value is None or value != value:
            work.add(spec.Drop(column))
            continue
        value = value if isinstance(value, str) else float(value)
        work.set_kind(column, "string" if isinstance(value, str) else "number")
        using = fitted.strategy
        if using == "constant":
            work.add(spec.Impute(column, using, value), {"value": value})
        else:
            work.add(spec.Impute(column, using), {"value": value})
        made.append(column)
    return made + indicators


def _standardise(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    for index, column in enumerate(columns):
        work.set_kind(column, "number")
        step = spec.Standardise(column, centre=bool(fitted.with_mean), scale=bool(fitted.with_std))
        mean = float(fitted.mean_[index]) if fitted.mean_ is not None else 0.0
        deviation = float(fitted.scale_[index]) if fitted.scale_ is not None else 1.0
        work.add(step, {"mean": mean, "deviation": deviation})
    return columns


def _min_max(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    low, high = map(float, fitted.feature_range)
    ranges = zip(fitted.data_min_.tolist(), fitted.data_max_.tolist(), fitted.scale_.tolist(), strict=True)
    for column, (least, most, scale) in zip(columns, ranges, strict=True):
        work.set_kind(column, "number")
        constant = scale == high - low and most - least < 0.5  # within a rounding error, maybe of float32
        state = {"least": least, "most": least if constant else most}
        work.add(spec.MinMax(column, low, high, bool(fitted.clip)), state)
    return columns


def _max_abs(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    for column, scale in zip(columns, fitted.scale_, strict=True):
        work.set_kind(column, "number")
        work.add(spec.Standardise(column, centre=False), {"mean": 0.0, "deviation": float(scale)})
        if getattr(fitted, "clip", False):
            work.add(spec.Clip(column, -1.0, 1.0))
    return columns


def _robust(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    lower, upper = map(float, fitted.quantile_range)
    for index, column in enumerate(columns):
        work.set_kind(column, "number")
        step = spec.Robust(column, lower, upper, bool(fitted.with_centering), bool(fitted.with_scaling))
        median = float(fitted.center_[index]) if fitted.with_centering else 0.0
        width = float(fitted.scale_[index]) if fitted.with_scaling else 1.0
        work.add(step, {"median": median, "range": width})
    return columns


def _bucketise(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    for column, edges in zip(columns, fitted.bin_edges_, strict=True):
        work.set_kind(column, "number")
        inner = tuple(float(edge) for edge in edges[1:-1])
        work.add(spec.Bucketise(column, inner), {"edges": list(inner)})
        if fitted.encode != "ordinal":
            bins = list(range(len(inner) + 1))
            work.add(spec.OneHot(column, tuple(bins)), {"categories": bins})
            work.wide[column] = len(work.steps) - 1
    return columns


_FUNCTIONS: dict[Any, Callable[[str], tuple[spec.Step, ...]]] = {
    np.log1p: lambda column: (spec.Log1p(column),),
    np.log: lambda column: (spec.Power(column, 0.0, "box_cox"),),
    np.log2: lambda column: (spec.Power(column, 0.0, "box_cox"), spec.Arithmetic(column, "/", math.log(2))),
    np.log10: lambda column: (spec.Power(column, 0.0, "box_cox"), spec.Arithmetic(column, "/", math.log(10))),
    np.sqrt: lambda column: (spec.Power(column, 0.5),),
    np.square: lambda column: (spec.Power(column),),
}
"""The numpy functions that steps can express."""


def _function(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    if fitted.func not in _FUNCTIONS or fitted.kw_args:
        known = ", ".join(f"numpy.{function.__name__}" for function in _FUNCTIONS)
        raise BadRequest(f"func: expected {known} or none, got {shorten(fitted.func)}")
    for column in columns:
        work.set_kind(column, "number")
        for step in _FUNCTIONS[fitted.func](column):
            work.add(step)
    return columns


def _power(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    form = fitted.method.replace("-", "_")
    for column, power in zip(columns, fitted.lambdas_, strict=True):
        work.set_kind(column, "number")
        work.add(spec.Power(column, _finite(power, column), form))
    return _standardise(work, fitted._scaler, columns) if fitted.standardize else columns


def _quantile(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    if fitted.n_quantiles_ < 2:
        raise BadRequest(f"n_quantiles: expected 2 at least, got {fitted.n_quantiles_}")
    for column, quantiles in zip(columns, fitted.quantiles_.T.tolist(), strict=True):
        work.set_kind(column, "number")
        if len(set(quantiles)) < len(quantiles):  # of values at a repeated one, the share jumps
            work.check_exact([column], "repeated quantiles")
        step = spec.Quantile(column, fitted.n_quantiles_, fitted.output_distribution == "normal")
        work.add(step, {"quantiles": [_finite(quantile, column) for quantile in quantiles]})
    return columns


def _binarise(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    edge = float(np.nextafter(float(fitted.threshold), np.inf))  # values above the threshold become 1
    for column in columns:
        work.set_kind(column, "number")
        work.add(spec.Bucketise(column, (edge,)), {"edges": [edge]})
    return columns


def _polynomial(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    """Each product becomes a column; the columns that it is made from are dropped."""
    for column in columns:
        work.set_kind(column, "number")
    made: list[str] = []
    for powers in fitted.powers_:
        factors = [column for column, power in zip(columns, powers, strict=True) for _ in range(power)]
        into = work.fresh(" * ".join([f"polynomial_{len(made)}", *factors]))
        if factors:
            work.add(spec.Pass(factors[0], into=into))
        else:  # the constant 1
            work.add(spec.Missing(columns[0], into=into))
            work.add(spec.Power(into, 0.0))
        for factor in factors[1:]:
            work.add(spec.Arithmetic(into, "*", factor))
        if len(factors) > 2 or not work.rounded.isdisjoint(factors):
            work.rounded.add(into)
        made.append(into)
    work.encoded.update(made)
    work.drop(columns)
    return made


def _splines(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    """Each basis function becomes a column."""
    how = fitted.extrapolation
    if how == "error":
        raise BadRequest("extrapolation: 'error' can't be imported")
    if fitted.degree < 1:  # steps, where a rounding error decides, and which end differently beyond the knots
        raise BadRequest(f"degree: expected 1 or more, got {fitted.degree}")
    if fitted.degree == 1 and how == "linear" and len(columns) > 1:
        # scikit-learn 1.9 extrapolates all but the first column between the knots, too.
        raise BadRequest("degree: expected 2 or more to extrapolate several columns linearly, got 1")
    made: list[str] = []
    for column, basis in zip(columns, fitted.bsplines_, strict=True):
        work.set_kind(column, "number")
        edges, functions = edges_of(basis).tolist(), list(pieces_of(basis, how))
        if len(edges) < len(basis.t) - 2 * basis.k:  # at a repeated one, functions may jump
            work.check_exact([column], "repeated knots")
        period = edges[-1] - edges[0] if how == "periodic" else None
        for function, pieces in enumerate(functions[: len(functions) - (not fitted.include_bias)]):
            into = work.fresh(f"{column}_sp_{function}")
            work.add(spec.Piecewise(column, edges, pieces, period, into=into))
            if getattr(fitted, "handle_missing", "error") == "zeros":
                work.add(spec.Impute(into, "constant", 0.0), {"value": 0.0})
            made.append(into)
    work.encoded.update(made)
    work.drop(columns)
    return made


def _linear(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    """Each component becomes a weighted sum of all columns."""
    weights = np.asarray(fitted.components_, np.float64)
    if getattr(fitted, "whiten", False):
        deviations = np.sqrt(fitted.explained_variance_)
        weights = weights / np.maximum(deviations, np.finfo(deviations.dtype).eps)[:, None]
    biases = -weights @ fitted.mean_ if hasattr(fitted, "mean_") else np.zeros(len(weights))
    for column in columns:
        work.set_kind(column, "number")
    name = type(fitted).__name__.lower()
    made = [work.fresh(f"{name}{index}") for index in range(len(weights))]
    for into, own, bias in zip(made, weights.tolist(), biases.tolist(), strict=True):
        work.add(spec.Linear(columns, own, bias, into=into))
    work.encoded.update(made)
    work.drop(columns)
    return made


def _normalise(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    if fitted.norm == "max":
        raise BadRequest("norm: expected 'l1' or 'l2', got 'max'")
    parts = [work.fresh(f"{column}_part") for column in columns]
    for column, part in zip(columns, parts, strict=True):
        work.set_kind(column, "number")
        work.add(spec.Pass(column, into=part))
        work.add(spec.Power(part, 2.0))
        if fitted.norm == "l1":
            work.add(spec.Power(part, 0.5))
    length, nothing = work.fresh("length"), work.fresh("nothing")
    work.add(spec.Linear(parts, [1.0] * len(parts), into=length))
    if fitted.norm == "l2":
        work.add(spec.Power(length, 0.5))
    least = 10 * float(np.finfo(np.float64).eps)  # shorter rows are divided by 1, within a rounding error
    work.add(spec.Bucketise(length, (least,), into=nothing), {"edges": [least]})
    work.add(spec.Equals(nothing, 0.0))
    work.add(spec.Arithmetic(length, "+", nothing))
    for column in columns:
        work.add(spec.Arithmetic(column, "/", length))
    work.drop([*parts, length, nothing])
    return columns


def _missing(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    _set_missing(work, fitted, columns)
    made = []
    for index in fitted.features_:
        made.append(work.fresh(f"{columns[index]}_missing"))
        work.add(spec.Missing(columns[index], into=made[-1]))
    work.encoded.update(made)
    work.drop(columns)
    return made


def _one_hot(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    unknown = {"error": "error", "ignore": "zeros"}.get(fitted.handle_unknown, "infrequent")
    for index, column in enumerate(columns):
        categories, infrequent = _categories(work, fitted, index, column)
        drop = None
        if fitted.drop_idx_ is not None and fitted.drop_idx_[index] is not None:
            dropped = categories[fitted.drop_idx_[index]]
            frequent = [category for category in categories if category not in infrequent]
            drop = frequent.index(dropped) if dropped in frequent else len(frequent)
        grouped = _as_asked(fitted, categories)
        step = spec.OneHot(column, *grouped, unknown=unknown, drop=drop)  # type: ignore[arg-type]
        work.add(step, {"categories": categories} | ({"infrequent": infrequent} if infrequent else {}))
        work.wide[column] = len(work.steps) - 1
    return columns


def _ordinal(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    unknown = "error" if fitted.handle_unknown == "error" else "value"
    for index, column in enumerate(columns):
        categories, infrequent = _categories(work, fitted, index, column)
        missing = _or_none(fitted.encoded_missing_value)
        if fitted.categories_[index][-1] is None:  # unlike NaN, None is a category like any other
            if infrequent:
                raise BadRequest(f"categories of {column!r}: None beside infrequent ones can't be imported")
            missing = float(len(categories) - 1)
        step = spec.Ordinal(
            column,
            *_as_asked(fitted, categories),
            unknown=unknown,  # type: ignore[arg-type]
            unknown_value=_or_none(fitted.unknown_value),
            missing_value=missing,
        )
        work.add(step, {"categories": categories} | ({"infrequent": infrequent} if infrequent else {}))
        work.encoded.add(column)
    return columns


def _target_mean(work: Import, fitted: Any, columns: list[str]) -> list[str]:
    """Each column becomes one column; with more than two classes, one for each class."""
    smoothing = None if fitted.smooth == "auto" else float(fitted.smooth)
    classes = fitted.classes_ if fitted.target_type_ == "multiclass" else [None]
    encodings, overall = iter(fitted.encodings_), np.atleast_1d(fitted.target_mean_)
    made = []
    for index, column in enumerate(columns):
        categories, _ = _categories(work, fitted, index, column)
        for place, each in enumerate(classes):
            means = [float(mean) for mean in next(encodings)]
            state = {"categories": categories, "means": means, "overall": float(overall[place])}
            into = None if each is None else work.fresh(f"{column}_{each}")
            work.add(spec.TargetMean(column, smoothing, into=into), state)
            made.append(into or column)
        if column not in made:
            work.drop([column])
    work.encoded.update(made)
    return made


def _categories(work: Import, fitted: Any, index: int, column: str) -> tuple[list[Any], list[Any]]:
    """Return the categories of a column, missing last, and those of them that are infrequent."""
    own = fitted.categories_[index]
    categories = [_plain(category) for category in own]
    for category, plain in zip(own, categories, strict=True):
        if np.asarray(category).dtype.kind in "mM" or not isinstance(plain, (str, int, float, type(None))):
            came = shorten(str(category))
            raise BadRequest(f"categories of {column!r}: expected strings or numbers, got {came}")
    if categories.count(None) > 1 or None in categories[:-1]:
        raise BadRequest(f"categories of {column!r}: expected one for missing values, at the end")
    texts = [isinstance(category, str) for category in categories if category is not None]
    if any(texts) and not all(texts):
        raise BadRequest(f"categories of {column!r}: expected strings or numbers, got both")
    work.set_kind(column, "string" if any(texts) else "number")
    if categories[-1] is None:
        work.set_missing(column, own[-1])
    if column not in work.encoded:
        work.examples.setdefault(work.origins.get(column, column), categories[0])
    every = getattr(fitted, "infrequent_categories_", None) if _groups(fitted) else None
    infrequent = every[index] if every is not None else None
    return categories, [] if infrequent is None else [_plain(category) for category in infrequent]


def _as_asked(fitted: Any, categories: list[Any]) -> tuple[Any, Any, Any]:
    """Return an encoder's settings, for a new fit: categories, min_frequency, max_categories."""
    given = None if isinstance(fitted.categories, str) else tuple(categories)
    return given, fitted.min_frequency, fitted.max_categories


def _groups(fitted: Any) -> bool:
    """Return whether an encoder groups infrequent categories; only then it has infrequent_categories_."""
    return fitted.__dict__.get("_infrequent_enabled", False) is True


def _plain(category: Any) -> Any:
    value = category.item() if isinstance(category, np.generic) else category
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _finite(value: Any, column: str) -> float:
    if not np.isfinite(value):
        raise BadRequest(f"{column!r}: expected it to be fitted on numbers, got {value}")
    return float(value)


def _set_missing(work: Import, fitted: Any, columns: list[str]) -> None:
    missing = fitted.missing_values
    if str(missing) == "<NA>":  # scikit-learn takes NaN and None as missing, too
        return
    if missing is not None and missing == missing:
        raise BadRequest(f"missing_values: expected NaN, got {missing!r}")
    for column in columns:
        work.set_missing(column, missing)


def _or_none(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


TRANSFORMERS: dict[str, Callable[[Import, Any, list[str]], list[str]]] = {
    "SimpleImputer": _impute,
    "MissingIndicator": _missing,
    "StandardScaler": _standardise,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "RobustScaler": _robust,
    "Normalizer": _normalise,
    "KBinsDiscretizer": _bucketise,
    "FunctionTransformer": _function,
    "PowerTransformer": _power,
    "QuantileTransformer": _quantile,
    "Binarizer": _binarise,
    "PolynomialFeatures": _polynomial,
    "SplineTransformer": _splines,
    "PCA": _linear,
    "IncrementalPCA": _linear,
    "TruncatedSVD": _linear,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "TargetEncoder": _target_mean,
}
