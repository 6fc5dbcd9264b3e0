"""Pages that tell of all workers: whichever is asked for one has it made by the supervisor."""

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
from driftline.serving.app import App
from driftline.serving.fleet.channel import Channel
from driftline.serving.holder import Holder
from driftline.serving.infer import read_body

PAGE_SECONDS = 10.0
"""The supervisor has so long to answer a page that tells of all workers."""

_VERSION = r"/v2/models/[^/]+(?:/versions/[^/]+)?"
_SHARED = re.compile(
    rf"/metrics|/hooks/mlflow|/v2/models/stats|/v2/repository/index"
    rf"|{_VERSION}/(?:stats|drift|drift/(?:acknowledge|window|reference))"
)
_CHANGING = re.compile(r"/v2/repository/models/[^/]+/(?:load|unload)")
_PROFILE = re.compile(rf"{_VERSION}/profile")
"""Takes as long as its query says, unless its client goes."""


class SharedApp(App):
    """Has pages that tell of all workers made by the supervisor."""

    def __init__(self, host: Holder, settings: Server, channel: Channel) -> None:
        pages: Any = host  # those that a Holder has not enough for are made elsewhere
        super().__init__(pages, settings)
        self._max_body_bytes = settings.max_body_bytes
        self._channel = channel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if not any(paths.fullmatch(path) for paths in (_SHARED, _CHANGING, _PROFILE)):
            return await super().__call__(scope, receive, send)
        try:
            response = await self._page(scope, receive)
        except TimeoutError:
            response = failure(Unavailable(f"the supervisor has not answered in {PAGE_SECONDS:g} s"))
        except asyncio.CancelledError:  # see App
            response = failure(Stopping())
        except DriftlineError as error:
            response = failure(error)
        await response(scope, receive, send)
        return None

    async def _page(self, scope: Scope, receive: Receive) -> Response:
        """What the supervisor answers."""
        path: str = scope["path"]
        body = await read_body(dict(scope["headers"]), receive, self._max_body_bytes)
        page = {name: scope[name] for name in ("type", "method", "path", "query_string")}
        # The body is no longer as most of them say.
        page["headers"] = [(key, value) for key, value in scope["headers"] if key.startswith(b"x-")]
        if _PROFILE.fullmatch(path):
            asking = self._channel.ask_meanwhile("page", page, body)
            status, headers, content = await _unless_gone(asking, receive)
        else:
            async with asyncio.timeout(PAGE_SECONDS if _SHARED.fullmatch(path) else None):
                status, headers, content = await self._channel.ask("page", page, body)
        response = Response(content, status)
        response.raw_headers = headers
        return response


async def _unless_gone(asking: Coroutine[Any, Any, Any], receive: Receive) -> Any:
    """What is asked for; Cancelled, and the question taken back, if the client goes before."""
    asked, gone = asyncio.ensure_future(asking), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise Cancelled("the client has gone")
        return asked.result()
    finally:
        asked.cancel()
        gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
