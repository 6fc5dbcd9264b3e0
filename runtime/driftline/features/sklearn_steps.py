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
    from driftline.features.sklearn import Importer


def _impute(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    _set_missing(importer, fitted, columns)
    outputs, indicators = [], []
    if fitted.add_indicator:
        for index in fitted.indicator_.features_:
            into = importer.new_name(f"{columns[index]}_missing")
            importer.add(spec.Missing(columns[index], into=into))
            importer.encoded.add(into)
            indicators.append(into)
    for column, value in zip(columns, fitted.statistics_, strict=True):
        if value is None:
            importer.set_missing(column, None)
        if value is None or value != value:
            importer.add(spec.Drop(column))
            continue
        value = value if isinstance(value, str) else float(value)
        importer.set_kind(column, "string" if isinstance(value, str) else "number")
        using = fitted.strategy
        if using == "constant":
            importer.add(spec.Impute(column, using, value), {"value": value})
        else:
            importer.add(spec.Impute(column, using), {"value": value})
        outputs.append(column)
    return outputs + indicators


def _standardise(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    for index, column in enumerate(columns):
        importer.set_kind(column, "number")
        step = spec.Standardise(column, centre=bool(fitted.with_mean), scale=bool(fitted.with_std))
        mean = float(fitted.mean_[index]) if fitted.mean_ is not None else 0.0
        deviation = float(fitted.scale_[index]) if fitted.scale_ is not None else 1.0
        importer.add(step, {"mean": mean, "deviation": deviation})
    return columns


def _min_max(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    low, high = map(float, fitted.feature_range)
    ranges = zip(fitted.data_min_.tolist(), fitted.data_max_.tolist(), fitted.scale_.tolist(), strict=True)
    for column, (least, most, scale) in zip(columns, ranges, strict=True):
        importer.set_kind(column, "number")
        constant = scale == high - low and most - least < 0.5  # within a rounding error, maybe of float32
        state = {"least": least, "most": least if constant else most}
        importer.add(spec.MinMax(column, low, high, bool(fitted.clip)), state)
    return columns


def _max_abs(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    for column, scale in zip(columns, fitted.scale_, strict=True):
        importer.set_kind(column, "number")
        importer.add(spec.Standardise(column, centre=False), {"mean": 0.0, "deviation": float(scale)})
        if getattr(fitted, "clip", False):
            importer.add(spec.Clip(column, -1.0, 1.0))
    return columns


def _robust(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    lower, upper = map(float, fitted.quantile_range)
    for index, column in enumerate(columns):
        importer.set_kind(column, "number")
        step = spec.Robust(column, lower, upper, bool(fitted.with_centering), bool(fitted.with_scaling))
        median = float(fitted.center_[index]) if fitted.with_centering else 0.0
        width = float(fitted.scale_[index]) if fitted.with_scaling else 1.0
        importer.add(step, {"median": median, "range": width})
    return columns


def _bucketise(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    for column, edges in zip(columns, fitted.bin_edges_, strict=True):
        importer.set_kind(column, "number")
        inner = tuple(float(edge) for edge in edges[1:-1])
        importer.add(spec.Bucketise(column, inner), {"edges": list(inner)})
        if fitted.encode != "ordinal":
            bins = list(range(len(inner) + 1))
            importer.add(spec.OneHot(column, tuple(bins)), {"categories": bins})
            importer.one_hot[column] = len(importer.steps) - 1
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


def _function(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    if fitted.func not in _FUNCTIONS or fitted.kw_args:
        supported = ", ".join(f"numpy.{function.__name__}" for function in _FUNCTIONS)
        raise BadRequest(f"func: expected {supported} or none, got {shorten(fitted.func)}")
    for column in columns:
        importer.set_kind(column, "number")
        for step in _FUNCTIONS[fitted.func](column):
            importer.add(step)
    return columns


def _power(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    form = fitted.method.replace("-", "_")
    for column, power in zip(columns, fitted.lambdas_, strict=True):
        importer.set_kind(column, "number")
        importer.add(spec.Power(column, _finite(power, column), form))
    return _standardise(importer, fitted._scaler, columns) if fitted.standardize else columns


def _quantile(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    if fitted.n_quantiles_ < 2:
        raise BadRequest(f"n_quantiles: expected 2 at least, got {fitted.n_quantiles_}")
    for column, quantiles in zip(columns, fitted.quantiles_.T.tolist(), strict=True):
        importer.set_kind(column, "number")
        if len(set(quantiles)) < len(quantiles):  # of values at a repeated one, the share jumps
            importer.check_exact([column], "repeated quantiles")
        step = spec.Quantile(column, fitted.n_quantiles_, fitted.output_distribution == "normal")
        importer.add(step, {"quantiles": [_finite(quantile, column) for quantile in quantiles]})
    return columns


def _binarise(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    edge = float(np.nextafter(float(fitted.threshold), np.inf))  # values above the threshold become 1
    for column in columns:
        importer.set_kind(column, "number")
        importer.add(spec.Bucketise(column, (edge,)), {"edges": [edge]})
    return columns


def _polynomial(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    """Each product becomes a column; the columns that it is made from are dropped."""
    for column in columns:
        importer.set_kind(column, "number")
    outputs: list[str] = []
    for powers in fitted.powers_:
        factors = [column for column, power in zip(columns, powers, strict=True) for _ in range(power)]
        into = importer.new_name(" * ".join([f"polynomial_{len(outputs)}", *factors]))
        if factors:
            importer.add(spec.Pass(factors[0], into=into))
        else:  # the constant 1
            importer.add(spec.Missing(columns[0], into=into))
            importer.add(spec.Power(into, 0.0))
        for factor in factors[1:]:
            importer.add(spec.Arithmetic(into, "*", factor))
        if len(factors) > 2 or not importer.rounded.isdisjoint(factors):
            importer.rounded.add(into)
        outputs.append(into)
    importer.encoded.update(outputs)
    importer.drop(columns)
    return outputs


def _splines(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    """Each basis function becomes a column."""
    extrapolation = fitted.extrapolation
    if extrapolation == "error":
        raise BadRequest("extrapolation: 'error' can't be imported")
    if fitted.degree < 1:  # steps, where a rounding error decides, and which end differently beyond the knots
        raise BadRequest(f"degree: expected 1 or more, got {fitted.degree}")
    if fitted.degree == 1 and extrapolation == "linear" and len(columns) > 1:
        # scikit-learn 1.9 extrapolates all but the first column between the knots, too.
        raise BadRequest("degree: expected 2 or more to extrapolate several columns linearly, got 1")
    outputs: list[str] = []
    for column, basis in zip(columns, fitted.bsplines_, strict=True):
        importer.set_kind(column, "number")
        edges, functions = edges_of(basis).tolist(), list(pieces_of(basis, extrapolation))
        if len(edges) < len(basis.t) - 2 * basis.k:  # at a repeated one, functions may jump
            importer.check_exact([column], "repeated knots")
        period = edges[-1] - edges[0] if extrapolation == "periodic" else None
        for function, pieces in enumerate(functions[: len(functions) - (not fitted.include_bias)]):
            into = importer.new_name(f"{column}_sp_{function}")
            importer.add(spec.Piecewise(column, edges, pieces, period, into=into))
            if getattr(fitted, "handle_missing", "error") == "zeros":
                importer.add(spec.Impute(into, "constant", 0.0), {"value": 0.0})
            outputs.append(into)
    importer.encoded.update(outputs)
    importer.drop(columns)
    return outputs


def _linear(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    """Each component becomes a weighted sum of all columns."""
    weights = np.asarray(fitted.components_, np.float64)
    if getattr(fitted, "whiten", False):
        deviations = np.sqrt(fitted.explained_variance_)
        weights = weights / np.maximum(deviations, np.finfo(deviations.dtype).eps)[:, None]
    biases = -weights @ fitted.mean_ if hasattr(fitted, "mean_") else np.zeros(len(weights))
    for column in columns:
        importer.set_kind(column, "number")
    name = type(fitted).__name__.lower()
    outputs = [importer.new_name(f"{name}{index}") for index in range(len(weights))]
    for into, component, bias in zip(outputs, weights.tolist(), biases.tolist(), strict=True):
        importer.add(spec.Linear(columns, component, bias, into=into))
    importer.encoded.update(outputs)
    importer.drop(columns)
    return outputs


def _normalise(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    if fitted.norm == "max":
        raise BadRequest("norm: expected 'l1' or 'l2', got 'max'")
    parts = [importer.new_name(f"{column}_part") for column in columns]
    for column, part in zip(columns, parts, strict=True):
        importer.set_kind(column, "number")
        importer.add(spec.Pass(column, into=part))
        importer.add(spec.Power(part, 2.0))
        if fitted.norm == "l1":
            importer.add(spec.Power(part, 0.5))
    length, is_zero = importer.new_name("length"), importer.new_name("nothing")
    importer.add(spec.Linear(parts, [1.0] * len(parts), into=length))
    if fitted.norm == "l2":
        importer.add(spec.Power(length, 0.5))
    least = 10 * float(np.finfo(np.float64).eps)  # shorter rows are divided by 1, within a rounding error
    importer.add(spec.Bucketise(length, (least,), into=is_zero), {"edges": [least]})
    importer.add(spec.Equals(is_zero, 0.0))
    importer.add(spec.Arithmetic(length, "+", is_zero))
    for column in columns:
        importer.add(spec.Arithmetic(column, "/", length))
    importer.drop([*parts, length, is_zero])
    return columns


def _missing(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    _set_missing(importer, fitted, columns)
    outputs = []
    for index in fitted.features_:
        outputs.append(importer.new_name(f"{columns[index]}_missing"))
        importer.add(spec.Missing(columns[index], into=outputs[-1]))
    importer.encoded.update(outputs)
    importer.drop(columns)
    return outputs


def _one_hot(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    unknown = {"error": "error", "ignore": "zeros"}.get(fitted.handle_unknown, "infrequent")
    for index, column in enumerate(columns):
        categories, infrequent = _categories(importer, fitted, index, column)
        drop = None
        if fitted.drop_idx_ is not None and fitted.drop_idx_[index] is not None:
            dropped = categories[fitted.drop_idx_[index]]
            frequent = [category for category in categories if category not in infrequent]
            drop = frequent.index(dropped) if dropped in frequent else len(frequent)
        grouped = _settings_of(fitted, categories)
        step = spec.OneHot(column, *grouped, unknown=unknown, drop=drop)  # type: ignore[arg-type]
        importer.add(step, {"categories": categories} | ({"infrequent": infrequent} if infrequent else {}))
        importer.one_hot[column] = len(importer.steps) - 1
    return columns


def _ordinal(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    unknown = "error" if fitted.handle_unknown == "error" else "value"
    for index, column in enumerate(columns):
        categories, infrequent = _categories(importer, fitted, index, column)
        missing = _or_none(fitted.encoded_missing_value)
        if fitted.categories_[index][-1] is None:  # unlike NaN, None is a category like any other
            if infrequent:
                raise BadRequest(f"categories of {column!r}: None beside infrequent ones can't be imported")
            missing = float(len(categories) - 1)
        step = spec.Ordinal(
            column,
            *_settings_of(fitted, categories),
            unknown=unknown,  # type: ignore[arg-type]
            unknown_value=_or_none(fitted.unknown_value),
            missing_value=missing,
        )
        importer.add(step, {"categories": categories} | ({"infrequent": infrequent} if infrequent else {}))
        importer.encoded.add(column)
    return columns


def _target_mean(importer: Importer, fitted: Any, columns: list[str]) -> list[str]:
    """Each column becomes one column; with more than two classes, one for each class."""
    smoothing = None if fitted.smooth == "auto" else float(fitted.smooth)
    classes = fitted.classes_ if fitted.target_type_ == "multiclass" else [None]
    encodings, overall = iter(fitted.encodings_), np.atleast_1d(fitted.target_mean_)
    outputs = []
    for index, column in enumerate(columns):
        categories, _ = _categories(importer, fitted, index, column)
        for position, label in enumerate(classes):
            means = [float(mean) for mean in next(encodings)]
            state = {"categories": categories, "means": means, "overall": float(overall[position])}
            into = None if label is None else importer.new_name(f"{column}_{label}")
            importer.add(spec.TargetMean(column, smoothing, into=into), state)
            outputs.append(into or column)
        if column not in outputs:
            importer.drop([column])
    importer.encoded.update(outputs)
    return outputs


def _categories(importer: Importer, fitted: Any, index: int, column: str) -> tuple[list[Any], list[Any]]:
    """Return the categories of a column, missing last, and those of them that are infrequent."""
    fitted_categories = fitted.categories_[index]
    categories = [_plain(category) for category in fitted_categories]
    for category, plain in zip(fitted_categories, categories, strict=True):
        if np.asarray(category).dtype.kind in "mM" or not isinstance(plain, (str, int, float, type(None))):
            actual = shorten(str(category))
            raise BadRequest(f"categories of {column!r}: expected strings or numbers, got {actual}")
    if categories.count(None) > 1 or None in categories[:-1]:
        raise BadRequest(f"categories of {column!r}: expected one for missing values, at the end")
    texts = [isinstance(category, str) for category in categories if category is not None]
    if any(texts) and not all(texts):
        raise BadRequest(f"categories of {column!r}: expected strings or numbers, got both")
    importer.set_kind(column, "string" if any(texts) else "number")
    if categories[-1] is None:
        importer.set_missing(column, fitted_categories[-1])
    if column not in importer.encoded:
        importer.examples.setdefault(importer.origins.get(column, column), categories[0])
    infrequent_of = getattr(fitted, "infrequent_categories_", None) if _groups_infrequent(fitted) else None
    infrequent = infrequent_of[index] if infrequent_of is not None else None
    return categories, [] if infrequent is None else [_plain(category) for category in infrequent]


def _settings_of(fitted: Any, categories: list[Any]) -> tuple[Any, Any, Any]:
    """Return an encoder's settings, for a new fit: categories, min_frequency, max_categories."""
    explicit = None if isinstance(fitted.categories, str) else tuple(categories)
    return explicit, fitted.min_frequency, fitted.max_categories


def _groups_infrequent(fitted: Any) -> bool:
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


def _set_missing(importer: Importer, fitted: Any, columns: list[str]) -> None:
    missing = fitted.missing_values
    if str(missing) == "<NA>":  # scikit-learn takes NaN and None as missing, too
        return
    if missing is not None and missing == missing:
        raise BadRequest(f"missing_values: expected NaN, got {missing!r}")
    for column in columns:
        importer.set_missing(column, missing)


def _or_none(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


TRANSFORMERS: dict[str, Callable[[Importer, Any, list[str]], list[str]]] = {
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
