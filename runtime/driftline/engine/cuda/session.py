"""A model on a device: one copy in, one run on preallocated memory, one copy out."""

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

from driftline.engine.cuda.device import Device
from driftline.engine.cuda.staging import (
    ALIGNMENT,
    Layout,
    PlainStaging,
    Source,
    StagedInputs,
    Staging,
    sources_of,
)
from driftline.engine.session import UNRECORDED, Binding, Session
from driftline.errors import BadRequest, ModelError
from driftline.tensors import Array, Tensors

log = logging.getLogger("driftline.device")

Result = TypeVar("Result")

MAX_IN_FLIGHT = 2
"""Batches in flight on a device: one is written to pinned memory while the other is computed."""

MAX_SHAPES = 64
"""Shapes of batches that have device memory of their own; ONNX Runtime copies batches of any other shape."""


@dataclass(frozen=True, slots=True)
class DeviceBuffers:
    """Device memory for batches of one shape.

    device        that has the memory
    rows          that are computed; batches of fewer rows are padded
    inputs        the block that is copied in, and the model's inputs
    output_layout of the outputs, in
    output_block  which is copied out
    binding       of the model's inputs and outputs to this memory
    """

    device: Device
    rows: int
    inputs: StagedInputs
    output_layout: Layout
    output_block: Any
    binding: Binding

    @property
    def sources(self) -> list[Source]:
        """All columns in this memory, inputs and outputs, of the last batch that was computed."""
        return [*self.inputs.sources, *sources_of(self.output_layout.views(self.output_block))]


OnComputed = Callable[[DeviceBuffers, int], object]
"""Called with the buffers of a batch and its number of rows once its copy out is queued on the stream. Work
that it queues runs next, before another batch overwrites the columns."""


