"""What the server says of drift: reports, the signals that are held, profiles of live traffic."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from driftline.errors import BadRequest, NotFound, Unavailable
from driftline.serving.answers import json
from driftline.serving.host import Host
from driftline.serving.served import Served
from driftline.serving.watch import Watch
from driftline.tensors import shorten

if TYPE_CHECKING:
    from driftline.monitor.report import Report

MOST_ROWS = 10_000_000
MOST_SECONDS = 3600.0
LOOK_SECONDS = 0.05


def routes(host: Host) -> list[Route]:
    """The routes of each model, and of each of its versions."""
    pages = Pages(host)
    found = []
    for base in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        found += [
            Route(f"{base}/drift", pages.report),
            Route(f"{base}/drift/acknowledge", pages.acknowledge, methods=["POST"]),
            Route(f"{base}/profile", pages.profile),
        ]
    return found


class Pages:
    """Drift, by HTTP."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def report(self, request: Request) -> Response:
        """How the last `?window=N` windows differ from the reference, the current one included."""
        served = self._host.find(**request.path_params)
        monitor = watch_of(served).ready()
        windows = number(request, "window", 1, 1, monitor.keep_windows + 1)
        report = await asyncio.to_thread(monitor.report, int(windows))
        version = {"model": served.version.name, "version": str(served.version.number)}
        return json(version | report.to_dict())

    async def acknowledge(self, request: Request) -> Response:
        """Let go of the signals that are held; they are the answer."""
        signals = watch_of(self._host.find(**request.path_params)).ready().acknowledge()
        return json({"acknowledged": [signal.to_dict() for signal in signals]})

    async def profile(self, request: Request) -> Response:
        """A profile of the next `?rows=N` rows, or of what comes within `?seconds=S`, as an Arrow file."""
        watch = watch_of(self._host.find(**request.path_params))
        rows = int(number(request, "rows", 10_000, 1, MOST_ROWS))
        seconds = number(request, "seconds", 60.0, 0.1, MOST_SECONDS)
        with watch.capturing(rows) as capture:
            deadline = asyncio.get_running_loop().time() + seconds
            while not capture.full and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(LOOK_SECONDS)
                if await request.is_disconnected():
                    return Response(status_code=499)
        if not capture.rows:
            raise Unavailable(f"a profile of live traffic: expected rows within {seconds:g} s, came none")
        content = await asyncio.to_thread(lambda: saved(capture.profile()))
        headers = {"driftline-profile-rows": str(capture.rows)}
        return Response(content, media_type="application/vnd.apache.arrow.file", headers=headers)


def watch_of(served: Served) -> Watch:
    """What watches a version; NotFound if nothing does."""
    if served.watch is None:
        raise NotFound(f"model '{served.version.name}' is not monitored: its settings say so")
    return served.watch


def reports(versions: Sequence[Served]) -> dict[Served, Report]:
    """The report of each version's current window, of those whose monitor is there."""
    watches = ((served, served.watch.observer.monitor) for served in versions if served.watch is not None)
    return {served: monitor.report() for served, monitor in watches if monitor is not None}


def number(request: Request, name: str, default: float, least: float, most: float) -> float:
    """A number of the query; BadRequest if it is none, or out of range."""
    text = request.query_params.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise BadRequest(f"'{name}': expected a number from {least:g} to {most:g}, came {shorten(text)}")
    return value


def saved(profile: object) -> bytes:
    """A profile's file."""
    from driftline.monitor.profile import Profile

    assert isinstance(profile, Profile)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.arrow"
        profile.save(path)
        return path.read_bytes()
