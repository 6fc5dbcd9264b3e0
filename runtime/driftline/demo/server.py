"""`driftline serve` in a separate process, for as long as it is needed."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import IO, Any, TypeVar

import aiohttp
from yarl import URL

from driftline.errors import BadRequest, DriftlineError

_START_SECONDS = 60
_STOP_SECONDS = 10
_LAST_LINES = 20
# A server that listens on all addresses is reached on the loopback.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

T = TypeVar("T")


class Server:
    """A running server; `url` is where it answers."""

    def __init__(self, url: URL, process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
        self.url = url
        self._process = process
        self._log = log

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` while the server runs; DriftlineError, with its last log lines, if it ends first."""
        working, ending = asyncio.create_task(work), asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise DriftlineError(
                    f"the server ended with code {ending.result()}; it said:\n{self._last_lines()}"
                )
            return working.result()
        finally:
            working.cancel()
            ending.cancel()
            await asyncio.gather(working, ending, return_exceptions=True)

    async def ready(self) -> None:
        """Wait until the server can answer; DriftlineError if it ends or takes longer than a minute."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self.during(self._poll())
        except TimeoutError:
            raise DriftlineError(
                f"the server was not ready after {_START_SECONDS} s; it said:\n{self._last_lines()}"
            ) from None

    async def stop(self) -> None:
        """Terminate the server; kill it if that takes too long."""
        with suppress(ProcessLookupError):
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
        await self._process.wait()

    async def _poll(self) -> None:
        async with aiohttp.ClientSession(self.url) as session:
            while True:
                with suppress(aiohttp.ClientError):
                    async with session.get("/v2/health/ready") as response:
                        if response.ok:
                            return
                await asyncio.sleep(0.05)

    def _last_lines(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LAST_LINES:]) or "nothing"


@asynccontextmanager
async def serving(model: str, registry: str, host: str, port: int) -> AsyncIterator[Server]:
    """Run a server for one model of a registry; yields it once it is ready, and stops it at the end.

    Raises DriftlineError if the server does not become ready.
    """
    url = URL.build(scheme="http", host=_LOOPBACK.get(host, host), port=port)
    options = ("--registry", registry, "--host", host, "--port", str(port))
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "driftline", "serve", model, *options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C is meant for the demo, which then stops the server itself.
            start_new_session=True,
        )
        server = Server(url, process, log)
        try:
            await server.ready()
            yield server
        finally:
            await server.stop()


def free_port(host: str, port: int) -> int:
    """Return the port, or any free one if it is 0, after checking that no other server would answer for ours.

    Raises BadRequest if it can't be bound.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            return int(listener.getsockname()[1])
    except OSError as error:
        raise BadRequest(f"can't listen on {host}:{port}: {error.strerror}") from error
