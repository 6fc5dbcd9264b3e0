"""Posts whose heads are known are answered, and taken, as all others are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from driftline.config import Monitoring
from driftline.http import HttpConnection
from driftline.monitor.reference.profile import Profile
from driftline.protocols.payloads import Payload
from driftline.sidecar.agent import Agent
from driftline.sidecar.logs.events import Events
from driftline.sidecar.logs.posts import connection
from driftline.sidecar.pages import Pages

PROFILE = Profile.fit({"x": np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)})
BODY = b'{"instances":[[1,2,3]]}'
TYPE = "org.kubeflow.serving.inference.request"


class Recorded(Events):
    """Events that are kept, and how many posts came through the application."""

    def __init__(self, queue_bytes: int) -> None:
        super().__init__(queue_bytes, join_bytes=2**20, join_seconds=60)
        self.found: list[tuple[str, Payload]] = []
        self.by_asgi = 0

    async def receive(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.by_asgi += 1
        await super().receive(scope, receive, send)

    def put(self, found: list[tuple[str, Payload]]) -> None:
        super().put(found)
        self.found += found


class Wire(asyncio.Transport):
    """A connection in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@asynccontextmanager
async def connected(
    fast: bool, queue_bytes: int = 2**20, idle_seconds: float = 60
) -> AsyncIterator[tuple[Recorded, HttpConnection, Wire]]:
    """A client's connection to an agent that takes events, of the class for them or of the plain one."""
    agent, events, wire = Agent(PROFILE, "m", Monitoring()), Recorded(queue_bytes), Wire()
    config = uvicorn.Config(
        Pages(agent, [events]), lifespan="off", ws="none", log_config=None, access_log=False,
        proxy_headers=False, timeout_keep_alive=idle_seconds,  # type: ignore[arg-type]
    )  # fmt: skip
    protocol = (connection(events) if fast else HttpConnection)(config, ServerState(), {})
    protocol.connection_made(wire)
    await events.start(agent, None)
    try:
        yield events, protocol, wire
    finally:
        protocol.connection_lost(None)
        await events.close()
        agent.close(finish=False)


async def settle(protocol: HttpConnection) -> None:
    """Let the application go on until it waits for more of a body, if it does: nothing else takes turns."""
    for _ in range(50):
        if protocol.tasks:
            await asyncio.sleep(0)


async def ask(fast: bool, *parts: bytes, queue_bytes: int = 2**20) -> tuple[bytes, Recorded]:
    """All that is answered to what comes part by part, and what was taken."""
    async with connected(fast, queue_bytes) as (events, protocol, wire):
        for part in parts:
            if not wire.is_closing():
                protocol.data_received(part)
            await settle(protocol)
        return wire.written, events


def post(
    *lines: str, body: bytes = BODY, first: str = "POST / HTTP/1.1", length: int | None = None, **given: str
) -> bytes:
    """A post as Go's client writes it; `ce_id=...` and such replace what is said, empty leaves it out."""
    said = {
        "Content-Length": str(len(body) if length is None else length), "Ce-Id": "1", "Ce-Source": "pod",
        "Ce-Specversion": "1.0", "Ce-Time": "2026-11-24T10:11:12.123456789Z", "Ce-Type": TYPE,
        "Ce-Inferenceservicename": "m", "Content-Type": "application/json",
    }  # fmt: skip
    said |= {name.title().replace("_", "-"): value for name, value in given.items()}
    fields = [f"{name}: {value}" for name, value in said.items() if value != "-"]
    return "\r\n".join([first, "Host: sink", *fields, *lines, "\r\n"]).encode() + body


