"""Find the raw columns that steps need, and check that the steps fit together."""

from __future__ import annotations

from collections.abc import Sequence

from driftline.errors import BadRequest
from driftline.features import spec
from driftline.features.raw import Input

NUMERIC = (
    *(spec.Standardise, spec.MinMax, spec.Robust, spec.Clip, spec.Log1p, spec.Power, spec.Bucketise),
    *(spec.Quantile, spec.Arithmetic, spec.Linear, spec.Piecewise, spec.Cyclic),
)


def inputs_of(steps: Sequence[spec.Step]) -> tuple[Input, ...]:
    """Return the raw columns of steps, in the order in which they are read; kind '' if only data can tell.

    Raises BadRequest with the step's index if a step reads a column that a later one makes, as in any cycle,
    if it makes a column that exists already, or if it needs another kind of a column than an earlier step.
    """
    kinds: dict[str, str] = {}
    on_error: dict[str, str] = {}
    maker_of = {step.makes: index for index, step in enumerate(steps) if step.makes not in step.reads}
    outputs: set[str] = set()
    for index, step in enumerate(steps):
        where = f"steps[{index}]: {step.name}"
        for column in step.reads:
            if column in outputs:
                continue
            if maker_of.get(column, -1) > index:
                raise BadRequest(
                    f"{where} reads {column!r}, which steps[{maker_of[column]}] makes only later"
                )
            kind = kind_needed(step)
            if kind and kinds.get(column, "") not in ("", kind):
                raise BadRequest(f"{where} expected {column!r} to be a {kind}, it is a {kinds[column]}")
            kinds[column] = kind or kinds.get(column, "")
            if isinstance(step, spec.Read):
                on_error[column] = step.on_error
        if isinstance(step, (spec.Read, spec.Drop)):
            continue
        if step.makes not in step.reads and (step.makes in outputs or step.makes in kinds):
            raise BadRequest(f"{where} makes {step.makes!r}, which exists already")
        outputs.update(_outputs_of(step))
    if not kinds:
        raise BadRequest("steps: expected at least one step")
    return tuple(Input(name, kind, on_error.get(name, "raise")) for name, kind in kinds.items())


def kind_needed(step: spec.Step) -> str:
    """Return the kind that a raw column must have for a step; '' for any."""
    if isinstance(step, spec.Read):
        return step.kind or ""
    if isinstance(step, spec.DatePart):
        return "datetime"
    if isinstance(step, spec.Hash):
        return "string"
    if isinstance(step, spec.Impute):
        if step.using == "constant":
            return "string" if isinstance(step.value, str) else "number"
        return "" if step.using == "most_frequent" else "number"
    if isinstance(step, spec.Equals):
        return "string" if isinstance(step.value, str) else "number"
    if isinstance(step, spec.Encoding) and step.categories:
        present = [category for category in step.categories if category is not None]
        return ("string" if isinstance(present[0], str) else "number") if present else ""
    return "number" if isinstance(step, NUMERIC) else ""


def _outputs_of(step: spec.Step) -> set[str]:
    if isinstance(step, spec.Cyclic):
        return {step.makes, f"{step.makes}_sin", f"{step.makes}_cos"}
    if isinstance(step, spec.Impute) and step.indicator:
        return {step.makes, f"{step.makes}_missing"}
    return {step.makes}
