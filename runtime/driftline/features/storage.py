"""transform.json: steps and their fitted states."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from driftline.errors import BadRequest
from driftline.features import spec
from driftline.features.program import State
from driftline.features.raw import WORDS, Input
from driftline.files import replacing
from driftline.tensors import shorten

FORMAT = "driftline transform"
VERSION = 1
"""The version of the format: raised when older versions of driftline can't read new files."""

Loaded = TypeVar("Loaded")

_STATE_TYPES: dict[str, dict[str, Any]] = {
    "impute": {"value": (int, float, str)},
    "standardise": {"mean": float, "deviation": float},
    "min_max": {"least": float, "most": float},
    "robust": {"median": float, "range": float},
    "bucketise": {"edges": [float]},
    "quantile": {"quantiles": [float]},
    "ordinal": {"categories": list},
    "one_hot": {"categories": list},
    "frequency": {"categories": list, "shares": [float]},
    "target_mean": {"categories": list, "means": [float], "overall": float},
}
"""The values that each step's state must have, and their types."""


def save(path: Path, document: dict[str, Any]) -> None:
    """Write a document atomically; BadRequest if it can't be written."""
    try:
        with replacing(path) as new:
            new.write_text(text_of(document), encoding="utf-8")
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from error


def text_of(document: dict[str, Any]) -> str:
    """Return a document as JSON, one value a line; Python writes floats exactly."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load(path: Path, read: Callable[[Any], Loaded]) -> Loaded:
    """Read a document; BadRequest names the file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadRequest(f"{path}: expected a transform, there is no such file") from None
    except (OSError, ValueError, RecursionError) as error:  # it may be nested too deeply for Python
        raise BadRequest(f"{path}: expected a transform in JSON: {error}") from None
    try:
        return read(document)
    except BadRequest as error:
        raise BadRequest(f"{path}: {error}") from None


def to_dict(inputs: Sequence[Input], steps: Sequence[spec.Step], states: Sequence[State]) -> dict[str, Any]:
    """Return the document of a fitted transform."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "inputs": [
            {"name": field.name, "kind": field.kind}
            | ({"on_error": field.on_error} if field.on_error != "raise" else {})
            for field in inputs
        ],
        "steps": [
            step.to_dict() | ({"fitted": state} if state else {})
            for step, state in zip(steps, states, strict=True)
        ],
    }


def from_dict(document: Any) -> tuple[list[Input], list[spec.Step], list[State]]:
    """Return inputs, steps and states; BadRequest names the place of an error."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadRequest(f"format: expected {FORMAT!r}, got {shorten(document)}")
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise BadRequest(f"version: expected {VERSION} at most, got {shorten(version)}: it is newer")
    inputs = [_input(entry, f"inputs[{index}]") for index, entry in enumerate(_list(document, "inputs"))]
    steps, states = [], []
    for index, entry in enumerate(_list(document, "steps")):
        step = _step(entry, f"steps[{index}]")
        steps.append(step)
        states.append(_state(step, entry.get("fitted", {}), f"steps[{index}].fitted"))
    return inputs, steps, states


def _list(document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list) or not value:
        raise BadRequest(f"{key}: expected a list, got {shorten(value)}")
    return value


def _input(entry: Any, where: str) -> Input:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise BadRequest(f"{where}: expected a name and a kind, got {shorten(entry)}")
    kind, on_error = entry.get("kind"), entry.get("on_error", "raise")
    if type(kind) is not str or kind not in WORDS or on_error not in ("raise", "missing"):
        raise BadRequest(f"{where}: expected a kind of {', '.join(WORDS)}, got {shorten(entry)}")
    return Input(entry["name"], kind, on_error)


def _step(entry: Any, where: str) -> spec.Step:
    """Return the step of an entry that `Step.to_dict` returned; `place` is its position, for messages.

    Raises BadRequest for an unknown step, an unknown key, or a value that doesn't fit.
    """
    name = entry.get("step") if isinstance(entry, dict) else entry
    if not isinstance(entry, dict) or type(name) is not str or name not in spec.STEPS:
        raise BadRequest(f"{where}: step: expected one of {', '.join(spec.STEPS)}, got {shorten(name)}")
    step_class = spec.STEPS[name]
    arguments = {field.name for field in dataclasses.fields(step_class)}
    values = {key: value for key, value in entry.items() if key not in ("step", "fitted")}
    unknown = sorted(set(values) - arguments)
    if unknown or "column" not in values:
        problem = f"got {shorten(unknown[0])}" if unknown else "'column' is missing"
        raise BadRequest(f"{where}: expected {', '.join(sorted(arguments))}, {problem}")
    try:
        step = step_class(**values)
        if list(step.each()) != [step]:
            raise BadRequest(f"column: expected one, got {shorten(step.column)}")
    except BadRequest as error:
        raise BadRequest(f"{where}: {error}") from None
    return step


def _state(step: spec.Step, entry: Any, where: str) -> State:
    if not isinstance(entry, dict):
        raise BadRequest(f"{where}: expected what was fitted by name, got {shorten(entry)}")
    state: State = dict(entry)
    for key, kind in _STATE_TYPES.get(step.name, {}).items():
        if not _has_type(state.get(key), kind):
            raise BadRequest(f"{where}.{key}: expected {_describe(kind)}, got {shorten(state.get(key))}")
    for key in ("categories", "infrequent"):
        if key in state:
            state[key] = _categories(state[key], f"{where}.{key}")
    for key in ("shares", "means"):
        if key in state and len(state[key]) != len(state["categories"]):
            raise BadRequest(f"{where}.{key}: expected one for each category, got {len(state[key])}")
    quantiles = state.get("quantiles", [0, 1])
    if len(quantiles) < 2 or quantiles != sorted(quantiles):
        raise BadRequest(f"{where}.quantiles: expected 2 or more, ascending, got {shorten(quantiles)}")
    edges = state.get("edges", [])
    if any(low >= high for low, high in itertools.pairwise(edges)):
        raise BadRequest(f"{where}.edges: expected ascending numbers, got {shorten(edges)}")
    return state


def _categories(values: Any, where: str) -> list[Any]:
    if not isinstance(values, list):
        raise BadRequest(f"{where}: expected a list, got {shorten(values)}")
    categories = [tuple(value) if isinstance(value, list) else value for value in values]
    for index, category in enumerate(categories):
        parts = category if isinstance(category, tuple) else (category,)
        if not all(part is None or isinstance(part, (str, bool)) or _has_type(part, float) for part in parts):
            raise BadRequest(f"{where}[{index}]: expected text or a number, got {shorten(category)}")
    if len(set(categories)) < len(categories) or None in categories[:-1]:
        raise BadRequest(f"{where}: expected each category once, null last, got {shorten(values)}")
    return categories


def _has_type(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and all(_has_type(item, kind[0]) for item in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return isinstance(value, kind) and not isinstance(value, bool)


def _describe(kind: Any) -> str:
    if isinstance(kind, list):
        return "a list of numbers"
    return "a number or text" if isinstance(kind, tuple) else {float: "a number", list: "a list"}[kind]
