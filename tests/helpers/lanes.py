"""Both lanes of inference, over in-memory connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn
from server_process import infer_request
from uvicorn.server import ServerState

from driftline.serving.host import Host
from driftline.serving.http.app import App
from driftline.serving.http.connection import Connection
from driftline.serving.http.fastlane import FastLane, MemoryTransport

MOST = 20_000
"""The most bytes of a body."""

GATHER = "/v2/models/gather/infer"


class Closing(MemoryTransport):
    """An in-memory connection that can be closed."""

    closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            super().write(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...


@dataclass
class House:
    """A host with models, its application, both lanes, and their event loop."""

    loop: asyncio.AbstractEventLoop
    host: Host
    app: App
    lane: type[FastLane]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def connect(self, lane: type[Connection], state: ServerState | None = None) -> tuple[Connection, Closing]:
        config = uvicorn.Config(
            self.app, http=lane, ws="none", lifespan="off", log_config=None, proxy_headers=False
        )
        config.load()
        protocol, wire = lane(config, state or ServerState(), {}, self.loop), Closing()
        protocol.connection_made(wire)
        return protocol, wire

    async def talk(self, lane: type[Connection], chunks: Sequence[bytes]) -> tuple[bytes, bool]:
        """Send chunks, each when the one before has been handled; return the responses, and whether the
        connection is then closed."""
        protocol, wire = self.connect(lane)
        for chunk in chunks:
            if not wire.closed:
                protocol.data_received(chunk)
            await until(lambda: wire.closed or quiet(protocol))
        protocol.connection_lost(None)
        return wire.written, wire.closed

    def both(self, *chunks: bytes) -> tuple[bytes, bool]:
        """Return the responses, which must be the same on both lanes."""
        fast = self.run(self.talk(self.lane, chunks))
        plain = self.run(self.talk(Connection, chunks))
        assert fast == plain
        return fast


def quiet(protocol: Connection) -> bool:
    """Return whether all complete requests are answered."""
    cycle = protocol.cycle
    return cycle is None or (not protocol.pipeline and (cycle.response_complete or cycle.more_body))


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, and one iteration of the loop more, for which a write may be held back."""
    async with asyncio.timeout(60):
        while True:
            held = condition()
            await asyncio.sleep(0)
            if held:
                return


def post(
    body: bytes | str, path: str = "/v2/models/scale/infer", *headers: str, version: str = "1.1"
) -> bytes:
    body = body.encode() if isinstance(body, str) else body
    lines = [f"POST {path} HTTP/{version}", "host: x", *headers, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def headed(*headers: str) -> bytes:
    """Return a valid request with more headers."""
    return post(ask([[1, 2, 3]]), "/v2/models/scale/infer", *headers)


def ask(rows: Any, **more: Any) -> str:
    return json.dumps(infer_request({"x": ("FP32", rows)}, **more))


SLOW = post(json.dumps(infer_request({"x": ("FP32", [[1.0] * 1024])})), "/v2/models/slow/infer")
"""A request that runs in a thread, for some milliseconds."""
