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
POLL_SECONDS = 0.05
ARROW_FILE = "application/vnd.apache.arrow.file"

_BY_ACCEPT = {"vary": "accept"}
_NO_SCRIPT = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


async def report(request: Request, watched: Watched, model: str, version: str) -> Response:
    """Return how the last `?window=N` windows, including the current one, differ from the reference: as a
    page to a browser, unless it asks for `?format=json`, else as JSON."""
    from driftline.monitor.reporting.render import page

    monitor = watched.ready()
    windows = whole_number(request, "window", 1, 1, monitor.keep_windows + 1)
    result = await asyncio.to_thread(monitor.report, windows)
    if "text/html" in request.headers.get("accept", "") and request.query_params.get("format") != "json":
        title = f"{model} {version}: drift" if version else f"{model}: drift"
        links = _links(windows, monitor.finished_windows + 1)
        content = await asyncio.to_thread(page, title, [(title, result)], links, "the JSON (?format=json)")
        return HTMLResponse(content, headers=_BY_ACCEPT | _NO_SCRIPT)
    response = json({"model": model, "version": version} | result.to_dict())
    response.headers.update(_BY_ACCEPT)
    return response


def _links(windows: int, limit: int) -> dict[str, str]:
    """Return links to the current window, one window less and one more, up to `limit`, and to the JSON."""
    links = {}
    for count in sorted({1, min(windows - 1, limit), windows + 1} - {windows}):
        if 1 <= count <= limit:
            label = "the current window" if count == 1 else f"the last {count} windows"
            links[label] = f"?window={count}"
    return links | {"JSON": f"?window={windows}&format=json"}


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
    return Response(await asyncio.to_thread(profile_bytes, profile), media_type=ARROW_FILE)


async def profile(request: Request, watched: Watched) -> Response:
    """Return a profile of the next `?rows=N` rows, or of those within `?seconds=S`, as an Arrow file.

    Its columns have the same names as in the profile that rows are compared with.
    """
    rows = whole_number(request, "rows", 10_000, 1, MAX_ROWS)
    seconds = number(request, "seconds", 60.0, 0.1, MAX_SECONDS)
    with watched.capturing(rows) as capture:
        deadline = asyncio.get_running_loop().time() + seconds
        while not capture.full and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            if await request.is_disconnected():
                return Response(status_code=499)
    if not capture.rows:
        raise Unavailable(f"a profile of live traffic: expected rows within {seconds:g} s, got none")
    monitor = watched.observer.monitor
    references = monitor.profile.references if monitor is not None else ()
    names = {reference.source: reference.name for reference in references}
    content = await asyncio.to_thread(lambda: profile_bytes(capture.profile().renamed(names)))
    headers = {"driftline-profile-rows": str(capture.rows)}
    return Response(content, media_type=ARROW_FILE, headers=headers)


def whole_number(request: Request, name: str, default: int, minimum: int, maximum: int) -> int:
    """Return a whole number from the query; BadRequest if it is not one, or out of range."""
    value = number(request, name, default, minimum, maximum)
    if value % 1:
        given = shorten(request.query_params[name])
        raise BadRequest(f"parameter '{name}': expected a whole number, got {given}")
    return int(value)


def number(request: Request, name: str, default: float, minimum: float, maximum: float) -> float:
    """Return a number from the query; BadRequest if it is not a number, or out of range."""
    text = request.query_params.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = float("nan")
    if not minimum <= value <= maximum:
        raise BadRequest(
            f"parameter '{name}': expected a number from {minimum:g} to {maximum:g}, got {shorten(text)}"
        )
    return value


def profile_bytes(profile: Profile) -> bytes:
    """Return the content of a profile's file."""
    from driftline.monitor.reference.storage import encode

    return encode(profile.references, profile.whole)
