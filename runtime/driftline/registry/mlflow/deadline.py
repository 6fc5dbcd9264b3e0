"""A bound on a whole call: httpx knows how long nothing may come, and a server may say a byte a second."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

log = logging.getLogger("driftline.registry")

SILENT_SECONDS = 10.0
"""A call that takes longer is told of."""


class Deadline:
    """Ends a call over HTTP that takes too long, by ending its connections; says before what is waited for.

    who, what   is asked for what
    seconds     it may take
    passed      whether it has taken longer
    extensions  what httpx is given with the request
    """

    def __init__(self, who: str, what: str, seconds: float) -> None:
        self._who, self._what, self._seconds = who, what, seconds
        self.passed = False
        self.extensions = {"trace": self._trace}
        self._sockets: list[socket.socket] = []
        self._done = Event()

    def __enter__(self) -> Self:
        Thread(target=self._watch, name="driftline-deadline", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for one in self._sockets:
            one.close()

    def _trace(self, event: str, about: dict[str, Any]) -> None:
        """Keep another hold of each connection: TLS takes the first one away."""
        if event == "connection.connect_tcp.complete":
            self._sockets.append(about["return_value"].get_extra_info("socket").dup())
            if self.passed:
                self._end()

    def _watch(self) -> None:
        patience = min(SILENT_SECONDS, self._seconds)
        if self._done.wait(patience):
            return
        log.info(
            "%s has not answered in %g s: %s; it has %g s in all",
            self._who, patience, self._what, self._seconds,
        )  # fmt: skip
        if not self._done.wait(self._seconds - patience):
            self.passed = True
            self._end()

    def _end(self) -> None:
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