PLAIN = {
    "as it is": post(),
    "another id": post(ce_id="2-ab/c"),
    "another time": post(ce_time="2026-11-24T10:11:12+02:00"),
    "another length": post(body=b'{"predictions":[1]}', ce_id="3"),
    "no body": post(body=b""),
}
UNUSUAL = {
    "an escaped id": post(ce_id="a%20b"),
    "a quoted id": post(ce_id='"a b"'),
    "an id of two words": post(ce_id="a b"),
    "an empty id": post(ce_id=""),
    "no id": post(ce_id="-"),
    "two ids": post("ce-id: 9"),
    "a time without its zone": post(ce_time="2026-11-24T10:11:12"),
    "no time at all": post(ce_time="soon"),
    "its JSON's length": post(ce_jsonlength="3"),
    "its JSON's length, beside": post("Inference-Header-Content-Length: 3"),
    "another version": post(ce_specversion="0.3"),
    "another type": post(ce_type="org.kubeflow.serving.inference.feedback"),
    "another path": post(first="POST /v2 HTTP/1.1"),
    "another method": post(first="PUT / HTTP/1.1"),
    "the last one": post("Connection: close"),
    "HTTP/1.0": post(first="POST / HTTP/1.0"),
    "a structured one": post(content_type="application/cloudevents+json"),
    "in chunks": post("Transfer-Encoding: chunked", content_length="-", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "two at once": post() + post(ce_id="2"),
    "one and a half": post() + post()[:40],
    "no HTTP": b"POST / HTTP/1.1\r\nCe-Id 1\r\n\r\n",
}  # fmt: skip


async def check_alike(*parts: bytes, queue_bytes: int = 2**20) -> int:
    """Both ways have one outcome; the posts that took uvicorn's in ours."""
    (expected, slow), (answer, fast) = [
        await ask(way, *parts, queue_bytes=queue_bytes) for way in (False, True)
    ]
    assert answer == expected
    assert fast.found == slow.found
    assert fast.counts == slow.counts
    return fast.by_asgi


@pytest.mark.parametrize("case", PLAIN)
async def test_a_known_head_is_not_parsed_again(case: str) -> None:
    assert await check_alike(post(), PLAIN[case], PLAIN[case]) == 1


@pytest.mark.parametrize("case", UNUSUAL)
async def test_what_is_unusual_takes_the_longer_way_to_the_same_answer(case: str) -> None:
    await check_alike(post(), UNUSUAL[case], UNUSUAL[case], post(ce_id="last"))


async def test_a_form_of_head_for_each_logger() -> None:
    others = [
        post(ce_time="-"),
        post("Traceparent: 00-1"),
        post(ce_source="other"),
        post(ce_type=TYPE[:-7] + "response"),
    ]
    assert await check_alike(*others, *others) == len(others)


@pytest.mark.parametrize("cut", [1, 60, -len(BODY) - 2, -len(BODY), -3])
async def test_a_post_in_parts(cut: int) -> None:
    whole = post(ce_id="2")
    assert await check_alike(post(), whole[:cut], whole[cut:], post(ce_id="3")) == 2


@pytest.mark.parametrize("cut", [-len(BODY), -3])
async def test_a_body_whose_client_goes_before_its_end_is_none(cut: int) -> None:
    async with connected(fast=True) as (events, protocol, _):
        for part in (post(), post(ce_id="2")[:cut]):
            protocol.data_received(part)
            await settle(protocol)
        protocol.connection_lost(None)
        await settle(protocol)
        assert len(events.found) == 1


async def test_a_body_that_looks_like_a_post() -> None:
    whole = post(body=BODY + post(ce_id="never"))
    cut = whole.index(BODY) + len(BODY)
    assert await check_alike(post(), whole[:cut], whole[cut:], whole) == 2


async def test_a_full_queue_is_said_to_be() -> None:
    assert await check_alike(*[post(ce_id=str(number)) for number in range(9)], queue_bytes=3000) == 1


async def test_an_idle_connection_is_closed() -> None:
    async with connected(fast=True, idle_seconds=0.05) as (events, protocol, wire):
        for part in (post(), post(), post()):
            protocol.data_received(part)
            await settle(protocol)
        assert not wire.is_closing()
        assert events.by_asgi == 1
        await asyncio.wait_for(wire.closed.wait(), 60)
