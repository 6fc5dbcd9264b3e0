"""Reads rows that are JSON objects of numbers into one matrix, with a kernel that `numbers.load` loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from driftline.protocols import numbers
from driftline.protocols.numbers import Unread, ready
from driftline.tensors import Array

_SKIPPED_TEXTS = 16
"""After a template could not even read its own rows, none is made from this many texts."""

_MAX_TEMPLATES = 4
"""The most templates that are kept: each client may write its rows in another way."""


class Objects:
    """Reads rows that are objects of numbers by name.

    A client writes its names in one order and one style, so the text between the numbers is parsed once.

    names  of the numbers, in the order of the matrix
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._indices = {name: index for index, name in enumerate(names)}
        self._min_row_length = sum(len(name) + 5 for name in names)  # with quotes, colon, digit and comma
        self._templates: list[Any] = []  # the newest first
        self._to_skip = 0  # texts to skip before another template is made, since the last one failed

    def read(self, text: bytes, start: int, stop: int) -> Array:
        """Read the rows in text[start:stop], comma-separated: (rows, names) float64; Unread for others."""
        if not ready(text):
            raise Unread
        kernel = numbers.object_kernel
        values = np.empty(((stop - start) // self._min_row_length + 1, len(self._indices)))
        for template in self._templates:
            if (rows := kernel.read(text, start, stop, template, values)) > 0:
                return values[:rows]
        if self._to_skip > 0:
            self._to_skip -= 1
            raise Unread
        self._to_skip = _SKIPPED_TEXTS
        template = self._template_of(text[start : text.find(b"}", start, stop) + 1])
        if (rows := kernel.read(text, start, stop, template, values)) <= 0:
            raise Unread
        self._to_skip = 0
        self._templates = [template, *self._templates[: _MAX_TEMPLATES - 1]]
        return values[:rows]

    def read_rows(self, rows: Sequence[bytes]) -> Array:
        """Read the row in each of several texts in the same way; Unread if one of them is anything else."""
        text = b",".join(rows)
        matrix = self.read(text, 0, len(text))
        if len(matrix) != len(rows):
            raise Unread
        return matrix

    def _template_of(self, row: bytes) -> Any:
        """Return the likely template of rows that are written like this one; Unread if it is no such row."""
        try:
            names = list(orjson.loads(row))
        except (orjson.JSONDecodeError, TypeError):
            raise Unread from None
        if len(names) != len(self._indices) or set(names) != self._indices.keys():
            raise Unread
        space = b" " if b'": ' in row else b""
        separator = b"," + space
        prefixes = [b"%b%b:%b" % (separator, orjson.dumps(name), space) for name in names]
        prefixes[0] = b"{" + prefixes[0][len(separator) :]
        return numbers.object_kernel.build_template(prefixes, [self._indices[name] for name in names])
