"""Columns that lie together: joining and cutting them costs about the same for a hundred as for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = Mapping[str, Array]
"""Arrays by tensor name. BYTES tensors are object arrays of `str`."""


class Table(Mapping[str, Array]):
    """Columns of one length by name, each (rows,), those of a datatype in one block.

    names   of the columns, in the order of the blocks
    blocks  (columns, rows) arrays
    """

    def __init__(self, names: tuple[str, ...], blocks: Sequence[Array]) -> None:
        self.names = names
        self.blocks = blocks
        self.rows = int(blocks[0].shape[1])

    @cached_property
    def _columns(self) -> dict[str, Array]:
        return dict(zip(self.names, chain.from_iterable(self.blocks), strict=True))

    def __getitem__(self, name: str) -> Array:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def arrays_of(tensors: Tensors) -> Iterable[Array]:
    """What tensors consist of, in as few arrays as that is."""
    return tensors.blocks if type(tensors) is Table else tensors.values()


def cut(tensors: Tensors, start: int, stop: int) -> Tensors:
    """A range of the rows of tensors."""
    if type(tensors) is Table:
        return Table(tensors.names, [block[:, start:stop] for block in tensors.blocks])
    return {name: array[start:stop] for name, array in tensors.items()}


def join(parts: Sequence[Tensors]) -> Tensors:
    """Tensors of the same names below each other; ValueError if they differ in more than rows."""
    tables = [part for part in parts if type(part) is Table]
    if len(tables) == len(parts) and len({table.names for table in tables}) == 1:
        blocks = zip(*(table.blocks for table in tables), strict=True)
        return Table(tables[0].names, [np.concatenate(alike, axis=1) for alike in blocks])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
