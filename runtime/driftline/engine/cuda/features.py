"""A transform on a device: the CPU reads raw columns, and the device computes the model's features."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from driftline.engine.cuda.device import Device
from driftline.engine.cuda.staging import Layout, Source
from driftline.engine.features import Features
from driftline.tensors import Array, Tensors

if TYPE_CHECKING:
    from driftline_kernels.transforms import Program

log = logging.getLogger("driftline.device")


class FeatureStaging:
    """Staging for a model behind a transform; see Staging.

    The CPU does what needs this process's memory: strings become codes or hashes, dates are parsed, numbers
    of any type become float64. These registers are copied in one block, column by column, and the device
    computes features from them.
    """

    def __init__(self, device: Device, features: Features) -> None:
        from driftline.features.program import reads_first  # as in Features.of

        self._device = device
        self._features = features
        self._program = program = reads_first(features.transform.program)
        with device.active():
            self._device_program = program._replace(
                code=self._send(program.code), parameters=self._send(program.parameters)
            )

    def key(self, inputs: Tensors) -> tuple[Any, ...]:
        """Return an empty key: registers are the same for all batches."""
        return ()

    def allocate(self, key: tuple[Any, ...], rows: int) -> FeatureInputs:
        """See Staging."""
        return FeatureInputs(self._device, self._features, self._program, self._device_program, rows)

    def on_cpu(self, inputs: Tensors) -> Tensors:
        """Return the model's input, computed on the CPU."""
        return self._features.apply(inputs)

    def _send(self, array: Array) -> Any:
        """Return a copy of an array on the device."""
        copy = self._device.empty(array.shape, array.dtype)
        self._device.copy_in(array, copy)
        return copy


class FeatureInputs:
    """Registers and the model's input of batches of one shape, in one block of the device; see StagedInputs.

    program         whose reads run on the CPU
    device_program  the same program in device memory, whose instructions run there
    """

    def __init__(
        self, device: Device, features: Features, program: Program, device_program: Program, rows: int
    ) -> None:
        self._transform = transform = features.transform
        self._program, self._device_program = program, device_program
        block_layout = Layout.of(
            ("registers", "matrix"),
            (np.float64, np.float32),
            ((program.registers, rows), (rows, transform.width)),
        )
        self.layout = Layout.of(("registers",), (np.float64,), ((len(program.reads), rows),))
        block = device.empty((block_layout.size,), np.uint8)
        self.block = block[: self.layout.size]  # the first registers, those that are read
        views = block_layout.views(block)
        self._registers, self._matrix = views["registers"], views["matrix"]
        self.inputs: Mapping[str, Any] = {features.matrix: self._matrix}
        names = tuple(transform.numbers.get(source, "") for source in numbers_read(program))
        self.sources: Sequence[Source] = [Source(names, self._registers, transposed=True)]

    def fill(self, inputs: Tensors, block: Array, rows: int) -> None:
        """See StagedInputs."""
        registers = self.layout.views(block)["registers"]
        self._transform.read(inputs, self._program, registers)
        registers[:, rows:] = registers[:, rows - 1 : rows]

    def launch(self) -> None:
        """Queue the program's instructions for all rows, the repeated ones included."""
        from driftline_kernels import transforms as kernel

        kernel.run(self._registers, self._device_program, self._matrix)


def stagings_of(features: Features, devices: Sequence[Device]) -> Sequence[FeatureStaging | None]:
    """Return one for each device; None for each, and log why, if only the CPU can make the features."""
    if checked := features.transform.checked:
        log.info(
            "features are computed on the CPU: only there, an unknown category of %s is an error that names "
            "its row",
            ", ".join(map(repr, checked)),
        )
        return [None] * len(devices)
    return [FeatureStaging(device, features) for device in devices]


def numbers_read(program: Program) -> list[int]:
    """Return the index of the source of each register that is read; -1 for codes and hashes."""
    from driftline_kernels.transforms import NUMBERS

    return [int(source) if kind == NUMBERS else -1 for kind, _, source, *_ in program.reads]
