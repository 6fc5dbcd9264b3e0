"""What comes before a model on a device: how a batch is laid to cross, and what of it lies there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from driftline.columns import names_of
from driftline.engine.device import Device
from driftline.tensors import Array, Tensors

ALIGNED = 256
"""Bytes that every array starts at a multiple of, as CUDA's allocations do."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Some arrays one behind the other in one block of bytes."""

    names: tuple[str, ...]
    dtypes: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, names: Sequence[str], dtypes: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> Layout:
        """The layout of arrays by name, dtype and shape."""
        dtypes = [np.dtype(dtype) for dtype in dtypes]
        sizes = [
            -(-int(np.prod(shape)) * dtype.itemsize // ALIGNED) * ALIGNED
            for dtype, shape in zip(dtypes, shapes, strict=True)
        ]
        starts = [*accumulate(sizes, initial=0)]
        return cls(tuple(names), tuple(dtypes), tuple(shapes), tuple(starts[:-1]), max(starts[-1], ALIGNED))

    def views(self, block: Any) -> dict[str, Any]:
        """The arrays in a block, here or on a device."""
        return {
            name: block[start : start + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
            for name, dtype, shape, start in zip(
                self.names, self.dtypes, self.shapes, self.starts, strict=True
            )
        }


@dataclass(frozen=True, slots=True)
class Source:
    """Columns of a batch that lie on a device.

    names   of the columns
    array   (rows, columns) there, or with `across` (columns, rows)
    """

    names: tuple[str, ...]
    array: Any
    across: bool = False


class Staged(Protocol):
    """Batches of one form, from here to the model's inputs there.

    sent     how what crosses is laid
    came     the block there that it comes to
    made     the model's inputs there, by name
    sources  what was sent, until the next batch of the form crosses
    """

    sent: Layout
    came: Any
    made: Mapping[str, Any]
    sources: Sequence[Source]

    def lay(self, inputs: Tensors, block: Array, rows: int) -> None:
        """Lay a batch of so many rows in a block here, filled up; BadRequest for what can't be read."""

    def launch(self) -> None:
        """Make the model's inputs of what came, when its turn comes."""


class Stage(Protocol):
    """What makes a model's inputs of a batch."""

    def kinds(self, inputs: Tensors) -> tuple[Any, ...]:
        """What a form of batches hangs on besides rows."""

    def on(self, kinds: tuple[Any, ...], rows: int) -> Staged | None:
        """Memory for a form, while the device is active; None if it can't lie there."""

    def here(self, inputs: Tensors) -> Tensors:
        """The model's inputs, made without the device; BadRequest for what can't be read."""


class Straight:
    """The stage of a model whose inputs cross as they are."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def kinds(self, inputs: Tensors) -> tuple[Any, ...]:
        """Each input's name, dtype and row, whatever their order."""
        return tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(inputs.items()))

    def on(self, kinds: tuple[Any, ...], rows: int) -> Crossed | None:
        """None for strings."""
        names, dtypes, rest = zip(*kinds, strict=True)
        if any(dtype == object for dtype in dtypes):
            return None
        return Crossed(self._device, Layout.of(names, dtypes, [(rows, *shape) for shape in rest]))

    def here(self, inputs: Tensors) -> Tensors:
        """They are the model's."""
        return inputs


class Crossed:
    """Inputs of one form, as they are; see Staged."""

    def __init__(self, device: Device, sent: Layout) -> None:
        self.sent = sent
        self.came = device.empty((sent.size,), np.uint8)
        self.made: Mapping[str, Any] = sent.views(self.came)
        self.sources: Sequence[Source] = sources_of(self.made)

    def lay(self, inputs: Tensors, block: Array, rows: int) -> None:
        """Copy them, and the last row as often as there is room."""
        for name, array in self.sent.views(block).items():
            array[:rows] = inputs[name]
            array[rows:] = inputs[name][-1:]

    def launch(self) -> None:
        """They are made."""


def sources_of(arrays: Mapping[str, Any]) -> list[Source]:
    """The columns of arrays whose first dimension is rows."""
    widths = {name: int(np.prod(array.shape[1:])) for name, array in arrays.items()}
    return [
        Source(names_of(name, widths[name]), array.reshape(array.shape[0], widths[name]))
        for name, array in arrays.items()
    ]
