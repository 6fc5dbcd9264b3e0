"""Events on their way to be joined: what is bounded, and what a kill would lose."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from driftline.errors import Unavailable
from driftline.protocols.payloads import Payload
from driftline.sidecar.logs.events import Events


class Idle:
    """In place of an agent: takes whatever comes."""

    def observe_all(self, exchanges: list[Any]) -> None: ...


def half(name: str, kind: str = "request") -> tuple[str, Payload]:
    return name, Payload(name, kind, 0.0, "m", "1", "application/json", None, None, b"{}")


async def test_what_a_kill_loses_is_counted_by_the_next() -> None:
    events = Events(2**20, 2**20, 60.0)
    await events.start(Idle(), {"waiting": 7})  # type: ignore[arg-type]
    events.put([half("a"), half("b"), half("a", "response")])
    async with asyncio.timeout(60):
        while events.queued:  # noqa: ASYNC110 - a thread works
            await asyncio.sleep(0.005)
        while events.state() != {"waiting": 1}:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await events.close()
    assert events.state() == {"waiting": 0}
    assert (events.halves.counts["lost"], events.halves.counts["joined"]) == (7, 2)


async def test_texts_of_any_length_are_bounded_too() -> None:
    events = Events(100_000, 2**20, 60.0)
    events._agent = Idle()  # type: ignore[assignment]  # not started: what is put stays
    events.put([half("x" * 30_000)])
    with pytest.raises(Unavailable, match="1 events wait already"):
        events.put([half("y" * 30_000)])
    assert (events.queued, events.counts["refused"]) == (1, 1)
