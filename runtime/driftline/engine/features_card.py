"""A transform on a card: columns are read here, and made features there, where the model finds them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from driftline.engine.device import Device
from driftline.engine.features import Features
from driftline.engine.stage import Layout, Source
from driftline.tensors import Array, Tensors

if TYPE_CHECKING:
    from driftline_kernels.transforms import Program

log = logging.getLogger("driftline.device")


class CardFeatures:
    """The stage of a model behind a transform; see Stage.

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

    def kinds(self, inputs: Tensors) -> tuple[Any, ...]:
        """Registers are always the same."""
        return ()

    def on(self, kinds: tuple[Any, ...], rows: int) -> Matrix:
        """Registers and features of so many rows."""
        return Matrix(self._device, self._features, self._program, self._there, rows)

    def here(self, inputs: Tensors) -> Tensors:
        """The model's input, made on the CPU."""
        return self._features.of_columns(inputs)

    def _send(self, array: Array) -> Any:
        there = self._device.empty(array.shape, array.dtype)
        self._device.copy_in(array, there)
        return there


class Matrix:
    """Registers and the model's input of batches of one form, in one block of the device; see Staged.

    program  that reads here, and
    there    the same, on the device
    """

    def __init__(
        self, device: Device, features: Features, program: Program, there: Program, rows: int
    ) -> None:
        self._transform = transform = features.transform
        self._program, self._there = program, there
        reads = len(program.reads)
        whole = Layout.of(
            ("registers", "matrix"),
            (np.float64, np.float32),
            ((program.registers, rows), (rows, transform.width)),
        )
        self.sent = Layout.of(("registers",), (np.float64,), ((reads, rows),))
        block = device.empty((whole.size,), np.uint8)
        self.came = block[: self.sent.size]  # the first registers, which are read
        views = whole.views(block)
        self._registers, self._matrix = views["registers"], views["matrix"]
        self.made: Mapping[str, Any] = {features.matrix: self._matrix}
        names = tuple(transform.numbers.get(source, "") for source in numbers_read(program))
        self.sources: Sequence[Source] = [Source(names, self._registers, across=True)]

    def lay(self, inputs: Tensors, block: Array, rows: int) -> None:
        """Read columns, and fill them up with the last row."""
        registers = self.sent.views(block)["registers"]
        self._transform.read(inputs, self._program, registers)
        registers[:, rows:] = registers[:, rows - 1 : rows]

    def launch(self) -> None:
        """Run the instructions on all rows, those that fill up among them."""
        from driftline_kernels import transforms as kernel

        kernel.run(self._registers, self._there, self._matrix)


def stages_of(features: Features, devices: Sequence[Device]) -> Sequence[CardFeatures | None]:
    """Of each device; None, and a line in the log says why, if features are to be made here."""
    if checked := features.transform.checked:
        log.info(
            "features are made on the CPU: only there, a category of %s that was not fitted is an error "
            "that names its row",
            ", ".join(map(repr, checked)),
        )
        return [None] * len(devices)
    return [CardFeatures(device, features) for device in devices]


def numbers_read(program: Program) -> list[int]:
    """Of each register that is read, the source that it has the numbers of; -1 for codes and hashes."""
    from driftline_kernels.transforms import NUMBERS

    return [int(source) if how == NUMBERS else -1 for how, _, source, *_ in program.reads]
