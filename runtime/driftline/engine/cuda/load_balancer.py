"""One model on several GPUs: each batch goes to the GPU with the fewest batches in flight."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from driftline.engine.cuda.session import DeviceSession, OnComputed
from driftline.tensors import Tensors


class LoadBalancer:
    """Runs a model on the session with the fewest batches in flight; thread safe.

    Sessions with equally few take turns.

    sessions  one for each GPU
    """

    def __init__(self, sessions: Sequence[DeviceSession]) -> None:
        self._sessions = sessions
        self._in_flight = [0] * len(sessions)
        self._next = 0
        self._lock = Lock()

    def run(self, inputs: Tensors, outputs: Sequence[str], on_computed: OnComputed | None = None) -> Tensors:
        """Compute the named outputs of one batch; see DeviceSession.run."""
        chosen = self._choose()
        try:
            return self._sessions[chosen].run(inputs, outputs, on_computed)
        finally:
            with self._lock:
                self._in_flight[chosen] -= 1

    def _choose(self) -> int:
        """Return the index of the session for the next batch, which is counted as in flight there."""
        with self._lock:
            count = len(self._sessions)
            turns = [(self._next + step) % count for step in range(count)]
            chosen = min(turns, key=lambda index: self._in_flight[index])
            self._next = (chosen + 1) % count
            self._in_flight[chosen] += 1
            return chosen
