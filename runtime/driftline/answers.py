"""JSON responses, and the responses to errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from driftline.errors import DriftlineError, RequestTimeout, SignatureViolation, Unavailable, WrongMethod

log = logging.getLogger("driftline.serving")

_MLFLOW_CODES = {
    404: "RESOURCE_DOES_NOT_EXIST",
    499: "CANCELLED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def json(content: object, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def failure(error: Exception) -> Response:
    """Return the response to an error; an unexpected error is logged."""
    visible = client_error(error)
    return _refusal(visible, {"error": str(visible)})


def mlflow_failure(error: Exception) -> Response:
    """Do the same in MLflow's format, whose error codes add to the status only for signatures."""
    visible = client_error(error)
    code = _MLFLOW_CODES.get(visible.status, "BAD_REQUEST")
    if isinstance(visible, SignatureViolation):
        code = "INVALID_PARAMETER_VALUE"
    return _refusal(visible, {"error_code": code, "message": str(visible)})


def internal_error(error: Exception) -> DriftlineError:
    """Return what a client sees of an unexpected error."""
    return DriftlineError(f"internal error: {type(error).__name__}; the server's log says more")


def client_error(error: Exception) -> DriftlineError:
    """Return an error as clients may see it; an unexpected error is logged."""
    if isinstance(error, DriftlineError):
        return error
    log.error("a request failed", exc_info=error)
    return internal_error(error)


def _refusal(error: DriftlineError, content: dict[str, str]) -> Response:
    response = json(content, error.status)
    if isinstance(error, Unavailable):
        response.headers["retry-after"] = str(error.retry_after)
    if isinstance(error, RequestTimeout):
        response.headers["connection"] = "close"  # the rest of the request may still arrive
    if isinstance(error, WrongMethod):
        response.headers["allow"] = "POST"
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    response = json({"error": f"{phrase}: {request.method} {request.url.path}"}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _driftline_error(request: Request, error: Exception) -> Response:
    return failure(error)


async def _internal_error(request: Request, error: Exception) -> Response:
    return failure(internal_error(error))  # Starlette logs it


HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    DriftlineError: _driftline_error,
    HTTPException: _http_error,
    Exception: _internal_error,
}
"""Exception handlers of a Starlette application."""
