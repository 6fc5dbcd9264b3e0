"""Waiting for events elsewhere: on a disk, in a thread, in another process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from driftline.monitor.watched import Watched

SECONDS = 60.0
_LOOK_SECONDS = 0.005


def until(condition: Callable[[], Any], what: str = "", seconds: float = SECONDS) -> Any:
    """Wait until a condition returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came: {what or condition}"
        time.sleep(_LOOK_SECONDS)
    return found


async def eventually(condition: Callable[[], Any], what: str = "", seconds: float = SECONDS) -> Any:
    """Do the same without blocking the event loop."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came: {what or condition}"
        await asyncio.sleep(_LOOK_SECONDS)
    return found


async def loaded(watched: Watched) -> None:
    """Wait until a monitor is loaded, or has failed to load."""
    await eventually(lambda: watched.observer.monitor or watched.observer.failure, "the monitor")
