"""From a batch in this process's memory to a model's inputs on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from driftline.columns import names_of
from driftline.engine.cuda.device import Device
from driftline.tensors import Array, Tensors

ALIGNMENT = 256
"""Every array starts at a multiple of so many bytes, as CUDA's allocations do."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where arrays lie in one block of bytes, one after the other."""

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
            -(-int(np.prod(shape)) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
            for dtype, shape in zip(dtypes, shapes, strict=True)
        ]
        starts = [*accumulate(sizes, initial=0)]
        return cls(tuple(names), tuple(dtypes), tuple(shapes), tuple(starts[:-1]), max(starts[-1], ALIGNMENT))

    def views(self, block: Any) -> dict[str, Any]:
        """The arrays in a block of pinned memory or of a device, by name."""
        return {
            name: block[start : start + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
            for name, dtype, shape, start in zip(
                self.names, self.dtypes, self.shapes, self.starts, strict=True
            )
        }


@dataclass(frozen=True, slots=True)
class Source:
    """Columns of a batch that lie on a device; the drift counters read them there.

    names       of the columns
    array       (rows, columns) on the device, or (columns, rows) if `transposed`
    transposed  whether a column is contiguous
    """

    names: tuple[str, ...]
    array: Any
    transposed: bool = False


class StagedInputs(Protocol):
    """Device memory for the inputs of batches of one shape.

    layout   of the block that is copied to the device
    block    on the device, which it is copied to
    inputs   the model's inputs on the device, by name
    sources  columns that lie on the device until the next batch of this shape is copied
    """

    layout: Layout
    block: Any
    inputs: Mapping[str, Any]
    sources: Sequence[Source]

    def fill(self, inputs: Tensors, block: Array, rows: int) -> None:
        """Write a batch of `rows` rows into a block of pinned memory, and repeat its last row up to the end.

        Raises BadRequest for a value that can't be read.
        """

    def launch(self) -> None:
        """Queue on the device's stream what makes the model's inputs of the copied block."""


class Staging(Protocol):
    """Makes a model's inputs of a batch, on a device or on the CPU."""

    def key(self, inputs: Tensors) -> tuple[Any, ...]:
        """What batches must have in common, besides rows, to use the same StagedInputs."""

    def allocate(self, key: tuple[Any, ...], rows: int) -> StagedInputs | None:
        """Device memory for batches of a key and so many rows; None if they can't lie on a device.

        Called while the device is active.
        """

    def on_cpu(self, inputs: Tensors) -> Tensors:
        """The model's inputs, made without the device; BadRequest for a value that can't be read."""


class PlainStaging:
    """For a model whose inputs are copied as they are."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def key(self, inputs: Tensors) -> tuple[Any, ...]:
        """Each input's name, dtype and shape of a row, whatever their order."""
        return tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(inputs.items()))

    def allocate(self, key: tuple[Any, ...], rows: int) -> PlainInputs | None:
        """See Staging; None for strings."""
        names, dtypes, row_shapes = zip(*key, strict=True)
        if any(dtype == object for dtype in dtypes):
            return None
        return PlainInputs(self._device, Layout.of(names, dtypes, [(rows, *shape) for shape in row_shapes]))

    def on_cpu(self, inputs: Tensors) -> Tensors:
        """The same tensors."""
        return inputs


class PlainInputs:
    """Inputs that are copied as they are; see StagedInputs."""

    def __init__(self, device: Device, layout: Layout) -> None:
        self.layout = layout
        self.block = device.empty((layout.size,), np.uint8)
        self.inputs: Mapping[str, Any] = layout.views(self.block)
        self.sources: Sequence[Source] = sources_of(self.inputs)

    def fill(self, inputs: Tensors, block: Array, rows: int) -> None:
        """See StagedInputs."""
        for name, array in self.layout.views(block).items():
            array[:rows] = inputs[name]
            array[rows:] = inputs[name][-1:]

    def launch(self) -> None:
        """Nothing to do: what was copied is what the model takes."""


def sources_of(arrays: Mapping[str, Any]) -> list[Source]:
    """The columns of arrays whose first dimension is rows."""
    widths = {name: int(np.prod(array.shape[1:])) for name, array in arrays.items()}
    return [
        Source(names_of(name, widths[name]), array.reshape(array.shape[0], widths[name]))
        for name, array in arrays.items()
    ]
