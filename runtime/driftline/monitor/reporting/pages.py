"""A monitor over HTTP: its reports, the signals it holds, its window, a profile of its rows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from driftline.answers import json
from driftline.errors import BadRequest, Unavailable
from driftline.monitor.watched import Watched
from driftline.tensors import shorten

if TYPE_CHECKING:
    from driftline.monitor.reference.profile import Profile

MAX_ROWS = 10_000_000
MAX_SECONDS = 3600.0
LOOK_SECONDS = 0.05
ARROW_FILE = "application/vnd.apache.arrow.file"

_BY_ACCEPT = {"vary": "accept"}
_NO_SCRIPT = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


async def report(request: Request, watched: Watched, model: str, version: str) -> Response:
    """Return how the last `?window=N` windows, including the current one, differ from the reference: as a
    page to a browser, unless it asks for `?format=json`, else as JSON."""
    from driftline.monitor.reporting.render import page

    monitor = watched.ready()
    windows = whole(request, "window", 1, 1, monitor.keep_windows + 1)
    found = await asyncio.to_thread(monitor.report, windows)
    if "text/html" in request.headers.get("accept", "") and request.query_params.get("format") != "json":
        title = f"{model} {version}: drift" if version else f"{model}: drift"
        links = _links(windows, monitor.finished_windows + 1)
        content = await asyncio.to_thread(page, title, [(title, found)], links, "the JSON (?format=json)")
        return HTMLResponse(content, headers=_BY_ACCEPT | _NO_SCRIPT)
    answer = json({"model": model, "version": version} | found.to_dict())
    answer.headers.update(_BY_ACCEPT)
    return answer


def _links(windows: int, most: int) -> dict[str, str]:
    """Return links to the current window, one window less and one more, up to `most`, and to the JSON."""
    others = {1, min(windows - 1, most), windows + 1} - {windows}
    near = [each for each in sorted(others) if 1 <= each <= most]
    told = {each: "the current window" if each == 1 else f"the last {each} windows" for each in near}
    return {told[each]: f"?window={each}" for each in near} | {"JSON": f"?window={windows}&format=json"}


async def acknowledge(watched: Watched) -> Response:
    """Clear the held signals and return them."""
    from driftline.monitor.detection.signals import log_acknowledged

    signals = watched.ready().acknowledge()
    log_acknowledged(signals)
    return json({"acknowledged": [signal.to_dict() for signal in signals]})


async def window(watched: Watched, model: str, version: str) -> Response:
    """Return the current window as an Arrow file, to be merged with those of other servers."""
    from driftline.monitor.window_file import current

    monitor = watched.ready()
    return Response(await asyncio.to_thread(current, monitor, model, version), media_type=ARROW_FILE)


async def reference(watched: Watched) -> Response:
    """Return the profile that rows are compared with, as an Arrow file."""
    profile = watched.ready().profile
    return Response(await asyncio.to_thread(saved, profile), media_type=ARROW_FILE)


async def profile(request: Request, watched: Watched) -> Response:
    """Return a profile of the next `?rows=N` rows, or of those within `?seconds=S`, as an Arrow file.

    Its columns have the same names as in the profile that rows are compared with.
    """
    rows = whole(request, "rows", 10_000, 1, MAX_ROWS)
    seconds = number(request, "seconds", 60.0, 0.1, MAX_SECONDS)
    with watched.capturing(rows) as capture:
        deadline = asyncio.get_running_loop().time() + seconds
        while not capture.full and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            if await request.is_disconnected():
                return Response(status_code=499)
    if not capture.rows:
        raise Unavailable(f"a profile of live traffic: expected rows within {seconds:g} s, got none")
    monitor = watched.observer.monitor
    names = {one.source: one.name for one in monitor.profile.references} if monitor is not None else {}
    content = await asyncio.to_thread(lambda: saved(capture.profile().renamed(names)))
    headers = {"driftline-profile-rows": str(capture.rows)}
    return Response(content, media_type=ARROW_FILE, headers=headers)


def whole(request: Request, name: str, default: int, least: int, most: int) -> int:
    """Return a whole number from the query; BadRequest if it is not one, or out of range."""
    value = number(request, name, default, least, most)
    if value % 1:
        got = shorten(request.query_params[name])
        raise BadRequest(f"parameter '{name}': expected a whole number, got {got}")
    return int(value)


def number(request: Request, name: str, default: float, least: float, most: float) -> float:
    """Return a number from the query; BadRequest if it is not a number, or out of range."""
    text = request.query_params.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise BadRequest(
            f"parameter '{name}': expected a number from {least:g} to {most:g}, got {shorten(text)}"
        )
    return value


def saved(profile: Profile) -> bytes:
    """Return the content of a profile's file."""
    from driftline.monitor.reference.storage import encode

    return encode(profile.references, profile.whole)
