"""A fitted ColumnTransformer, Pipeline or transformer of scikit-learn as steps with the same outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from driftline.errors import BadRequest
from driftline.features import spec
from driftline.features.program import State
from driftline.features.raw import Input
from driftline.tensors import shorten


def imported(fitted: Any) -> tuple[list[spec.Step], list[State], list[Input]]:
    """Steps, what was fitted for them, and the raw columns.

    Raises BadRequest with the name of a transformer that can't be expressed, and why.
    """
    names = getattr(fitted, "feature_names_in_", None)
    count = getattr(fitted, "n_features_in_", None)
    if count is None:
        raise BadRequest(f"{_kind(fitted)}: expected a fitted transformer, came {shorten(fitted)}")
    columns = [f"x{index}" for index in range(count)] if names is None else [str(name) for name in names]
    work = _Import()
    steps = fitted.steps if _kind(fitted) == "Pipeline" else [("", fitted)]
    if _kind(steps[0][1]) == "ColumnTransformer":  # which may leave out columns
        columns = work.column_transformer(steps[0][1], columns, "")
        steps = steps[1:]
    else:
        for column in columns:
            work.add(spec.Pass(column))
    for name, step in steps:
        columns = work.transformer(step, columns, name or _kind(fitted))
    inputs = [Input(name, work.kinds.get(name, "number")) for name in work.raw]
    return work.steps, work.states, inputs


@dataclass(slots=True)
class _Import:
    """Steps as they come to light.

    origins  the raw column that each column was made of
    wide     columns that are many already, and can't be changed any more
    encoded  columns that are numbers now, whatever they were made of
    """

    steps: list[spec.Step] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    raw: dict[str, None] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    wide: set[str] = field(default_factory=set)
    encoded: set[str] = field(default_factory=set)

    def add(self, step: spec.Step, state: State | None = None) -> None:
        """One more step."""
        column = step.reads[0]
        if column not in self.origins:
            self.raw.setdefault(column)
        self.origins[step.makes] = self.origins.get(column, column)
        self.steps.append(step)
        self.states.append(state or {})

    def set_kind(self, column: str, kind: str) -> None:
        """What the raw column behind a column holds, if that is what the column still is."""
        if column in self.encoded:
            return
        origin = self.origins.get(column, column)
        if self.kinds.setdefault(origin, kind) != kind:
            raise BadRequest(f"column {origin!r}: expected one kind, came {self.kinds[origin]} and {kind}")

    def column_transformer(self, fitted: Any, columns: Sequence[str], where: str) -> list[str]:
        """Each branch on columns of its own, named BRANCH__COLUMN."""
        if fitted.transformer_weights:
            raise BadRequest(f"{where}ColumnTransformer: transformer_weights can't be imported")
        made: list[str] = []
        indices = fitted._transformer_to_input_indices
        for name, transformer, _ in fitted.transformers_:
            own = [columns[index] for index in indices[name]]
            if _is(transformer, "drop") or not own:
                continue
            branch = [f"{name}__{column}" for column in own]
            for column, into in zip(own, branch, strict=True):
                self.add(spec.Pass(column, into=into))
                for marked in (self.wide, self.encoded):
                    if column in marked:
                        marked.add(into)
            made += self.transformer(transformer, branch, f"{where}{name}")
        return made

    def transformer(self, fitted: Any, columns: Sequence[str], where: str) -> list[str]:
        """Any transformer; what it makes of the columns."""
        kind = _kind(fitted)
        if _is(fitted, "passthrough") or fitted is None:
            return list(columns)
        if kind == "Pipeline":
            made = list(columns)
            for name, step in fitted.steps:
                made = self.transformer(step, made, f"{where}.{name}")
            return made
        if kind == "ColumnTransformer":
            made = self.column_transformer(fitted, columns, f"{where}.")
            for column in columns:
                self.add(spec.Drop(column))
            return made
        if hasattr(fitted, "predict"):
            raise BadRequest(
                f"{where}: expected transformers, came the model {kind}; without it: pipeline[:-1]"
            )
        if kind not in _TRANSFORMERS:
            raise BadRequest(
                f"{where}: {kind} can't be imported; those that can: {', '.join(_TRANSFORMERS)}, "
                "ColumnTransformer, Pipeline"
            )
        wide = [column for column in columns if column in self.wide]
        if wide:
            raise BadRequest(
                f"{where}: {kind} after a one-hot encoder can't be imported: {wide[0]!r} is many columns"
            )
        try:
            return _TRANSFORMERS[kind](self, fitted, list(columns))
        except BadRequest as error:
            raise BadRequest(f"{where}: {kind}: {error}") from None


def _impute(work: _Import, fitted: Any, columns: list[str]) -> list[str]:
    missing = fitted.missing_values
    if missing is not None and missing == missing and str(missing) != "<NA>":
        raise BadRequest(f"missing_values: expected NaN, came {missing!r}")
    made, indicators = [], []
    if fitted.add_indicator:
        for index in fitted.indicator_.features_:
            into = f"{columns[index]}_missing"
            work.add(spec.Missing(columns[index], into=into))
            work.encoded.add(into)
            indicators.append(into)
    for column, value in zip(columns, fitted.statistics_, strict=True):
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


def _standardise(work: _Import, fitted: Any, columns: list[str]) -> list[str]:
    for index, column in enumerate(columns):
        work.set_kind(column, "number")
        step = spec.Standardise(column, centre=bool(fitted.with_mean), scale=bool(fitted.with_std))
        mean = float(fitted.mean_[index]) if fitted.mean_ is not None else 0.0
        deviation = float(fitted.scale_[index]) if fitted.scale_ is not None else 1.0
        work.add(step, {"mean": mean, "deviation": deviation})
    return columns


def _min_max(work: _Import, fitted: Any, columns: list[str]) -> list[str]:
    low, high = map(float, fitted.feature_range)
    for column, least, most in zip(columns, fitted.data_min_, fitted.data_max_, strict=True):
        work.set_kind(column, "number")
        work.add(
            spec.MinMax(column, low, high, bool(fitted.clip)), {"least": float(least), "most": float(most)}
        )
    return columns


def _max_abs(work: _Import, fitted: Any, columns: list[str]) -> list[str]:
    if getattr(fitted, "clip", False):
        raise BadRequest("clip: expected False, came True")
    for column, scale in zip(columns, fitted.scale_, strict=True):
        work.set_kind(column, "number")
        work.add(spec.Standardise(column, centre=False), {"mean": 0.0, "deviation": float(scale)})
    return columns


def _robust(work: _Import, fitted: Any, columns: list[str]) -> list[str]:
    lower, upper = map(float, fitted.quantile_range)
    for index, column in enumerate(columns):
        work.set_kind(column, "number")
        step = spec.Robust(column, lower, upper, bool(fitted.with_centering), bool(fitted.with_scaling))
        median = float(fitted.center_[index]) if fitted.with_centering else 0.0
        width = float(fitted.scale_[index]) if fitted.with_scaling else 1.0
        work.add(step, {"median": median, "range": width})
    return columns


def _bucketise(work: _Import, fitted: Any, columns: list[str]) -> list[str]:
    for column, edges in zip(columns, fitted.bin_edges_, strict=True):
        work.set_kind(column, "number")
        inner = tuple(float(edge) for edge in edges[1:-1])
        work.add(spec.Bucketise(column, inner), {"edges": list(inner)})
        if fitted.encode != "ordinal":
            bins = list(range(len(inner) + 1))
            work.add(spec.OneHot(column, tuple(bins)), {"categories": bins})
            work.wide.add(column)
    return columns


def _log1p(work: _Import, fitted: Any, columns: list[str]) -> list[str]:
    if fitted.func is None:
        return columns
    if fitted.func is not np.log1p or fitted.kw_args:
        raise BadRequest(f"func: expected numpy.log1p or none, came {shorten(fitted.func)}")
    for column in columns:
        work.set_kind(column, "number")
        work.add(spec.Log1p(column))
    return columns


def _one_hot(work: _Import, fitted: Any, columns: list[str]) -> list[str]:
    unknown = {"error": "error", "ignore": "zeros"}.get(fitted.handle_unknown, "infrequent")
    for index, column in enumerate(columns):
        categories, infrequent = _categories(work, fitted, index, column)
        drop = None
        if fitted.drop_idx_ is not None and fitted.drop_idx_[index] is not None:
            dropped = categories[fitted.drop_idx_[index]]
            frequent = [category for category in categories if category not in infrequent]
            drop = frequent.index(dropped) if dropped in frequent else len(frequent)
        step = spec.OneHot(column, unknown=unknown, drop=drop)  # type: ignore[arg-type]
        work.add(step, {"categories": categories} | ({"infrequent": infrequent} if infrequent else {}))
        work.wide.add(column)
    return columns


def _ordinal(work: _Import, fitted: Any, columns: list[str]) -> list[str]:
    unknown = "error" if fitted.handle_unknown == "error" else "value"
    for index, column in enumerate(columns):
        categories, infrequent = _categories(work, fitted, index, column)
        missing = _or_none(fitted.encoded_missing_value)
        if fitted.categories_[index][-1] is None:  # which is a category like others there, unlike NaN
            if infrequent:
                raise BadRequest(f"categories of {column!r}: None beside infrequent ones can't be imported")
            missing = float(len(categories) - 1)
        step = spec.Ordinal(
            column,
            unknown=unknown,  # type: ignore[arg-type]
            unknown_value=_or_none(fitted.unknown_value),
            missing_value=missing,
        )
        work.add(step, {"categories": categories} | ({"infrequent": infrequent} if infrequent else {}))
        work.encoded.add(column)
    return columns


def _target_mean(work: _Import, fitted: Any, columns: list[str]) -> list[str]:
    if fitted.target_type_ == "multiclass":
        raise BadRequest("expected a target of numbers or two classes, came more classes")
    smoothing = None if fitted.smooth == "auto" else float(fitted.smooth)
    for index, column in enumerate(columns):
        categories, _ = _categories(work, fitted, index, column)
        means = [float(mean) for mean in fitted.encodings_[index]]
        state = {"categories": categories, "means": means, "overall": float(fitted.target_mean_)}
        work.add(spec.TargetMean(column, smoothing), state)
        work.encoded.add(column)
    return columns


def _categories(work: _Import, fitted: Any, index: int, column: str) -> tuple[list[Any], list[Any]]:
    """The categories of a column, missing last, and which of them are infrequent."""
    categories = [_plain(category) for category in fitted.categories_[index]]
    if categories.count(None) > 1 or None in categories[:-1]:
        raise BadRequest(f"categories of {column!r}: expected one for what is missing, at the end")
    texts = [isinstance(category, str) for category in categories if category is not None]
    if any(texts) and not all(texts):
        raise BadRequest(f"categories of {column!r}: expected strings or numbers, came both")
    work.set_kind(column, "string" if any(texts) else "number")
    every = getattr(fitted, "infrequent_categories_", None) if _groups(fitted) else None
    infrequent = every[index] if every is not None else None
    return categories, [] if infrequent is None else [_plain(category) for category in infrequent]


def _groups(fitted: Any) -> bool:
    """Whether an encoder counts rare categories as one: asked else, it has no such attribute."""
    return fitted.__dict__.get("_infrequent_enabled", False) is True


def _plain(category: Any) -> Any:
    value = category.item() if isinstance(category, np.generic) else category
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _or_none(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _kind(fitted: Any) -> str:
    return type(fitted).__name__


def _is(fitted: Any, word: str) -> bool:
    return isinstance(fitted, str) and fitted == word


_TRANSFORMERS: dict[str, Callable[[_Import, Any, list[str]], list[str]]] = {
    "SimpleImputer": _impute,
    "StandardScaler": _standardise,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "RobustScaler": _robust,
    "KBinsDiscretizer": _bucketise,
    "FunctionTransformer": _log1p,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "TargetEncoder": _target_mean,
}
