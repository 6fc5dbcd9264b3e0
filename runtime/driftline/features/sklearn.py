"""Import a fitted ColumnTransformer, Pipeline or transformer of scikit-learn as steps with equal outputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from driftline.errors import BadRequest
from driftline.features import spec
from driftline.features.compiling import label
from driftline.features.program import State
from driftline.features.raw import Input
from driftline.features.sklearn_steps import TRANSFORMERS
from driftline.tensors import shorten

PARALLEL = ("ColumnTransformer", "FeatureUnion")
"""Transformers whose parts run in parallel."""

ROUNDED = (
    *("FunctionTransformer", "PowerTransformer", "QuantileTransformer", "SplineTransformer", "Normalizer"),
    *("PCA", "IncrementalPCA", "TruncatedSVD"),
)
"""Transformers whose outputs can differ from scikit-learn's by a rounding error."""

COMPARED = {
    "OneHotEncoder": "categories",
    "OrdinalEncoder": "categories",
    "TargetEncoder": "categories",
    "KBinsDiscretizer": "bins",
    "Binarizer": "thresholds",
}
"""What transformers compare numbers with, so that a rounding error gives another output."""


def import_fitted(fitted: Any) -> Importer:
    """Return the steps, their fitted states and the raw columns.

    Raises BadRequest with the name of a transformer that can't be expressed, and the reason.
    """
    columns = _raw_columns(fitted)
    importer = Importer(set(columns))
    importer.import_chain(fitted, columns, "", "")
    return importer


def width_of(fitted: Any, importer: Importer) -> int | None:
    """Return how many columns a fitted transformer makes; None if neither names nor an example row tell."""
    try:
        return len(fitted.get_feature_names_out())
    except (AttributeError, ValueError, TypeError):  # not every transformer names its columns
        pass
    try:
        import pandas as pd

        row = pd.DataFrame({name: [importer.examples.get(name, 1.0)] for name in _raw_columns(fitted)})
        has_names = hasattr(_first_fitted(fitted), "feature_names_in_")
        return int(fitted.transform(row if has_names else row.to_numpy()).shape[1])
    except Exception:  # whatever a transformer raises for a row that it was not meant for
        return None


