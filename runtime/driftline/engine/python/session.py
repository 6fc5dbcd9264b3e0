"""Models that are Python code: MLflow's pyfuncs, each in a process of its own."""

from __future__ import annotations

import logging
import math
import sys
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

from driftline.backoff import backoff
from driftline.config import Engine
from driftline.engine.model import zeros
from driftline.engine.python.process import Died, PythonProcess
from driftline.engine.python.signature import infer_outputs, logged_signature, match, signature_of
from driftline.errors import ModelError, Unavailable
from driftline.machine import available_memory
from driftline.mlmodel import Predictions
from driftline.tensors import Tensors

log = logging.getLogger("driftline.python")


class PythonSession:
    """An MLflow model's folder, run by one process for each instance; with the interface of Session.

    A process that dies is restarted: at once after its first death, then with growing delays, until it has
    answered. The request that it was running gets ModelError; one during a delay gets Unavailable.

    predictions  the form of the last predictions, once there are some

    Raises ModelError if the model can't be loaded or does not declare its inputs.
    """

    classes: Mapping[str, tuple[int | str, ...]] = {}
    """None of its outputs are maps of scores."""
    predictions: Predictions | None = None

    def __init__(self, folder: Path, settings: Engine) -> None:
        logged = logged_signature(folder)
        python = settings.python or sys.executable
        memory_bytes = settings.memory_on(available_memory())
        self._slots = [Slot(python, folder, memory_bytes) for _ in range(settings.instances)]
        self._free: SimpleQueue[Slot] = SimpleQueue()
        self._finalizer = weakref.finalize(self, _close, self._slots)
        try:
            for slot in self._slots:
                slot.wait_ready()
                self._free.put(slot)
            outputs = None
            if not logged.outputs:
                inputs = signature_of(logged, (), folder).inputs
                outputs = infer_outputs(self._ask({spec.name: zeros(spec, 1) for spec in inputs}), folder)
            self.signature = signature_of(logged, outputs, folder)
        except BaseException:
            self._finalizer()
            raise

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Compute the named outputs.

        Raises BadRequest if the model refuses these inputs, ModelError if it fails or its process dies,
        Unavailable if it keeps dying.
        """
        results = match(self._ask(inputs), self.signature.outputs)
        return {name: results[name] for name in outputs}

    def close(self) -> None:
        """End its processes; later runs raise ModelError."""
        self._finalizer()

    def _ask(self, inputs: Tensors) -> Tensors:
        slot = self._free.get()
        try:
            form, predictions = slot.ask(inputs)
        finally:
            self._free.put(slot)
        self.predictions = Predictions(form, tuple(predictions))
        return predictions


class Slot:
    """Runs one process, and its successors. Used by one thread at a time."""

    def __init__(self, python: str, folder: Path, memory_bytes: int) -> None:
        self._start = partial(PythonProcess, python, folder, memory_bytes)
        self._closed = False
        self._deaths = 0
        self._not_before = 0.0
        self._process: PythonProcess | None = self._start()

    def wait_ready(self) -> None:
        """Wait until its first process has loaded the model; Died if it can't."""
        assert self._process is not None
        self._process.wait_ready()

    def ask(self, inputs: Tensors) -> tuple[str, Tensors]:
        """Return the current process's response; see PythonProcess.ask."""
        if self._process is not None and self._process.is_dead():
            self._discard()
        if self._process is None:
            self._restart()
        assert self._process is not None
        try:
            answer = self._process.ask(inputs)
        except Died as error:
            self._discard()
            if self._deaths == 1:
                self._restart()  # it loads while no request waits for it yet
            log.error("%s; it is started again", error)
            raise ModelError(f"{error}; it is started again") from error
        self._deaths = 0
        return answer

    def close(self) -> None:
        """End its process for good."""
        self._closed = True
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _discard(self) -> None:
        self._kill()
        self._deaths += 1
        self._not_before = monotonic() + backoff(self._deaths - 1)

    def _restart(self) -> None:
        if self._closed:
            raise ModelError("the model is closed")
        remaining = self._not_before - monotonic()
        if remaining > 0:
            raise Unavailable(
                f"the model's process has died {self._deaths} times in a row; "
                f"it is started again in {remaining:.0f} s",
                math.ceil(remaining),
            )
        self._process = self._start()


def _close(slots: list[Slot]) -> None:
    for slot in slots:
        slot.close()
