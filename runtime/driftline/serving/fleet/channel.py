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

_LENGTH = struct.Struct("=Q")
_RESPONSE, _ERROR, _CANCEL = "response", "error", "cancel"

Handlers = Mapping[str, Callable[..., Any]]
"""Message names to what is called for them; a coroutine function if the response takes time."""


class PeerGone(Unavailable):
    """The other process has ended or closed the connection."""


class Channel:
    """One end of the connection.

    connection  a connected socket, which the channel closes
    handlers    called for each message, in the order of arrival
    received    number of messages received
    """

    def __init__(self, connection: socket.socket, handlers: Handlers) -> None:
        self._socket = connection
        self._handlers = handlers
        self.received = 0
        self._numbers = count(1)
        self._responses: dict[int, asyncio.Future[Any]] = {}
        self._handler_tasks: dict[object, asyncio.Task[None]] = {}
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._closed = False

    async def open(self) -> None:
        """Make the channel ready to send."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)

    async def run(self) -> None:
        """Handle messages until the other side closes."""
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
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
        """Stop sending and handling messages; pending calls of `ask` raise PeerGone."""
        self._closed = True
        for response in self._responses.values():
            if not response.done():
                response.set_exception(PeerGone("the other process has gone"))
        for task in self._handler_tasks.values():
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
        """Send a message and return the response; raise what its handler raises, PeerGone if none comes."""
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
            raise PeerGone("the other process has gone")
        response = self._responses[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(number, name, arguments)
            return await response
        finally:
            del self._responses[number]

    def _send(self, number: int, name: str, arguments: object) -> None:
        # A write to a process that was just killed closes the transport before `run` sees its end.
        if not (self._closed or self._writer.is_closing()):
            content = pickle.dumps((number, name, arguments))
            self._writer.write(_LENGTH.pack(len(content)) + content)

    def _handle(self, number: int, name: str, arguments: Any) -> None:
        """Handle one message; `number` identifies a request, 0 if no response is wanted."""
        if name in (_RESPONSE, _ERROR):
            response = self._responses.get(number)
            if response is not None and not response.done():
                if name == _RESPONSE:
                    response.set_result(arguments)
                else:
                    response.set_exception(arguments)
            return
        if name == _CANCEL:
            if (task := self._handler_tasks.get(number)) is not None:
                task.cancel()
            return
        result = self._handlers[name](*arguments)
        if asyncio.iscoroutine(result):
            task = asyncio.create_task(self._respond(number, result))
            key = number or task  # messages without a response have no number of their own
            self._handler_tasks[key] = task
            task.add_done_callback(lambda _: self._handler_tasks.pop(key))
        elif number:
            self._send(number, _RESPONSE, result)

    async def _respond(self, number: int, work: Awaitable[object]) -> None:
        try:
            self._send(number, _RESPONSE, await work)
        except DriftlineError as error:
            self._send(number, _ERROR, error)
        except Exception as error:
            log.exception("unexpected: %s", error)
            self._send(number, _ERROR, DriftlineError(f"{type(error).__name__}: {error}"))
