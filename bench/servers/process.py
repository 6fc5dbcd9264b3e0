"""A server and all processes that it starts: what they take of the machine, and that none is left."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from bench.common import Process, running

GRACE_SECONDS, GLANCE_SECONDS, SETTLE_SECONDS = 3.0, 0.5, 120.0
PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """Become the parent of processes whose own has ended: so their CPU time is known to be ours."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


class Family:
    """A running server and its descendants."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._head = psutil.Process(process.popen.pid)

    def members(self) -> list[psutil.Process]:
        """All that are there now."""
        with suppress(psutil.NoSuchProcess):
            return [self._head, *self._head.children(recursive=True)]
        return []

    def cpu_seconds(self) -> float:
        """The CPU time that those have had so far."""
        total = 0.0
        for member in self.members():
            with suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                total += times.user + times.system
        return total

    def settle(self) -> None:
        """Wait until it is all there: what it still loads in the background takes a core, or half of one."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(GLANCE_SECONDS)
            if self.cpu_seconds() - before < GLANCE_SECONDS / 2:
                return

    def memory(self) -> dict[str, float]:
        """Megabytes: `rss_mb` counts what processes share as often as it is mapped, `pss_mb` once."""
        rss = pss = 0
        for member in self.members():
            with suppress(psutil.NoSuchProcess):
                full = member.memory_full_info()
                rss, pss = rss + full.rss, pss + full.pss
        return {"rss_mb": rss / 1e6, "pss_mb": pss / 1e6}


@contextmanager
def family(command: Sequence[str], env: dict[str, str]) -> Iterator[Family]:
    """A server that is ended with all its descendants, those that it leaves behind, too."""
    members: list[psutil.Process] = []
    try:
        with running(command, env) as process:
            started = Family(process)
            try:
                yield started
            finally:
                members = started.members()[1:]
    finally:
        _end(members)


def _end(members: list[psutil.Process]) -> None:
    """Wait for processes to end by themselves, then kill them."""
    _, alive = psutil.wait_procs(members, timeout=GRACE_SECONDS)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            alive += member.children(recursive=True)
            member.kill()
    psutil.wait_procs(alive, timeout=GRACE_SECONDS)
