"""The way of a batch over a card: one copy in, the model in memory that stays where it is, one copy out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from queue import SimpleQueue
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from driftline.engine.device import Device
from driftline.engine.session import UNRECORDED, Binding, Session
from driftline.engine.stage import ALIGNED, Layout, Source, Stage, Staged, Straight, sources_of
from driftline.errors import BadRequest, ModelError
from driftline.tensors import Array, Tensors

log = logging.getLogger("driftline.device")

Answer = TypeVar("Answer")

SLOTS = 2
"""Batches under way: one is copied to where the card fetches it while the other is computed."""

MOST_FORMS = 64
"""Forms of batches that have memory of their own; one of another form goes by ONNX Runtime's copies."""


@dataclass(frozen=True, slots=True)
class Form:
    """Batches of one form, and where they are on a device.

    device   that it is
    rows     that are computed; a batch of fewer is filled up
    staged   how they come to the model
    outputs  how these are laid, and
    goes     their block there
    binding  to the arrays of both
    """

    device: Device
    rows: int
    staged: Staged
    outputs: Layout
    goes: Any
    binding: Binding

    @property
    def sources(self) -> list[Source]:
        """All columns that lie there, of the last batch that has crossed."""
        return [*self.staged.sources, *sources_of(self.outputs.views(self.goes))]


Behind = Callable[[Form, int], object]
"""Called with the form of a batch that has crossed and its rows, when its answer is on the way back: what it
asks of the device comes next, while all columns still lie there."""


