"""Check a step's arguments, given in Python or in a file, against its type annotations."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any, Literal


def plain(value: Any) -> Any:
    """Convert scalars, arrays and indexes of numpy and pandas to plain Python; lists become tuples."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value


def fits(value: object, hint: Any) -> bool:
    """Return whether a value is of an annotated type; an int is a float, a bool is neither."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin is Sequence:
        return isinstance(value, tuple) and all(fits(item, arguments[0]) for item in value)
    if hint is float:
        return type(value) is int or (type(value) is float and value - value == 0)
    return type(value) is hint


def words_for(hint: Any) -> str:
    """Describe a type for an error message."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(words_for, arguments))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is Sequence:
        return f"a list of {words_for(arguments[0])}"
    return {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}.get(
        hint, "nothing"
    )
