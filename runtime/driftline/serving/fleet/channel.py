"""Messages between the supervisor and a worker, over a socket pair; some expect a response.

Messages are pickled: both ends are this program, of one user, on one machine, and started as a pair.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from driftline.errors import DriftlineError, Unavailable

log = logging.getLogger("driftline.fleet")

_HEAD = struct.Struct("=Q")
_ANSWER, _ERROR, _CANCEL = "answer", "error", "cancel"

Handlers = Mapping[str, Callable[..., Any]]
"""Message names to what is called for them; a coroutine function if the response takes time."""


class Gone(Unavailable):
    """The other process has ended or closed the connection."""


class Channel:
    """One end of the connection.

    end       a connected socket, which the channel closes
    handlers  called for each message, in the order of arrival
    received  number of messages received
    """

    def __init__(self, end: socket.socket, handlers: Handlers) -> None:
        self._end = end
        self._handlers = handlers
        self.received = 0
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: dict[object, asyncio.Task[None]] = {}
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._closed = False

    async def open(self) -> None:
        """Make the channel ready to send."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._end)

    async def run(self) -> None:
        """Handle messages until the other side closes."""
        try:
            while True:
                (length,) = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                content = await self._reader.readexactly(length)
                self.received += 1
                self._handle(*pickle.loads(content))  # noqa: S301 - our own
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception:
            log.exception("a message can't be handled: the channel closes, and the worker ends")
        finally:
            self.close()

    def close(self) -> None:
        """Stop sending and handling messages; pending calls of `ask` raise Gone."""
        self._closed = True
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Gone("the other process has gone"))
        for task in self._answering.values():
            task.cancel()
        self._writer.close()

    async def finish(self) -> None:
        """Close, and wait until all that was sent is written."""
        self.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    def tell(self, name: str, *arguments: object) -> None:
        """Send a message, without waiting for a response."""
        self._send(0, name, arguments)

    async def ask(self, name: str, *arguments: object) -> Any:
        """Send a message and return the response; raise what its handler raises, Gone without a response."""
        return await self._ask(next(self._numbers), name, arguments)

    async def ask_cancellable(self, name: str, *arguments: object) -> Any:
        """As `ask`; if it is cancelled, so is its handler on the other side."""
        number = next(self._numbers)
        try:
            return await self._ask(number, name, arguments)
        except asyncio.CancelledError:
            self._send(number, _CANCEL, None)
            raise

    async def _ask(self, number: int, name: str, arguments: object) -> Any:
        if self._closed:
            raise Gone("the other process has gone")
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(number, name, arguments)
            return await asked
        finally:
            del self._asked[number]

    def _send(self, number: int, name: str, arguments: object) -> None:
        if not self._closed:
            content = pickle.dumps((number, name, arguments))
            self._writer.write(_HEAD.pack(len(content)) + content)

    def _handle(self, number: int, name: str, arguments: Any) -> None:
        """Handle one message; `number` identifies a request, 0 if no response is wanted."""
        if name in (_ANSWER, _ERROR):
            asked = self._asked.get(number)
            if asked is not None and not asked.done():
                if name == _ANSWER:
                    asked.set_result(arguments)
                else:
                    asked.set_exception(arguments)
            return
        if name == _CANCEL:
            if (task := self._answering.get(number)) is not None:
                task.cancel()
            return
        done = self._handlers[name](*arguments)
        if asyncio.iscoroutine(done):
            task = asyncio.create_task(self._answer(number, done))
            key = number or task  # messages without an answer have no number of their own
            self._answering[key] = task
            task.add_done_callback(lambda _: self._answering.pop(key))
        elif number:
            self._send(number, _ANSWER, done)

    async def _answer(self, number: int, work: Awaitable[object]) -> None:
        try:
            self._send(number, _ANSWER, await work)
        except DriftlineError as error:
            self._send(number, _ERROR, error)
        except Exception as error:
            log.exception("unexpected: %s", error)
            self._send(number, _ERROR, DriftlineError(f"{type(error).__name__}: {error}"))
