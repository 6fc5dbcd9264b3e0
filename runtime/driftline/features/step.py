"""The base classes of steps: columns, form in a file, checks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_type_hints

from driftline.errors import BadRequest
from driftline.features.hints import fits, plain, words_for
from driftline.tensors import shorten

Category = str | int | float | bool | None
"""One value of a categorical column; None is missing."""


@dataclass(frozen=True, slots=True)
class Step:
    """An operation on a column, or on each of several.

    into  the name of the column that it makes; None: the result replaces the column that it reads
    """

    name: ClassVar[str] = ""

    column: str | Sequence[str]
    into: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for argument in dataclasses.fields(self):
            value = plain(getattr(self, argument.name))
            object.__setattr__(self, argument.name, value)
            expected = _hints(kind)[argument.name]
            if not fits(value, expected):
                raise BadRequest(
                    f"{self.name}: {argument.name}: expected {words_for(expected)}, got {shorten(value)}"
                )
        self.check()

    def check(self) -> None:
        """Raise BadRequest if values of the right types are invalid, or don't fit together."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return (self.column,) if isinstance(self.column, str) else tuple(self.column)

    @property
    def makes(self) -> str:
        """The column that it makes."""
        return self.into if self.into is not None else self.reads[0]

    def each(self) -> Iterator[Step]:
        """Yield this step for each of its columns."""
        if isinstance(self.column, str):
            yield self
        elif self.into is not None:
            raise BadRequest(f"{self.name}: into: expected one column to go with it, got {list(self.column)}")
        else:
            for column in self.column:
                yield dataclasses.replace(self, column=column)

    def to_dict(self) -> dict[str, Any]:
        """Return the step's entry in a file: the values that are not the defaults."""
        entry: dict[str, Any] = {"step": self.name}
        for argument in dataclasses.fields(self):
            value = getattr(self, argument.name)
            if value != argument.default:
                entry[argument.name] = list(value) if isinstance(value, tuple) else value
        return entry

    def refuse(self, key: str, expected: str) -> BadRequest:
        """Return the error for a value that is not as expected."""
        return BadRequest(f"{self.name}: {key}: expected {expected}, got {shorten(getattr(self, key))}")


@dataclass(frozen=True, slots=True)
class Encoding(Step):
    """An encoding of categories, strings or numbers: those given, else those seen, sorted; None is missing.

    Those seen less often than `min_frequency` (a count, or a share of the rows), and the rarest beyond
    `max_categories`, are grouped as one category, as in scikit-learn.
    """

    categories: Sequence[Category] | None = None
    min_frequency: int | float | None = None
    max_categories: int | None = None

    def check(self) -> None:
        """Raise BadRequest if a category is given more than once."""
        if self.categories is not None and len(set(map(repr, self.categories))) < len(self.categories):
            raise self.refuse("categories", "each category once")


@functools.cache
def _hints(step: Any) -> dict[str, Any]:
    return get_type_hints(step)
