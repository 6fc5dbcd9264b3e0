"""The ASGI application: dispatches requests and turns errors into responses."""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache, partial

from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from driftline.answers import HANDLERS, failure, mlflow_failure
from driftline.config import Server
from driftline.errors import Stopping, WrongMethod
from driftline.serving.host import Host
from driftline.serving.http.busy_poll import BusyPoll
from driftline.serving.http.infer import Infer, LoggedInfer
from driftline.serving.http.joining import RequestJoiner
from driftline.serving.http.routes import routes

_V2_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_V1_PATH = re.compile(r"/v1/models/([^/]+):predict")
_MLFLOW_PATH = re.compile(r"(?:/models/([^/]+))?/invocations")

MAX_CACHED_PATHS = 1_000
"""Paths whose endpoints are cached."""

MAX_PATH_LENGTH = 1_000
"""Most characters of a cached path."""

Endpoint = tuple[Infer, str | None, str | None]


class App:
    """Sends inference straight to its endpoint and all else to Starlette, which would double the time.

    joiner    joins requests of the same kind
    payloads  logs requests and responses; None if they are not logged
    """

    def __init__(self, host: Host, settings: Server) -> None:
        self.payloads = host.payloads
        infer = Infer if self.payloads is None else partial(LoggedInfer, payloads=self.payloads)
        self._v2 = infer(host, "v2", settings.max_body_bytes, failure)
        self._v1 = infer(host, "v1", settings.max_body_bytes, failure)
        self._mlflow = infer(host, "mlflow", settings.max_body_bytes, mlflow_failure)
        busy_poll = BusyPoll(settings.busy_poll_us)
        self.joiner = RequestJoiner(host, busy_poll)
        if self.payloads is not None and self.payloads.spare_time is not None:
            self.payloads.spare_time.busy_poll = busy_poll
        self._cached_endpoint = lru_cache(MAX_CACHED_PATHS)(self._endpoint)
        self._pages = Starlette(
            routes=routes(host, settings),
            exception_handlers=HANDLERS,
        )

    def endpoint(self, path: str) -> Endpoint | None:
        """Return the endpoint for a POST to a decoded path; None if it is not an inference path."""
        return self._cached_endpoint(path) if len(path) <= MAX_PATH_LENGTH else self._endpoint(path)

    def _endpoint(self, path: str) -> Endpoint | None:
        if match := _V2_PATH.fullmatch(path):
            return self._v2, match[1], match[2]
        if match := _V1_PATH.fullmatch(path):
            return self._v1, match[1], None
        if match := _MLFLOW_PATH.fullmatch(path):
            return self._mlflow, match[1], None
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        response_started = False

        async def tracking_send(message: Message) -> None:
            nonlocal response_started
            response_started = True
            await send(message)

        try:
            await self._respond(scope, receive, tracking_send)
        except asyncio.CancelledError:  # the server stops, and this request took too long
            if not response_started:
                await failure(Stopping())(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.endpoint(scope["path"])
        if endpoint is None:
            return await self._pages(scope, receive, send)
        infer, name, version = endpoint
        try:
            if scope["method"] != "POST":
                raise WrongMethod(f"Method Not Allowed: {scope['method']} {scope['path']}")
            fields, content = await infer(scope, receive, name, version)
        except Exception as error:
            return await infer.failure(error)(scope, receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        return await send({"type": "http.response.body", "body": content})
