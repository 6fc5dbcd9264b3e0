"""The ASGI application: who answers what, and what errors look like."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from driftline.config import Server
from driftline.errors import DriftlineError, Unavailable
from driftline.serving.answers import json
from driftline.serving.host import Host
from driftline.serving.infer import Infer
from driftline.serving.routes import routes
from driftline.serving.together import Together

log = logging.getLogger("driftline.serving")

_V2 = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_V1 = re.compile(r"/v1/models/([^/]+):predict")


MOST_PATHS = 1_000
"""Paths whose endpoints are remembered."""

Endpoint = tuple[Infer, str, str | None]


class App:
    """Inference goes straight to its endpoint; Starlette, which takes as long again, has all else.

    endpoint  what answers a POST to a path, decoded: its protocol, a model's name, a version; None if that is
              no path of inference
    together  where requests wait for others of their kind
    """

    def __init__(self, host: Host, settings: Server) -> None:
        self._v2 = Infer(host, "v2", settings.max_body_bytes)
        self._v1 = Infer(host, "v1", settings.max_body_bytes)
        self.together = Together(host)
        self.endpoint = lru_cache(MOST_PATHS)(self._endpoint)
        self._pages = Starlette(
            routes=routes(host, settings),
            exception_handlers={DriftlineError: _known_error, HTTPException: _http_error, Exception: _bug},
        )

    def _endpoint(self, path: str) -> Endpoint | None:
        if found := _V2.fullmatch(path):
            return self._v2, found[1], found[2]
        if found := _V1.fullmatch(path):
            return self._v1, found[1], None
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        endpoint = self.endpoint(scope["path"])
        if endpoint is None:
            return await self._pages(scope, receive, send)
        infer, name, version = endpoint
        try:
            if scope["method"] != "POST":
                raise HTTPException(405, headers={"allow": "POST"})
            await infer(scope, receive, send, name, version)
        except HTTPException as error:
            await (await _http_error(Request(scope), error))(scope, receive, send)
        except Exception as error:
            await failure(error)(scope, receive, send)
        return None


def failure(error: Exception) -> Response:
    """What a client sees of an error; one that nobody meant to raise is logged."""
    if isinstance(error, DriftlineError):
        return error_response(error)
    log.exception("a request failed", exc_info=error)
    return bug_response(error)


def error_response(error: DriftlineError) -> Response:
    """What a client sees of an error raised on purpose."""
    response = json({"error": str(error)}, error.status)
    if isinstance(error, Unavailable):
        response.headers["retry-after"] = str(error.retry_after)
    return response


def bug_response(error: Exception) -> Response:
    """What a client sees of an error that nobody meant to raise."""
    return json({"error": f"internal error: {type(error).__name__}; the server's log says more"}, 500)


async def _known_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DriftlineError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    response = json({"error": f"{phrase}: {request.method} {request.url.path}"}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _bug(request: Request, error: Exception) -> Response:
    return bug_response(error)