class PinnedBuffers:
    """Pinned memory of one batch in flight, which grows to the largest batch; and marks between stages."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._blocks = [device.pinned(ALIGNMENT), device.pinned(ALIGNMENT)]
        self.marks: list[Any] = [None] * 4

    def mark(self, stage: int) -> None:
        """Mark the point in the stream where a stage (0 to 3) has ended."""
        self.marks[stage] = self._device.mark(self.marks[stage])

    def block(self, index: int, size: int) -> Array:
        """Return a block of `size` bytes, to send from (0) or to receive in (1)."""
        if len(self._blocks[index]) < size:
            self._blocks[index] = self._device.pinned(size)
        return self._blocks[index][:size]

    def close(self) -> None:
        """Free the memory."""
        self._blocks.clear()
        self.marks.clear()


@dataclass(slots=True)
class Times:
    """Nanoseconds that batches took on the device: copied in, computed by staging and model, copied out."""

    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


class DeviceSession:
    """Runs a model on a device; thread safe. Batches are computed in the order of their arrival.

    Batches are padded to a bucket with copies of the last row, so that there are few shapes; the results of
    the padding are cut off. ONNX Runtime copies the batches that can't be computed this way itself: strings,
    maps of scores, empty batches, all batches of a model that does not return a row for each or whose first
    nodes run on the CPU, and batches that have failed, since only ONNX Runtime's own run tells whether the
    request or the model is at fault.

    With CUDA graphs, a shape is recorded when it first occurs. ONNX Runtime keeps a recording with the thread
    that made it, so one thread does all runs. Scratch memory is part of the recording, so nothing else of the
    session is on the stream between a batch and its outputs.

    device   that the model runs on
    session  of ONNX Runtime
    by_rows  whether rows are independent; if not, ONNX Runtime gets batches in exactly their shape
    buckets  see bucket_of
    staging  makes the model's inputs; None: they are copied unchanged
    times    that batches took so far
    failure  why nothing can be computed any more, "" if it can; see Device.failure
    """

    def __init__(
        self,
        device: Device,
        session: Session,
        by_rows: bool = True,
        buckets: Sequence[int] = (),
        staging: Staging | None = None,
    ) -> None:
        self.times = Times()
        self.failure = ""
        self.device = device
        self._session = session
        self._staging: Staging = staging or PlainStaging(device)
        self._buffers: dict[Any, DeviceBuffers | None] = {}
        self._allocating = Lock()  # a thread that has a device active never waits for it
        self._lock = Lock()  # the stream's
        # All runs of a session on the device's stream share ONNX Runtime's handles of that stream.
        reads_device = session.reads(device.memory)
        shares_stream = session.graphs or reads_device
        self._fallback_lock: AbstractContextManager[Any] = self._lock if shares_stream else nullcontext()
        self._recording = session.graphs
        self._thread = ThreadPoolExecutor(1, "gpu") if session.graphs else None
        self._by_rows = by_rows and session.signature.batched
        if self._by_rows and not reads_device:
            log.info(
                "%s: a model starts on the CPU, or does not read an input: ONNX Runtime copies its batches",
                device.name,
            )
            self._by_rows = False
        self._buckets = buckets
        self._names = tuple(spec.name for spec in session.signature.outputs)
        self._free: SimpleQueue[PinnedBuffers | None] = SimpleQueue()  # None: closed
        self._closed = False
        self._on_close: list[Callable[[], object]] = []
        with device.active():
            for _ in range(MAX_IN_FLIGHT):
                self._free.put(PinnedBuffers(device))

    @property
    def buffers(self) -> list[DeviceBuffers]:
        """The buffers of all shapes so far."""
        with self._allocating:
            return [each for each in self._buffers.values() if each is not None]

    def run(self, inputs: Tensors, outputs: Sequence[str], on_computed: OnComputed | None = None) -> Tensors:
        """Compute the named outputs of one batch.

        on_computed  called if the batch was computed in this session's device memory; see OnComputed

        Raises BadRequest if the model refuses these inputs, ModelError if it fails or the session is closed.
        """
        rows = len(next(iter(inputs.values()), ())) if self._by_rows else 0
        buffers = self._buffers_for(inputs, outputs, rows) if rows else None
        if buffers is None:
            return self._run_copied(inputs, outputs)
        pinned = self._take_pinned()
        try:
            with self.device.active():
                results = self._run_in(buffers, pinned, inputs, rows, on_computed)
        except BadRequest:
            raise
        except Exception as error:
            if not isinstance(error, ModelError):
                log.warning("ONNX Runtime copies a batch of %d rows: %s", rows, error)
            return self._run_copied(inputs, outputs)
        finally:
            self._free.put(pinned)
        return {name: results[name] for name in outputs}

    def close(self) -> None:
        """Wait for batches in flight, then free the session, device memory and pinned memory.

        In this order, since a session must end before its stream.
        """
        with self._allocating:
            if self._closed:
                return
            self._closed = True
        all_pinned = [self._free.get() for _ in range(MAX_IN_FLIGHT)]
        self._free.put(None)
        if self._thread is not None:
            self._thread.shutdown()
        with self._allocating, self.device.active(), self._lock:
            for callback in self._on_close:
                callback()
            self._on_close.clear()
            while self._buffers:
                _, buffers = self._buffers.popitem()
                if buffers is not None:
                    buffers.binding.close()
                del buffers  # so that the last one is freed, too, before memory is given back
            self._staging = PlainStaging(self.device)  # it has no device memory
            self._session.close()
            for pinned in all_pinned:
                assert pinned is not None
                pinned.close()
        self.device.give_back()

    def on_close(self, callback: Callable[[], object]) -> None:
        """Register a callback for close, to free device memory; ModelError if the session is closed."""
        with self._allocating:
            if self._closed:
                raise ModelError("the model is closed")
            self._on_close.append(callback)

    def _run_copied(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Let ONNX Runtime copy a batch to the device and back."""
        if self._closed:
            raise ModelError("the model is closed")
        inputs = self._staging.on_cpu(inputs)
        try:
            with self.device.active(), self._fallback_lock:
                return self._in_thread(lambda: self._session.run(inputs, outputs))
        except BadRequest:
            raise
        except Exception as error:  # the model's, or CUDA's own
            self.failure = self.failure or self.device.failure()
            raise ModelError(self.failure or str(error)) from error

    def _take_pinned(self) -> PinnedBuffers:
        """Return pinned memory that no other batch uses; ModelError once the session is closed."""
        pinned = self._free.get()
        if pinned is None:
            self._free.put(None)
            raise ModelError("the model is closed")
        return pinned

    def _run_in(
        self,
        buffers: DeviceBuffers,
        pinned: PinnedBuffers,
        inputs: Tensors,
        rows: int,
        on_computed: OnComputed | None,
    ) -> Tensors:
        """Copy a batch in, compute it, copy its outputs out, and wait for them."""
        device, staged = self.device, buffers.inputs
        sent = pinned.block(0, staged.layout.size)
        received = pinned.block(1, buffers.output_layout.size)
        staged.fill(inputs, sent, rows)
        try:
            with self._lock:  # from here on, the stream is this batch's
                pinned.mark(0)
                device.copy_in(sent, staged.block)
                pinned.mark(1)
                staged.launch()
                self._in_thread(buffers.binding.run)
                pinned.mark(2)
                device.copy_out(buffers.output_block, received)
                pinned.mark(3)
                if on_computed is not None:
                    on_computed(buffers, rows)
        except BaseException:
            device.wait(device.mark())  # the pinned memory may still be read
            raise
        device.wait(pinned.marks[3])
        durations = [device.between(*pair) for pair in pairwise(pinned.marks)]
        with self._lock:
            self.times.input_ns += durations[0]
            self.times.infer_ns += durations[1]
            self.times.output_ns += durations[2]
        return {name: array[:rows].copy() for name, array in buffers.output_layout.views(received).items()}

    def _buffers_for(self, inputs: Tensors, wanted: Sequence[str], rows: int) -> DeviceBuffers | None:
        """Return the buffers for a batch, whatever the order of its tensors; None if there are none."""
        bucket = bucket_of(rows, self._buckets)
        outputs = tuple(name for name in self._names if name in wanted)
        input_key = self._staging.key(inputs)
        key = bucket, input_key, outputs
        with self._allocating:
            if key not in self._buffers and len(self._buffers) < MAX_SHAPES and not self._closed:
                try:
                    self._buffers[key] = self._allocate(bucket, input_key, outputs)
                except Exception as error:
                    log.warning("ONNX Runtime copies batches of %d rows: %s", bucket, error)
                    self._buffers[key] = None
            return self._buffers.get(key) if self._by_rows else None

    def _in_thread(self, work: Callable[[], Result]) -> Result:
        """Run work of the session, in its one thread if it has CUDA graphs."""
        return work() if self._thread is None else self._thread.submit(work).result()

    def _record(self, binding: Binding, graph: int) -> None:
        """Record a run of a binding as a CUDA graph; if that fails, no others are recorded."""
        binding.record(graph)
        try:
            with self.device.exclusive() as acquired:
                if acquired:
                    self._in_thread(binding.run)
                else:
                    binding.record(UNRECORDED)
        except ModelError as error:
            log.warning("%s goes on without CUDA graphs: %s", self.device.name, error)
            self._recording = False
            binding.record(UNRECORDED)

    def _allocate(
        self, bucket: int, input_key: tuple[Any, ...], outputs: tuple[str, ...]
    ) -> DeviceBuffers | None:
        """Allocate device memory for a shape of batches; one run determines the shapes of the outputs.

        Returns None if outputs can't be there: strings, maps of scores, or outputs without a row for each.
        """
        dtypes = [self._session.dtypes[name] for name in outputs]
        if not outputs or any(dtype == object for dtype in dtypes):
            return None
        device = self.device
        with device.active(), self._lock:
            staged = self._staging.allocate(input_key, bucket)
            if staged is None:
                return None
            zeros = np.zeros(staged.layout.size, np.uint8)  # alive until the run has ended
            device.copy_in(zeros, staged.block)
            staged.launch()
            placement, binding = (device.memory, device.index), self._session.bind()
            for name, array in staged.inputs.items():
                binding.bind_input(name, placement, array, device.address(array))
            try:
                shapes = self._in_thread(lambda: binding.shapes(outputs))
            except ModelError:  # zeros may be invalid input
                return None
            if any(shape[:1] != (bucket,) for shape in shapes):
                self._by_rows = False
                return None
            layout = Layout.of(outputs, dtypes, shapes)
            block = device.empty((layout.size,), np.uint8)
            for name, array in layout.views(block).items():
                binding.bind_output(name, placement, array, device.address(array))
        if self._recording:
            self._record(binding, len(self._buffers) + 1)
        return DeviceBuffers(device, bucket, staged, layout, block, binding)


def bucket_of(rows: int, buckets: Sequence[int] = ()) -> int:
    """Return the smallest of ascending `buckets` that holds the rows; if none does, the next power of two."""
    return next((bucket for bucket in buckets if bucket >= rows), 1 << (rows - 1).bit_length())
