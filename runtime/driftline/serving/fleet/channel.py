"""How the supervisor and a worker talk: messages over a pair of sockets, some of which want an answer.

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
_ANSWER, _ERROR, _NO_MORE = "answer", "error", "no more"

Verbs = Mapping[str, Callable[..., Any]]
"""What is done about each message; what wants an answer and takes time is a coroutine function."""


class Gone(Unavailable):
    """The other side has gone."""


class Channel:
    """One end of the talk.

    end    a connected socket, which is the channel's from here on
    verbs  what is done about each message that comes, in the order in which they come
    heard  how many have come
    """

    def __init__(self, end: socket.socket, verbs: Verbs) -> None:
        self._end = end
        self._verbs = verbs
        self.heard = 0
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._closed = False

    async def open(self) -> None:
        """From here on messages can be sent."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._end)

    async def run(self) -> None:
        """Take messages until the other side goes."""
        try:
            while True:
                (length,) = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                content = await self._reader.readexactly(length)
                self.heard += 1
                self._take(*pickle.loads(content))  # noqa: S301 - our own
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception:
            log.exception("a message can't be followed: the talk ends, and so does the worker")
        finally:
            self.close()

    def close(self) -> None:
        """Talk no more; who waits for an answer gets Gone."""
        self._closed = True
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Gone("the other process has gone"))
        for task in self._answering.values():
            task.cancel()
        self._writer.close()

    async def finish(self) -> None:
        """Send what was told, and talk no more."""
        self.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    def tell(self, verb: str, *arguments: object) -> None:
        """Send a message; nobody waits for it to be read."""
        self._send(0, verb, arguments)

    async def ask(self, verb: str, *arguments: object) -> Any:
        """Send a message and wait for its answer; what it raises there is raised here, Gone if none comes."""
        return await self._ask(next(self._numbers), verb, arguments)

    async def ask_meanwhile(self, verb: str, *arguments: object) -> Any:
        """As `ask`; if it is cancelled here, so is there what is done about it."""
        number = next(self._numbers)
        try:
            return await self._ask(number, verb, arguments)
        except asyncio.CancelledError:
            self._send(number, _NO_MORE, None)
            raise

    async def _ask(self, number: int, verb: str, arguments: object) -> Any:
        if self._closed:
            raise Gone("the other process has gone")
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(number, verb, arguments)
            return await asked
        finally:
            del self._asked[number]

    def _send(self, number: int, verb: str, arguments: object) -> None:
        if not self._closed:
            content = pickle.dumps((number, verb, arguments))
            self._writer.write(_HEAD.pack(len(content)) + content)

    def _take(self, number: int, verb: str, arguments: Any) -> None:
        if verb in (_ANSWER, _ERROR):
            asked = self._asked.get(number)
            if asked is not None and not asked.done():
                if verb == _ANSWER:
                    asked.set_result(arguments)
                else:
                    asked.set_exception(arguments)
            return
        if verb == _NO_MORE:
            if (task := self._answering.get(number)) is not None:
                task.cancel()
            return
        done = self._verbs[verb](*arguments)
        if asyncio.iscoroutine(done):
            self._answering[number] = task = asyncio.create_task(self._answer(number, done))
            task.add_done_callback(lambda _: self._answering.pop(number))
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