@dataclass(slots=True)
class Importer:
    """Imports transformers, and holds the steps so far.

    names     of all columns, raw ones and those that steps made
    origins   the raw column that each column was made from
    examples  a category of each raw column that has categories
    one_hot   one-hot columns, and the indices of the steps that encoded them
    encoded   columns that hold numbers now, whatever their raw column holds
    missing   what transformers of each raw column take as missing: 'NaN' or 'None'
    rounded   columns of numbers that can differ from scikit-learn's by a rounding error
    """

    names: set[str]
    steps: list[spec.Step] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    raw: dict[str, None] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    examples: dict[str, Any] = field(default_factory=dict)
    one_hot: dict[str, int] = field(default_factory=dict)
    encoded: set[str] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)
    rounded: set[str] = field(default_factory=set)

    @property
    def inputs(self) -> list[Input]:
        """The raw columns."""
        return [Input(name, self.kinds.get(name, "number")) for name in self.raw]

    def new_name(self, name: str) -> str:
        """Return a name for a new column, with a number appended if it is taken."""
        numbered = (f"{name}.{number}" for number in itertools.count(2))
        new = next(
            candidate for candidate in itertools.chain([name], numbered) if candidate not in self.names
        )
        self.names.add(new)
        return new

    def add(self, step: spec.Step, state: State | None = None) -> None:
        """Add a step."""
        column = step.reads[0]
        if column not in self.origins:
            self.raw.setdefault(column)
        self.origins[step.makes] = self.origins.get(column, column)
        self.steps.append(step)
        self.states.append(state or {})

    def set_kind(self, column: str, kind: str) -> None:
        """Set the kind of the raw column behind a column, unless the column is encoded already."""
        if column in self.encoded:
            return
        origin = self.origins.get(column, column)
        if self.kinds.setdefault(origin, kind) != kind:
            raise BadRequest(f"column {origin!r}: expected one kind, got {self.kinds[origin]} and {kind}")

    def set_missing(self, column: str, value: Any) -> None:
        """Set what is missing in the raw column behind a column, NaN or None: steps can't tell them apart."""
        if column in self.encoded:
            return
        origin = self.origins.get(column, column)
        spelling = "None" if value is None else "NaN"
        if self.missing.setdefault(origin, spelling) != spelling:
            raise BadRequest(
                f"column {origin!r}: expected NaN or None for what is missing, got both: scikit-learn takes "
                "one of them as a category of its own; replace None by NaN, and fit again"
            )

    def check_exact(self, columns: Sequence[str], compared: str) -> None:
        """Refuse what compares numbers if a column's are rounded: fitted ones would be missed."""
        if not self.rounded.isdisjoint(columns):
            raise BadRequest(f"{compared} of computed numbers can't be imported: rounding differs")

    def import_chain(self, fitted: Any, columns: Sequence[str], where: str, prefix: str) -> list[str]:
        """Import one transformer or a chain; return its outputs. The input columns stay, for other branches.

        prefix  of the names of the columns' copies; '' for raw columns, which need none
        """
        chain = _flatten(fitted, where)
        if chain and _kind(chain[0][1]) in PARALLEL:  # it copies the columns that it needs itself
            outputs = self.import_branches(chain[0][1], columns, chain[0][0], prefix)
            chain = chain[1:]
        else:
            outputs = [self.copy(column, prefix) for column in columns]
        for path, step in chain:
            outputs = self.import_transformer(step, outputs, path)
        return outputs

    def import_branches(self, fitted: Any, columns: Sequence[str], where: str, prefix: str = "") -> list[str]:
        """Import parallel branches, in a ColumnTransformer on their own columns; return their outputs."""
        if _kind(fitted) == "ColumnTransformer":
            indices = fitted._transformer_to_input_indices
            branches = [
                (name, transformer, [columns[index] for index in indices[name]])
                for name, transformer, _ in fitted.transformers_
            ]
        else:
            branches = [(name, transformer, list(columns)) for name, transformer in fitted.transformer_list]
        outputs: list[str] = []
        for name, transformer, branch_columns in branches:
            if _is_word(transformer, "drop") or not branch_columns:
                continue
            branch_outputs = self.import_chain(
                transformer, branch_columns, _join(where, name), f"{prefix}{name}__"
            )
            outputs += self.weigh(branch_outputs, (fitted.transformer_weights or {}).get(name))
        return outputs

    def copy(self, column: str, prefix: str) -> str:
        """Copy a column, with the prefix in its name; return the name."""
        into = self.new_name(f"{prefix}{column}") if prefix else column
        self.add(spec.Pass(column, into=into))
        for marks in (self.encoded, self.rounded):
            if column in marks:
                marks.add(into)
        return into

    def weigh(self, columns: list[str], weight: float | None) -> list[str]:
        """Multiply columns by the weight of their branch."""
        if weight is None:
            return columns
        columns = self.split_one_hots(columns)
        for column in columns:
            self.set_kind(column, "number")
            self.add(spec.Arithmetic(column, "*", float(weight)))
        return columns

    def import_transformer(self, fitted: Any, columns: Sequence[str], where: str) -> list[str]:
        """Import any transformer but a Pipeline; return its outputs, which replace the columns."""
        kind = _kind(fitted)
        columns = self.split_one_hots(columns)
        if kind in PARALLEL:
            outputs = self.import_branches(fitted, columns, where)
            self.drop(columns)
            return outputs
        if hasattr(fitted, "get_support"):
            selected = [column for column, keep in zip(columns, fitted.get_support(), strict=True) if keep]
            self.drop(column for column in columns if column not in selected)
            return selected
        if hasattr(fitted, "predict"):
            raise _refusal(where, f"expected transformers, got the model {kind}; without it: pipeline[:-1]")
        if kind not in TRANSFORMERS:
            raise _unknown(fitted, where)
        try:
            if kind in COMPARED:
                self.check_exact(columns, COMPARED[kind])
            outputs = TRANSFORMERS[kind](self, fitted, columns)
        except BadRequest as error:
            raise _refusal(where, f"{kind}: {error}") from None
        if kind in ROUNDED:
            self.rounded.update(outputs)
        return outputs

    def drop(self, columns: Iterable[str]) -> None:
        """Drop columns that are not outputs."""
        for column in columns:
            self.add(spec.Drop(column))

    def split_one_hots(self, columns: Sequence[str]) -> list[str]:
        """Return the columns, one-hot ones split into columns of zeros and ones that steps can change."""
        outputs: list[str] = []
        follows_split = False
        for column in columns:
            if column in self.one_hot:
                follows_split = True
                outputs += self.split_one_hot(column)
                continue
            if follows_split:  # new columns come last, so later ones must be made anew, too
                self.drop([column])
                self.add(spec.Pass(column))
            outputs.append(column)
        return outputs

    def split_one_hot(self, column: str) -> list[str]:
        """Replace a one-hot step by an ordinal one and a column of zeros and ones per code; return those."""
        index = self.one_hot.pop(column)
        step: Any = self.steps[index]
        state = self.states[index]
        categories, infrequent = state["categories"], state.get("infrequent", [])
        frequent = [
            category for category in categories if category is not None and category not in infrequent
        ]
        codes = [(label(category), code) for code, category in enumerate(frequent)]
        rare, missing = len(frequent), len(frequent)
        if None in categories and None not in infrequent:
            missing = rare + 1
            codes.append((label(None), missing))
        if infrequent:
            codes.append(("infrequent", rare))
        if step.drop is not None:
            codes.pop(step.drop)
        self.steps[index] = spec.Ordinal(
            column,
            step.categories,
            step.min_frequency,
            step.max_categories,
            unknown="error" if step.unknown == "error" else "value",
            unknown_value=rare if infrequent and step.unknown == "infrequent" else -1,
            missing_value=missing,
        )
        rest = [category for category in infrequent if category is not None]
        self.states[index] = {"categories": categories} | ({"infrequent": rest} if rest else {})
        outputs = [self.new_name(f"{column}_{name}") for name, _ in codes]
        for into, (_, code) in zip(outputs, codes, strict=True):
            self.add(spec.Equals(column, code, into=into))
        self.encoded.update(outputs)
        self.drop([column])
        return outputs


