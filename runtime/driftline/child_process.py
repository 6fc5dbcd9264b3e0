"""Child processes of this program: each has a socket to its parent, and ends when that is closed.

Such a process does work that would hold the GIL while requests wait, and yields to them where both share a
core. Parent and child see each other's counters.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

LOW_PRIORITY = 10
"""The niceness of a process that yields to requests: it gets at most a tenth of a core that they share."""

LOWEST_PRIORITY = 19
"""The niceness of a process that takes what others leave of a core: at least a sixtieth."""

HEALTHY_SECONDS = 60.0
"""A process that has lived this long was healthy: its end has nothing to do with earlier ones."""

_LENGTH = struct.Struct("=Q")
_WORD = 8


async def spawn(module: str, *shared: int) -> tuple[asyncio.subprocess.Process, socket.socket]:
    """Start `python -m MODULE END SHARED...`; return the process, and our end of a socket pair.

    By exec, not by fork: this process may have threads. OSError if the system can't start another.

    shared  descriptors that the process inherits
    """
    parent_end, child_end = socket.socketpair()
    descriptors = (child_end.fileno(), *shared)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module, *map(str, descriptors)),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=descriptors,
        )
    except BaseException:
        parent_end.close()
        raise
    finally:
        child_end.close()
    return process, parent_end


async def start(module: str, settings: Any, *shared: int) -> tuple[asyncio.subprocess.Process, socket.socket]:
    """Do the same as `spawn`, and send the settings over the socket first, where `begin` reads them."""
    # Both ends are this program, run by one user: only our own data is unpickled.
    content = pickle.dumps(settings)
    process, parent_end = await spawn(module, *shared)
    parent_end.setblocking(True)
    with suppress(ConnectionError):  # it has ended already
        parent_end.sendall(_LENGTH.pack(len(content)) + content)
    parent_end.setblocking(False)
    return process, parent_end


def deaths_in_a_row(previous: int, started: float) -> int:
    """Return how many processes died in quick succession, with one that began at `started`, by monotonic."""
    return 1 if monotonic() - started >= HEALTHY_SECONDS else previous + 1


def begin(end: int, *, idle: bool = False) -> tuple[socket.socket, Any]:
    """In such a process, first of all: return its end of the sockets, and its settings.

    Signals are handled by the parent process, so none ends this one.

    idle  see lower_priority
    """
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)
    lower_priority(idle)
    child_end = socket.socket(fileno=end)
    (length,) = _LENGTH.unpack(child_end.recv(_LENGTH.size, socket.MSG_WAITALL))
    return child_end, pickle.loads(child_end.recv(length, socket.MSG_WAITALL))  # noqa: S301 - our own


def lower_priority(idle: bool) -> None:
    """Lower this process's priority; with `idle`, run only when no other process wants to: on a core that
    others keep busy, that is less than a hundredth of the time."""
    if idle:
        with suppress(OSError):  # a sandbox's kernel may not support it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
    os.nice(LOWEST_PRIORITY if idle else LOW_PRIORITY)


class SharedCounts:
    """Counters by name in memory that two processes share; only one of them may add to each.

    names       of all counters, the same in both processes
    descriptor  of memory that `SharedCounts.new` has made
    """

    def __init__(self, names: Sequence[str], descriptor: int) -> None:
        self.descriptor = descriptor
        self._indices = {name: index for index, name in enumerate(names)}
        self._words = memoryview(mmap.mmap(descriptor, _WORD * len(names))).cast("q")

    @classmethod
    def new(cls, names: Sequence[str]) -> SharedCounts:
        """Return counters of zero."""
        descriptor = os.memfd_create("driftline-counts", 0)
        os.ftruncate(descriptor, _WORD * len(names))
        return cls(names, descriptor)

    def close(self) -> None:
        """Close the descriptor; the counts can still be read."""
        os.close(self.descriptor)

    def add(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        self._words[self._indices[name]] += number

    def __getitem__(self, name: str) -> int:
        return self._words[self._indices[name]]