class Slot:
    """Pinned memory of one batch under way, which grows to the largest; and the marks between its stages."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._blocks = [device.pinned(ALIGNED), device.pinned(ALIGNED)]
        self.marks: list[Any] = [None] * 4

    def mark(self, which: int) -> None:
        """Mark the point in the stream behind a stage."""
        self.marks[which] = self._device.mark(self.marks[which])

    def block(self, which: int, size: int) -> Array:
        """So many bytes to send (0) or to receive in (1)."""
        if len(self._blocks[which]) < size:
            self._blocks[which] = self._device.pinned(size)
        return self._blocks[which][:size]

    def close(self) -> None:
        """Let go of the memory."""
        self._blocks.clear()
        self.marks.clear()


@dataclass(slots=True)
class Times:
    """What batches took on the device, in nanoseconds: copied in, computed by stage and model, copied out."""

    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


class Lane:
    """Runs a model on a device; thread safe. Batches overtake each other nowhere.

    Shapes are few: rows are filled up to a bucket with copies of the last one, and cut again.
    What can't lie on a card, strings and maps of scores, and a batch of no rows go by ONNX Runtime's own
    copies, as does every batch of a model that turns out not to give a row for each, or whose first nodes the
    CPU computes. So does one that fails: only there, ONNX Runtime says whose fault it is.

    With CUDA graphs, a form is recorded when it comes first. ONNX Runtime keeps what is recorded with the
    thread that ran it, so one thread asks for all runs; and scratch memory is part of it, so nothing else of
    the session is on the stream between a batch and its answer.

    device  that it crosses to
    by_rows whether rows are independent: if not, batches go in exactly their shape
    buckets see bucket_of
    stage   what makes the model's inputs; of those that cross as they are if None
    times   what that took
    lost    why nothing can be computed any more, "" if it can; see Device.lost
    """

    def __init__(
        self,
        device: Device,
        session: Session,
        by_rows: bool = True,
        buckets: Sequence[int] = (),
        stage: Stage | None = None,
    ) -> None:
        self.times = Times()
        self.lost = ""
        self.device = device
        self._session = session
        self._stage: Stage = stage or Straight(device)
        self._forms: dict[Any, Form | None] = {}
        self._making = Lock()  # of forms; who has a device active never waits for it
        self._lock = Lock()  # the stream's
        # Of a session on the device's stream, all runs share ONNX Runtime's handles of that stream.
        reads = session.reads(device.memory)
        shares = session.graphs or reads
        self._beside_lock: AbstractContextManager[Any] = self._lock if shares else nullcontext()
        self._recording = session.graphs
        self._thread = ThreadPoolExecutor(1, "card") if session.graphs else None
        self._by_rows = by_rows and session.signature.batched
        if self._by_rows and not reads:
            log.info(
                "%s: a model begins on the CPU, or does not read an input: ONNX Runtime copies its batches",
                device.name,
            )
            self._by_rows = False
        self._buckets = buckets
        self._names = tuple(spec.name for spec in session.signature.outputs)
        self._slots: SimpleQueue[Slot | None] = SimpleQueue()
        self._closed = False
        self._kept: list[Callable[[], object]] = []
        with device.active():
            for _ in range(SLOTS):
                self._slots.put(Slot(device))

    @property
    def forms(self) -> list[Form]:
        """The forms of batches that have come so far."""
        with self._making:
            return [form for form in self._forms.values() if form is not None]

    def run(self, inputs: Tensors, outputs: Sequence[str], behind: Behind | None = None) -> Tensors:
        """Compute the named outputs of one batch; `behind` is told if it crossed.

        Raises BadRequest if the model refuses these inputs, ModelError if it fails or the lane is closed.
        """
        rows = len(next(iter(inputs.values()), ())) if self._by_rows else 0
        form = self._form(inputs, outputs, rows) if rows else None
        if form is None:
            return self._beside(inputs, outputs)
        slot = self._slot()
        try:
            with self.device.active():
                found = self._through(form, slot, inputs, rows, behind)
        except BadRequest:
            raise
        except Exception as error:
            if not isinstance(error, ModelError):
                log.warning("a batch of %d rows goes by ONNX Runtime's copies: %s", rows, error)
            return self._beside(inputs, outputs)
        finally:
            self._slots.put(slot)
        return {name: found[name] for name in outputs}

    def close(self) -> None:
        """Wait for what is under way, then let go of the session, of what lies on the device and of pinned
        memory, in this order: a session ends before its stream."""
        with self._making:
            if self._closed:
                return
            self._closed = True
        slots = [self._slots.get() for _ in range(SLOTS)]
        self._slots.put(None)
        if self._thread is not None:
            self._thread.shutdown()
        with self._making, self.device.active(), self._lock:
            for let_go in self._kept:
                let_go()
            self._kept.clear()
            while self._forms:
                _, form = self._forms.popitem()
                if form is not None:
                    form.binding.close()
                del form  # the last one has gone, too, when memory is given back
            self._stage = Straight(self.device)  # which has nothing there
            self._session.close()
            for slot in slots:
                assert slot is not None
                slot.close()
        self.device.give_back()

    def keep(self, let_go: Callable[[], object]) -> None:
        """Have this called when the lane is closed, to let go of what lies there; ModelError if it is."""
        with self._making:
            if self._closed:
                raise ModelError("the model is closed")
            self._kept.append(let_go)

    def _beside(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """By ONNX Runtime's own copies."""
        if self._closed:
            raise ModelError("the model is closed")
        inputs = self._stage.here(inputs)
        try:
            with self.device.active(), self._beside_lock:
                return self._ask(lambda: self._session.run(inputs, outputs))
        except BadRequest:
            raise
        except Exception as error:  # the model's, or CUDA's own
            self.lost = self.lost or self.device.lost()
            raise ModelError(self.lost or str(error)) from error

    def _slot(self) -> Slot:
        """One that no other batch has; ModelError when there will be none any more."""
        slot = self._slots.get()
        if slot is None:
            self._slots.put(None)
            raise ModelError("the model is closed")
        return slot

    def _through(self, form: Form, slot: Slot, inputs: Tensors, rows: int, behind: Behind | None) -> Tensors:
        device, staged = self.device, form.staged
        sent, received = slot.block(0, staged.sent.size), slot.block(1, form.outputs.size)
        staged.lay(inputs, sent, rows)
        try:
            with self._lock:  # from here on, the stream is this batch's
                slot.mark(0)
                device.copy_in(sent, staged.came)
                slot.mark(1)
                staged.launch()
                self._ask(form.binding.run)
                slot.mark(2)
                device.copy_out(form.goes, received)
                slot.mark(3)
                if behind is not None:
                    behind(form, rows)
        except BaseException:
            device.wait(device.mark())  # the slot may still be read
            raise
        device.wait(slot.marks[3])
        spent = [device.between(*pair) for pair in pairwise(slot.marks)]
        with self._lock:
            self.times.input_ns += spent[0]
            self.times.infer_ns += spent[1]
            self.times.output_ns += spent[2]
        return {name: array[:rows].copy() for name, array in form.outputs.views(received).items()}

    def _form(self, inputs: Tensors, wanted: Sequence[str], rows: int) -> Form | None:
        """The form of a batch, whatever the order of its tensors; None if it has none."""
        bucket = bucket_of(rows, self._buckets)
        outputs = tuple(name for name in self._names if name in wanted)
        kinds = self._stage.kinds(inputs)
        key = bucket, kinds, outputs
        with self._making:
            if key not in self._forms and len(self._forms) < MOST_FORMS and not self._closed:
                try:
                    self._forms[key] = self._make(bucket, kinds, outputs)
                except Exception as error:
                    log.warning("batches of %d rows go by ONNX Runtime's copies: %s", bucket, error)
                    self._forms[key] = None
            return self._forms.get(key) if self._by_rows else None

    def _ask(self, work: Callable[[], Answer]) -> Answer:
        """Ask the session for some work."""
        return work() if self._thread is None else self._thread.submit(work).result()

    def _record(self, binding: Binding, graph: int) -> None:
        """Keep the work of a binding as a graph; if that can't be done, nothing is any more."""
        binding.record(graph)
        try:
            with self.device.alone() as free:
                if free:
                    self._ask(binding.run)
                else:
                    binding.record(UNRECORDED)
        except ModelError as error:
            log.warning("%s goes on without CUDA graphs: %s", self.device.name, error)
            self._recording = False
            binding.record(UNRECORDED)

    def _make(self, bucket: int, kinds: tuple[Any, ...], outputs: tuple[str, ...]) -> Form | None:
        """Lay out memory for a form; one run tells the shapes of its outputs."""
        dtypes = [self._session.dtypes[name] for name in outputs]
        if not outputs or any(dtype == object for dtype in dtypes):
            return None
        device = self.device
        with device.active(), self._lock:
            staged = self._stage.on(kinds, bucket)
            if staged is None:
                return None
            device.copy_in(np.zeros(staged.sent.size, np.uint8), staged.came)
            staged.launch()
            where, binding = (device.memory, device.index), self._session.bind()
            for name, array in staged.made.items():
                binding.place(name, where, array, device.address(array))
            try:
                shapes = self._ask(lambda: binding.shapes(outputs))
            except ModelError:  # not for zeros, say
                return None
            if any(shape[:1] != (bucket,) for shape in shapes):
                self._by_rows = False
                return None
            made = Layout.of(outputs, dtypes, shapes)
            goes = device.empty((made.size,), np.uint8)
            for name, array in made.views(goes).items():
                binding.give(name, where, array, device.address(array))
        if self._recording:
            self._record(binding, len(self._forms) + 1)
        return Form(device, bucket, staged, made, goes, binding)


def bucket_of(rows: int, buckets: Sequence[int] = ()) -> int:
    """The smallest of ascending `buckets` that holds so many rows; if none does, the next power of two."""
    return next((bucket for bucket in buckets if bucket >= rows), 1 << (rows - 1).bit_length())