def _raw_columns(fitted: Any) -> list[str]:
    """Return the names of the columns that a transformer was fitted on; BadRequest if it is not fitted."""
    first = _first_fitted(fitted)
    names = getattr(first, "feature_names_in_", None)
    count = getattr(first, "n_features_in_", None)
    if count is None:
        if not (first is None or hasattr(first, "get_support") or _kind(first) in (*TRANSFORMERS, *PARALLEL)):
            raise _unknown(first, "")
        raise BadRequest(f"{_kind(fitted)}: expected a fitted transformer, got {shorten(fitted)}")
    return [f"x{index}" for index in range(count)] if names is None else [str(name) for name in names]


def _flatten(fitted: Any, where: str) -> list[tuple[str, Any]]:
    """Return the transformers of a Pipeline and of Pipelines within it, without those that change nothing."""
    if fitted is None or _is_word(fitted, "passthrough"):
        return []
    if _kind(fitted) == "FunctionTransformer" and fitted.func is None:
        return []
    if _kind(fitted) == "Pipeline":
        return [
            transformer for name, part in fitted.steps for transformer in _flatten(part, _join(where, name))
        ]
    return [(where, fitted)]


def _unknown(fitted: Any, where: str) -> BadRequest:
    supported = ", ".join([*TRANSFORMERS, *PARALLEL, "Pipeline"])
    return _refusal(
        where,
        f"{_kind(fitted)} can't be imported; those that can: {supported}, and feature selectors. "
        "`driftline convert` takes whole pipelines, with other transformers, too",
    )


def _refusal(where: str, words: str) -> BadRequest:
    return BadRequest(f"{where}: {words}" if where else words)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _first_fitted(fitted: Any) -> Any:
    """Return the transformer that was fitted on the raw columns; None if there is none.

    Of a Pipeline or FeatureUnion, scikit-learn itself uses the first entry, even 'passthrough' or 'drop'.
    """
    if fitted is None or isinstance(fitted, str):
        return None
    parts = {"Pipeline": "steps", "FeatureUnion": "transformer_list"}.get(_kind(fitted))
    if parts is None:
        return fitted
    candidates = (_first_fitted(part) for _, part in getattr(fitted, parts))
    return next((first for first in candidates if first is not None), None)


def _kind(fitted: Any) -> str:
    return type(fitted).__name__


def _is_word(fitted: Any, word: str) -> bool:
    return isinstance(fitted, str) and fitted == word
