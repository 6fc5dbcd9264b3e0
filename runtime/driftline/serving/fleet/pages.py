"""Pages that are about all workers: a worker forwards such requests to the supervisor."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from driftline.answers import failure
from driftline.config import Server
from driftline.errors import Cancelled, DriftlineError, Stopping, Unavailable
from driftline.serving.base_host import BaseHost
from driftline.serving.fleet.channel import Channel
from driftline.serving.http.app import App
from driftline.serving.http.infer import read_body

PAGE_TIMEOUT_SECONDS = 10.0
"""How long a worker waits for such a page."""

_VERSION = r"/v2/models/[^/]+(?:/versions/[^/]+)?"
# Made by the supervisor within PAGE_TIMEOUT_SECONDS.
_SHARED = re.compile(
    rf"/metrics|/hooks/mlflow|/v2/models/stats|/v2/repository/index"
    rf"|{_VERSION}/(?:stats|drift|drift/(?:acknowledge|window|reference))"
)
# These load models, however long that takes.
_LOADING = re.compile(r"/v2/repository/models/[^/]+/(?:load|unload)")
# Takes as long as its query says, unless its client disconnects.
_PROFILE = re.compile(rf"{_VERSION}/profile")


class SharedApp(App):
    """A worker's application; the supervisor makes the pages that are about all workers."""

    def __init__(self, host: BaseHost, settings: Server, channel: Channel) -> None:
        pages: Any = host  # App needs more than BaseHost only for pages that the supervisor makes
        super().__init__(pages, settings)
        self._max_body_bytes = settings.max_body_bytes
        self._channel = channel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        path: str = scope["path"]
        if not any(paths.fullmatch(path) for paths in (_SHARED, _LOADING, _PROFILE)):
            return await super().__call__(scope, receive, send)
        try:
            response = await self._fetch_page(scope, receive)
        except TimeoutError:
            response = failure(Unavailable(f"the supervisor has not answered in {PAGE_TIMEOUT_SECONDS:g} s"))
        except asyncio.CancelledError:  # see App
            response = failure(Stopping())
        except DriftlineError as error:
            response = failure(error)
        await response(scope, receive, send)
        return None

    async def _fetch_page(self, scope: Scope, receive: Receive) -> Response:
        """Return the supervisor's response."""
        path: str = scope["path"]
        body = await read_body(dict(scope["headers"]), receive, self._max_body_bytes)
        page_scope = {name: scope[name] for name in ("type", "method", "path", "query_string")}
        # Headers that describe the body no longer hold: it is complete and decompressed.
        page_scope["headers"] = [(key, value) for key, value in scope["headers"] if key.startswith(b"x-")]
        if _PROFILE.fullmatch(path):
            pending = self._channel.ask_cancellable("page", page_scope, body)
            status, headers, content = await _unless_disconnected(pending, receive)
        else:
            async with asyncio.timeout(PAGE_TIMEOUT_SECONDS if _SHARED.fullmatch(path) else None):
                status, headers, content = await self._channel.ask("page", page_scope, body)
        response = Response(content, status)
        response.raw_headers = headers
        return response


async def _unless_disconnected(pending: Coroutine[Any, Any, Any], receive: Receive) -> Any:
    """Return the response; if the client disconnects first, cancel the request and raise Cancelled."""
    response = asyncio.ensure_future(pending)
    disconnected = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait((response, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not response.done():
            raise Cancelled("the client has gone")
        return response.result()
    finally:
        response.cancel()
        disconnected.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
