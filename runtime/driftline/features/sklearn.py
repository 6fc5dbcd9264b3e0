"""A fitted ColumnTransformer, Pipeline or transformer of scikit-learn as steps with the same outputs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from driftline.errors import BadRequest
from driftline.features import spec
from driftline.features.program import State
from driftline.features.raw import Input
from driftline.features.sklearn_steps import TRANSFORMERS
from driftline.tensors import shorten


def imported(fitted: Any) -> Import:
    """Steps, what was fitted for them, and the raw columns.

    Raises BadRequest with the name of a transformer that can't be expressed, and why.
    """
    columns = _raw(fitted)
    work = Import(set(columns))
    steps = fitted.steps if _kind(fitted) == "Pipeline" else [("", fitted)]
    if _kind(steps[0][1]) == "ColumnTransformer":  # which may leave out columns
        columns = work.column_transformer(steps[0][1], columns, "")
        steps = steps[1:]
    else:
        for column in columns:
            work.add(spec.Pass(column))
    for name, step in steps:
        columns = work.transformer(step, columns, name or _kind(fitted))
    return work


def width_of(fitted: Any, work: Import) -> int | None:
    """How many columns a fitted transformer makes; None if neither its names nor an example tell."""
    try:
        return len(fitted.get_feature_names_out())
    except (AttributeError, ValueError, TypeError):  # not every transformer names its columns
        pass
    try:
        import pandas as pd

        row = pd.DataFrame({name: [work.examples.get(name, 1.0)] for name in _raw(fitted)})
        has_names = hasattr(_first(fitted), "feature_names_in_")
        return int(fitted.transform(row if has_names else row.to_numpy()).shape[1])
    except Exception:  # whatever a transformer raises for a row that it was not made for
        return None


@dataclass(slots=True)
class Import:
    """Steps as they come to light.

    names     of all columns, raw ones and those that steps made
    origins   the raw column that each column was made of
    examples  a category of raw columns that have them
    wide      columns that are many already, and can't be changed any more
    encoded   columns that are numbers now, whatever they were made of
    """

    names: set[str]
    steps: list[spec.Step] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    raw: dict[str, None] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    examples: dict[str, Any] = field(default_factory=dict)
    wide: set[str] = field(default_factory=set)
    encoded: set[str] = field(default_factory=set)

    @property
    def inputs(self) -> list[Input]:
        """The raw columns."""
        return [Input(name, self.kinds.get(name, "number")) for name in self.raw]

    def fresh(self, name: str) -> str:
        """A name for a new column: with a number behind it if a column has it already."""
        numbered = (f"{name}.{number}" for number in itertools.count(2))
        free = next(each for each in itertools.chain([name], numbered) if each not in self.names)
        self.names.add(free)
        return free

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
        indices = fitted._transformer_to_input_indices
        return [
            made
            for name, transformer, _ in fitted.transformers_
            for made in self.branch(name, transformer, [columns[index] for index in indices[name]], where)
        ]

    def feature_union(self, fitted: Any, columns: Sequence[str], where: str) -> list[str]:
        """Each branch on all columns."""
        if fitted.transformer_weights:
            raise BadRequest(f"{where}FeatureUnion: transformer_weights can't be imported")
        return [
            made
            for name, transformer in fitted.transformer_list
            for made in self.branch(name, transformer, columns, where)
        ]

    def branch(self, name: str, transformer: Any, columns: Sequence[str], where: str) -> list[str]:
        """What one of several transformers makes of its columns, which stay for the others."""
        if _is(transformer, "drop") or not columns:
            return []
        branch = [self.fresh(f"{name}__{column}") for column in columns]
        for column, into in zip(columns, branch, strict=True):
            self.add(spec.Pass(column, into=into))
            for marked in (self.wide, self.encoded):
                if column in marked:
                    marked.add(into)
        return self.transformer(transformer, branch, f"{where}{name}")

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
        if kind in ("ColumnTransformer", "FeatureUnion"):
            each = self.column_transformer if kind == "ColumnTransformer" else self.feature_union
            made = each(fitted, columns, f"{where}.")
            for column in columns:
                self.add(spec.Drop(column))
            return made
        if hasattr(fitted, "get_support"):
            return self.selected(fitted, columns, where)
        if hasattr(fitted, "predict"):
            raise BadRequest(
                f"{where}: expected transformers, came the model {kind}; without it: pipeline[:-1]"
            )
        if kind not in TRANSFORMERS:
            raise BadRequest(
                f"{where}: {kind} can't be imported; those that can: {', '.join(TRANSFORMERS)}, "
                "ColumnTransformer, FeatureUnion, Pipeline, and what selects columns. "
                "`driftline convert` takes whole pipelines, with others in them, too"
            )
        self.check_narrow(fitted, columns, where)
        try:
            return TRANSFORMERS[kind](self, fitted, list(columns))
        except BadRequest as error:
            raise BadRequest(f"{where}: {kind}: {error}") from None

    def selected(self, fitted: Any, columns: Sequence[str], where: str) -> list[str]:
        """The columns that a selector keeps."""
        self.check_narrow(fitted, columns, where)
        kept = [column for column, keep in zip(columns, fitted.get_support(), strict=True) if keep]
        for column in columns:
            if column not in kept:
                self.add(spec.Drop(column))
        return kept

    def check_narrow(self, fitted: Any, columns: Sequence[str], where: str) -> None:
        """BadRequest if one of the columns is many already."""
        wide = [column for column in columns if column in self.wide]
        if wide:
            after = f"{_kind(fitted)} after a one-hot encoder can't be imported"
            raise BadRequest(f"{where}: {after}: {wide[0]!r} is many columns")


def _raw(fitted: Any) -> list[str]:
    """The names of the columns that a transformer was fitted on; BadRequest for one that was not."""
    first = _first(fitted)
    names = getattr(first, "feature_names_in_", None)
    count = getattr(first, "n_features_in_", None)
    if count is None:
        raise BadRequest(f"{_kind(fitted)}: expected a fitted transformer, came {shorten(fitted)}")
    return [f"x{index}" for index in range(count)] if names is None else [str(name) for name in names]


def _first(fitted: Any) -> Any:
    """The transformer that saw the raw columns; None if there is none.

    In a Pipeline or FeatureUnion, scikit-learn asks the first entry, even if it is 'passthrough' or 'drop'.
    """
    if fitted is None or isinstance(fitted, str):
        return None
    parts = {"Pipeline": "steps", "FeatureUnion": "transformer_list"}.get(_kind(fitted))
    if parts is None:
        return fitted
    found = (_first(part) for _, part in getattr(fitted, parts))
    return next((first for first in found if first is not None), None)


def _kind(fitted: Any) -> str:
    return type(fitted).__name__


def _is(fitted: Any, word: str) -> bool:
    return isinstance(fitted, str) and fitted == word
