"""Columns in one block of memory: joining and slicing a hundred of them costs about as much as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = Mapping[str, Array]
"""Arrays by tensor name. BYTES tensors are object arrays of `str`."""

STRING_BYTES = 50
"""The size of a string in memory, without its characters."""


class Blocks(Mapping[str, Array]):
    """Columns of one length by name, each (rows,), with those of a datatype in one block.

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
    """Return the arrays that tensors consist of, as few as possible."""
    return tensors.blocks if type(tensors) is Blocks else tensors.values()


def size_in_bytes(tensors: Tensors) -> int:
    """Return the size of tensors in memory, including the characters of strings."""
    size = 0
    for array in arrays_of(tensors):
        size += array.nbytes
        if isinstance(array, np.ndarray) and array.dtype.hasobject:  # a column may be Arrow's
            # A column of texts may have a NaN, or anything else that a client of another server sends.
            size += sum([STRING_BYTES + (len(text) if isinstance(text, str) else 0) for text in array.flat])
    return size


def copy(tensors: Tensors) -> Tensors:
    """Copy tensors, whose memory may be overwritten or part of more; Arrow's arrays are not copied."""
    return {name: array.copy() if isinstance(array, np.ndarray) else array for name, array in tensors.items()}


def slice_rows(tensors: Tensors, start: int, stop: int) -> Tensors:
    """Return a range of the rows of tensors."""
    if type(tensors) is Blocks:
        return Blocks(tensors.names, [block[:, start:stop] for block in tensors.blocks])
    return {name: array[start:stop] for name, array in tensors.items()}


def allocate(tensors: Tensors, rows: int) -> Tensors:
    """Return uninitialised memory for this many rows like those of tensors."""
    if type(tensors) is Blocks:
        return Blocks(tensors.names, [np.empty((len(block), rows), block.dtype) for block in tensors.blocks])
    return {name: np.empty((rows, *array.shape[1:]), array.dtype) for name, array in tensors.items()}


def put(tensors: Tensors, target: Tensors, start: int, stop: int) -> bool:
    """Copy tensors to a range of rows; False if their number of rows, or the form of the target, differs."""
    if len(tensors) != len(target):
        return False
    if type(tensors) is Blocks and type(target) is Blocks and tensors.names == target.names:
        for block, section in zip(tensors.blocks, target.blocks, strict=True):
            if block.dtype != section.dtype or block.shape[1] != stop - start:
                return False
            section[:, start:stop] = block
        return True
    for name, section in target.items():
        array = tensors.get(name)
        if array is None or array.dtype != section.dtype or array.shape != (stop - start, *section.shape[1:]):
            return False
        section[start:stop] = array
    return True


def forget(tensors: Tensors, rows: int) -> None:
    """Drop the references to the texts in the first rows."""
    for array in arrays_of(tensors):
        if array.dtype.hasobject:
            section = array[:, :rows] if type(tensors) is Blocks else array[:rows]
            section[...] = None


def join(parts: Sequence[Tensors]) -> Tensors:
    """Concatenate the rows of tensors of the same names; ValueError if they differ in more than rows."""
    block_parts = [part for part in parts if type(part) is Blocks]
    if len(block_parts) == len(parts) and len({part.names for part in block_parts}) == 1:
        blocks = zip(*(part.blocks for part in block_parts), strict=True)
        return Blocks(block_parts[0].names, [np.concatenate(arrays, axis=1) for arrays in blocks])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
