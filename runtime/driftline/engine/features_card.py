"""A transform on a card: columns are read here, and made features there, where the model finds them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from driftline.engine.device import Device
from driftline.engine.features import Features
from driftline.engine.lane import Layout
from driftline.tensors import Array, Tensors

if TYPE_CHECKING:
    from driftline.features.transform import Transform
    from driftline_kernels.transforms import Program

log = logging.getLogger("driftline.device")


class CardFeatures:
    """The stage of a lane that runs a transform's instructions; see lane.Stage.

    What needs this process's memory stays here: strings become codes or hashes, dates are parsed, numbers of
    any type become float64. These registers cross in one copy, column by column, and stay as they came.
    """

    def __init__(self, device: Device, features: Features) -> None:
        from driftline.features.program import reads_first  # as in Features.of

        self._device = device
        self._features = features
        self._program = program = reads_first(features.transform.program)
        with device.active():
            self._there = program._replace(
                code=self._send(program.code), parameters=self._send(program.parameters)
            )

    @classmethod
    def of(cls, device: Device, features: Features) -> Self | None:
        """The stage of a transform; None, and a line in the log says why, for one that stays on the CPU."""
        if checked := features.transform.checked:
            log.info(
                "features are made on the CPU: only there, a category of %s that was not fitted is an error "
                "that names its row",
                ", ".join(map(repr, checked)),
            )
            return None
        return cls(device, features)

    def on(self, rows: int) -> Matrix:
        """Its memory for batches of so many rows; called while the device is active."""
        return Matrix(self._device, self._features, (self._program, self._there), rows)

    def here(self, inputs: Tensors) -> Tensors:
        """The model's input, made on the CPU."""
        return self._features.of_columns(inputs)

    def _send(self, array: Array) -> Any:
        there = self._device.empty(array.shape, array.dtype)
        self._device.copy_in(array, there)
        return there


class Matrix:
    """Registers and the model's input of batches of one form, in one block of the device; see lane.Staged.

    programs  that reads here, and that runs there
    """

    def __init__(
        self, device: Device, features: Features, programs: tuple[Program, Program], rows: int
    ) -> None:
        transform: Transform = features.transform
        self._transform = transform
        self._program, self._there = programs
        registers = self._program.registers
        whole = Layout.of(
            ("registers", "matrix"), (np.float64, np.float32), ((registers, rows), (rows, transform.width))
        )
        self.sent = Layout.of(("registers",), (np.float64,), ((len(self._program.reads), rows),))
        block = device.empty((whole.size,), np.uint8)
        self.came = block[: self.sent.size]  # the first registers, which are read
        views = whole.views(block)
        self._registers, self._matrix = views["registers"], views["matrix"]
        self.made = {features.matrix: self._matrix}

    def lay(self, inputs: Tensors, block: Array, rows: int) -> None:
        """Read columns into pinned memory, and fill it up with the last row."""
        registers = self.sent.views(block)["registers"]
        self._transform.read(inputs, self._program, registers)
        registers[:, rows:] = registers[:, rows - 1 : rows]

    def launch(self) -> None:
        """Run the instructions on all rows, those that fill up among them."""
        from driftline_kernels import transforms as kernel

        kernel.run(self._registers, self._there, self._matrix)
