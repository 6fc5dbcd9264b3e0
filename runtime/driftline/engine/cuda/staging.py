"""Copy batches from this process's memory to a model's inputs on a device."""

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
"""Every array starts at a multiple of this many bytes, as CUDA's allocations do."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The positions of arrays in one block of bytes, one after the other."""

    names: tuple[str, ...]
    dtypes: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, names: Sequence[str], dtypes: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> Layout:
        """Return the layout of arrays by name, dtype and shape."""
        dtypes = [np.dtype(dtype) for dtype in dtypes]
        sizes = [
            -(-int(np.prod(shape)) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
            for dtype, shape in zip(dtypes, shapes, strict=True)
        ]
        starts = [*accumulate(sizes, initial=0)]
        return cls(tuple(names), tuple(dtypes), tuple(shapes), tuple(starts[:-1]), max(starts[-1], ALIGNMENT))

    def views(self, block: Any) -> dict[str, Any]:
        """Return the arrays in a block of pinned or device memory, by name."""
        return {
            name: block[start : start + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
            for name, dtype, shape, start in zip(
                self.names, self.dtypes, self.shapes, self.starts, strict=True
            )
        }


@dataclass(frozen=True, slots=True)
class Source:
    """Columns of a batch on a device, where the drift counters read them.

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
    block    on the device, to which it is copied
    inputs   the model's inputs on the device, by name
    sources  columns that stay on the device until the next batch of this shape is copied
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
        """Queue on the device's stream the work that makes the model's inputs from the copied block."""


class Staging(Protocol):
    """Makes a model's inputs from a batch, on a device or on the CPU."""

    def key(self, inputs: Tensors) -> tuple[Any, ...]:
        """Return what batches must have in common, besides rows, to use the same StagedInputs."""

    def allocate(self, key: tuple[Any, ...], rows: int) -> StagedInputs | None:
        """Allocate device memory for batches of this key and `rows` rows; None if they can't be on a device.

        Called while the device is active.
        """

    def on_cpu(self, inputs: Tensors) -> Tensors:
        """Return the model's inputs, made without the device; BadRequest for a value that can't be read."""


class PlainStaging:
    """Staging for a model whose inputs are copied unchanged."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def key(self, inputs: Tensors) -> tuple[Any, ...]:
        """Return each input's name, dtype and shape of a row, whatever their order."""
        return tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(inputs.items()))

    def allocate(self, key: tuple[Any, ...], rows: int) -> PlainInputs | None:
        """See Staging; None for strings."""
        names, dtypes, row_shapes = zip(*key, strict=True)
        if any(dtype == object for dtype in dtypes):
            return None
        return PlainInputs(self._device, Layout.of(names, dtypes, [(rows, *shape) for shape in row_shapes]))

    def on_cpu(self, inputs: Tensors) -> Tensors:
        """Return the same tensors."""
        return inputs


class PlainInputs:
    """Inputs that are copied unchanged; see StagedInputs."""

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
        """Do nothing: the copied block holds the model's inputs."""


def sources_of(arrays: Mapping[str, Any]) -> list[Source]:
    """Return the columns of arrays whose first dimension is rows."""
    widths = {name: int(np.prod(array.shape[1:])) for name, array in arrays.items()}
    return [
        Source(names_of(name, widths[name]), array.reshape(array.shape[0], widths[name]))
        for name, array in arrays.items()
    ]
