"""A time limit for a whole call: httpx limits only silence, and a server may send a byte a second."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

log = logging.getLogger("driftline.registry")

SILENT_SECONDS = 10.0
"""A call that takes longer is logged."""


class Deadline:
    """Aborts an HTTP call that takes too long by closing its connections; logs slow calls before that.

    server, request  the server and the request
    seconds          limit of the call's duration
    passed           whether the limit has passed
    extensions       passed to httpx with the request
    """

    def __init__(self, server: str, request: str, seconds: float) -> None:
        self._server, self._request, self._seconds = server, request, seconds
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
        for connection in self._sockets:
            connection.close()

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """Duplicate the socket of each connection: TLS takes over the original."""
        if event == "connection.connect_tcp.complete":
            self._sockets.append(info["return_value"].get_extra_info("socket").dup())
            if self.passed:
                self._abort()

    def _watch(self) -> None:
        patience = min(SILENT_SECONDS, self._seconds)
        if self._done.wait(patience):
            return
        log.info(
            "%s has not answered in %g s: %s; the limit is %g s",
            self._server, patience, self._request, self._seconds,
        )  # fmt: skip
        if not self._done.wait(self._seconds - patience):
            self.passed = True
            self._abort()

    def _abort(self) -> None:
        for connection in list(self._sockets):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
