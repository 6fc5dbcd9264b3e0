"""Parse rows that are JSON objects of numbers, with the same names in the same order, into a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline_kernels.decimals import word
from driftline_kernels.device import driver
from driftline_kernels.memory import FLOAT64, address_of, load
from driftline_kernels.numbers import UNKNOWN, read_number

_CLOSE, _COMMA, _SPACE = b"}, "


class Template(NamedTuple):
    """The text before each number of a row.

    sizes    (columns,) int64; the number of characters
    first    (columns + 1,) int64; the index of the first word
    words    (words,) uint64; the characters, eight to a word, the last padded with zeros
    masks    (words,) uint64; the bits of the words that are characters
    targets  (columns,) int64; the column of the matrix that each number goes to
    """

    sizes: NDArray[np.int64]
    first: NDArray[np.int64]
    words: NDArray[np.uint64]
    masks: NDArray[np.uint64]
    targets: NDArray[np.int64]


def build_template(prefixes: Sequence[bytes], targets: Sequence[int]) -> Template:
    """Return the template of a row with these texts before its numbers."""
    lengths = [-(-len(text) // 8) for text in prefixes]

    def words(texts: Sequence[bytes]) -> NDArray[np.uint64]:
        padded = [text.ljust(8 * length, b"\0") for text, length in zip(texts, lengths, strict=True)]
        return np.frombuffer(b"".join(padded), np.uint64)

    return Template(
        np.array([len(text) for text in prefixes], np.int64),
        np.cumsum([0, *lengths]),
        words(prefixes),
        words([b"\xff" * len(text) for text in prefixes]),
        np.array(targets, np.int64),
    )


def read(text: bytes, start: int, stop: int, template: Template, out: NDArray[np.float64]) -> int:
    """Read rows, separated by a comma and perhaps a space, from text[start:stop].

    out  (rows, columns) float64, with as many rows as there may be; written in part if the text can't be read

    Returns the number of rows; or UNKNOWN for anything else, and for a number that is hard to round.
    """
    return int(_read(text, start, stop, *template, out.reshape(-1).view(np.uint8)))


@driver
def _read(
    text: Any, start: int, stop: int, sizes: Any, first: Any, words: Any, masks: Any, targets: Any, out: Any
) -> int:
    base, target = address_of(text), address_of(out)
    last, end, cursor = base + len(text) - 8, base + stop, base + start
    columns = len(sizes)
    if len(text) < 8:
        return UNKNOWN
    for row in range(len(out) // (8 * columns)):
        for column in range(columns):
            if cursor + sizes[column] >= end:
                return UNKNOWN
            for k in range(first[column], first[column + 1]):
                if (word(cursor + 8 * (k - first[column]), last) ^ words[k]) & masks[k]:
                    return UNKNOWN
            index = row * columns + targets[column]
            cursor = read_number(cursor + sizes[column], last, target, index, FLOAT64)
            if cursor <= 0:
                return UNKNOWN
        if cursor >= end or load(cursor, np.uint8) != _CLOSE:
            return UNKNOWN
        cursor += 1
        if cursor == end:
            return row + 1
        if load(cursor, np.uint8) != _COMMA:
            return UNKNOWN
        cursor += 1
        cursor += int(load(cursor, np.uint8) == _SPACE)
    return UNKNOWN
