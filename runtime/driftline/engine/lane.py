"""The way of a batch over a card: one copy in, the model in memory that stays where it is, one copy out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from queue import SimpleQueue
from threading import Lock
from typing import Any, Protocol

import numpy as np

from driftline.engine.device import Device
from driftline.engine.session import Binding, Session
from driftline.errors import ModelError
from driftline.tensors import Array, Tensors

log = logging.getLogger("driftline.device")

SLOTS = 2
"""Batches under way: one is copied to where the card fetches it while the other is computed."""

MOST_FORMS = 64
"""Forms of batches that have memory of their own; one of another form goes by ONNX Runtime's copies."""

_ALIGNED = 256  # bytes that every array starts at a multiple of, as CUDA's allocations do


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
            -(-int(np.prod(shape)) * dtype.itemsize // _ALIGNED) * _ALIGNED
            for dtype, shape in zip(dtypes, shapes, strict=True)
        ]
        starts = [*accumulate(sizes, initial=0)]
        return cls(tuple(names), tuple(dtypes), tuple(shapes), tuple(starts[:-1]), max(starts[-1], _ALIGNED))

    def views(self, block: Any) -> dict[str, Any]:
        """The arrays in a block, here or on a device."""
        return {
            name: block[start : start + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
            for name, dtype, shape, start in zip(
                self.names, self.dtypes, self.shapes, self.starts, strict=True
            )
        }


class Staged(Protocol):
    """Memory of a stage for batches of one form.

    sent   how what crosses is laid
    came   the block there that it comes to
    made   the model's inputs there, by name
    """

    sent: Layout
    came: Any
    made: Mapping[str, Any]

    def lay(self, inputs: Tensors, block: Array, rows: int) -> None:
        """Lay a batch of so many rows in a block here, filled up; BadRequest for what can't be read."""

    def launch(self) -> None:
        """Make the model's inputs of what came, when its turn comes."""


class Stage(Protocol):
    """Work on the device between the copy in and the model, whose inputs it makes."""

    def on(self, rows: int) -> Staged:
        """Its memory for batches of so many rows; called while the device is active."""

    def here(self, inputs: Tensors) -> Tensors:
        """The model's inputs, made without the device; BadRequest for what can't be read."""


@dataclass(frozen=True, slots=True)
class Form:
    """Batches of one form, and where they are on the device.

    rows     that are computed; a batch of fewer is filled up
    inputs, outputs          their layouts here and there
    came, goes               their blocks there
    binding  to the arrays in them
    staged   what makes the model's inputs of what came, if that is not they
    """

    rows: int
    inputs: Layout
    outputs: Layout
    came: Any
    goes: Any
    binding: Binding
    staged: Staged | None = None


class Slot:
    """Pinned memory of one batch under way; it grows to the largest."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._blocks = [device.pinned(_ALIGNED), device.pinned(_ALIGNED)]

    def block(self, which: int, size: int) -> Array:
        """So many bytes to send (0) or to receive in (1)."""
        if len(self._blocks[which]) < size:
            self._blocks[which] = self._device.pinned(size)
        return self._blocks[which][:size]


@dataclass(slots=True)
class Times:
    """What batches took on the device, in nanoseconds: copied in, computed by stage and model, copied out."""

    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


class Lane:
    """Runs a model on a device; thread safe. Batches overtake each other nowhere.

    Shapes are few: rows are filled up to the next power of two with copies of the last one, and cut again.
    What can't lie on a card, strings and maps of scores, and a batch of no rows go by ONNX Runtime's own
    copies, as does every batch of a model that turns out not to give a row for each. So does one that fails:
    only there, ONNX Runtime says whose fault it is.

    device  that it crosses to
    by_rows whether rows are independent: if not, batches go in exactly their shape
    times   what that took
    stage   what comes before the model, if anything does; to be set before the first batch
    """

    def __init__(self, device: Device, session: Session, by_rows: bool = True) -> None:
        self.times = Times()
        self.stage: Stage | None = None
        self.device = device
        self._session = session
        self._forms: dict[Any, Form | None] = {}
        self._lock = Lock()
        self._by_rows = by_rows and session.signature.batched
        self._names = tuple(spec.name for spec in session.signature.outputs)
        self._slots: SimpleQueue[Slot] = SimpleQueue()
        with device.active():
            for _ in range(SLOTS):
                self._slots.put(Slot(device))

    @property
    def forms(self) -> list[Form]:
        """The forms of batches that have come so far."""
        with self._lock:
            return [form for form in self._forms.values() if form is not None]

    def run(
        self, inputs: Tensors, outputs: Sequence[str], behind: Callable[[Form, int], object] | None = None
    ) -> Tensors:
        """Compute the named outputs of one batch.

        behind  called with the form of a batch that has crossed and its rows, when its answer is on the way
                back: what it asks of the device comes next, while inputs and outputs still lie there

        Raises BadRequest if the model refuses these inputs, ModelError if it fails.
        """
        rows = len(next(iter(inputs.values()), ())) if self._by_rows else 0
        form = self._form(inputs, outputs, rows) if rows else None
        if form is None:
            return self._beside(inputs, outputs)
        slot = self._slots.get()
        try:
            with self.device.active():
                found = self._through(form, slot, inputs, rows, behind)
        except ModelError:
            return self._beside(inputs, outputs)
        finally:
            self._slots.put(slot)
        return {name: found[name] for name in outputs}

    def _beside(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """By ONNX Runtime's own copies."""
        return self._session.run(self.stage.here(inputs) if self.stage else inputs, outputs)

    def _through(
        self,
        form: Form,
        slot: Slot,
        inputs: Tensors,
        rows: int,
        behind: Callable[[Form, int], object] | None,
    ) -> Tensors:
        device = self.device
        sent, received = slot.block(0, form.inputs.size), slot.block(1, form.outputs.size)
        if form.staged is not None:
            form.staged.lay(inputs, sent, rows)
        else:
            for name, array in form.inputs.views(sent).items():
                array[:rows] = inputs[name]
                array[rows:] = inputs[name][-1:]
        try:
            with self._lock:  # from here on, the stream is this batch's
                marks = [device.mark()]
                device.copy_in(sent, form.came)
                marks.append(device.mark())
                if form.staged is not None:
                    form.staged.launch()
                form.binding.run()
                marks.append(device.mark())
                device.copy_out(form.goes, received)
                marks.append(device.mark())
                if behind is not None:
                    behind(form, rows)
        except BaseException:
            device.wait(device.mark())  # the slot may still be read
            raise
        device.wait(marks[-1])
        spent = [device.between(*pair) for pair in pairwise(marks)]
        with self._lock:
            self.times.input_ns += spent[0]
            self.times.infer_ns += spent[1]
            self.times.output_ns += spent[2]
        return {name: array[:rows].copy() for name, array in form.outputs.views(received).items()}

    def _form(self, inputs: Tensors, wanted: Sequence[str], rows: int) -> Form | None:
        """The form of a batch, whatever the order of its tensors; None if it has none."""
        bucket = bucket_of(rows)
        outputs = tuple(name for name in self._names if name in wanted)
        kinds: tuple[Any, ...] = ()  # of what a stage makes, always the same
        if self.stage is None:
            kinds = tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(inputs.items()))
        key = bucket, kinds, outputs
        with self._lock:
            if key not in self._forms and len(self._forms) < MOST_FORMS:
                try:
                    self._forms[key] = self._make(bucket, kinds, outputs)
                except Exception as error:
                    log.warning("batches of %d rows go by ONNX Runtime's copies: %s", bucket, error)
                    self._forms[key] = None
            return self._forms.get(key) if self._by_rows else None

    def _make(self, bucket: int, kinds: tuple[Any, ...], outputs: tuple[str, ...]) -> Form | None:
        """Lay out memory for a form; one run tells the shapes of its outputs."""
        dtypes = [self._session.dtypes[name] for name in outputs]
        if not outputs or any(dtype.kind == "O" for dtype in (*dtypes, *(kind[1] for kind in kinds))):
            return None
        device = self.device
        with device.active():
            staged = self.stage.on(bucket) if self.stage is not None else None
            if staged is not None:
                given, came = staged.sent, staged.came
            else:
                names, types, rest = zip(*kinds, strict=True)
                given = Layout.of(names, types, [(bucket, *shape) for shape in rest])
                came = device.empty((given.size,), np.uint8)
            binding = self._session.bind()
            device.copy_in(np.zeros(given.size, np.uint8), came)
            if staged is not None:
                staged.launch()  # which compiles it
            where = device.memory, device.index
            for name, array in (staged.made if staged is not None else given.views(came)).items():
                binding.place(name, where, array, device.address(array))
            try:
                shapes = binding.shapes(outputs)
            except ModelError:  # not for zeros, say
                return None
            if any(shape[:1] != (bucket,) for shape in shapes):
                self._by_rows = False
                return None
            made = Layout.of(outputs, dtypes, shapes)
            goes = device.empty((made.size,), np.uint8)
            for name, array in made.views(goes).items():
                binding.give(name, where, array, device.address(array))
        return Form(bucket, given, made, came, goes, binding, staged)


def bucket_of(rows: int) -> int:
    """The next power of two."""
    return 1 << (rows - 1).bit_length()
