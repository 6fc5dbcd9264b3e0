"""Answers in JSON, and what clients see of errors."""

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
    """A JSON answer."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def failure(error: Exception) -> Response:
    """What a client sees of an error; one that nobody meant to raise is logged."""
    told = known(error)
    return _refusal(told, {"error": str(told)})


def mlflow_failure(error: Exception) -> Response:
    """The same in MLflow's form, whose error codes tell no more than the status, but for signatures."""
    told = known(error)
    code = _MLFLOW_CODES.get(told.status, "BAD_REQUEST")
    if isinstance(told, SignatureViolation):
        code = "INVALID_PARAMETER_VALUE"
    return _refusal(told, {"error_code": code, "message": str(told)})


def bug(error: Exception) -> DriftlineError:
    """What an error that nobody meant to raise is to a client."""
    return DriftlineError(f"internal error: {type(error).__name__}; the server's log says more")


def known(error: Exception) -> DriftlineError:
    """An error as clients may know it; one that nobody meant to raise is logged."""
    if isinstance(error, DriftlineError):
        return error
    log.error("a request failed", exc_info=error)
    return bug(error)


def _refusal(error: DriftlineError, content: dict[str, str]) -> Response:
    response = json(content, error.status)
    if isinstance(error, Unavailable):
        response.headers["retry-after"] = str(error.retry_after)
    if isinstance(error, RequestTimeout):
        response.headers["connection"] = "close"  # what may still come is nobody's
    if isinstance(error, WrongMethod):
        response.headers["allow"] = "POST"
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    response = json({"error": f"{phrase}: {request.method} {request.url.path}"}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _known_error(request: Request, error: Exception) -> Response:
    return failure(error)


async def _bug(request: Request, error: Exception) -> Response:
    return failure(bug(error))  # Starlette logs it


HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    DriftlineError: _known_error,
    HTTPException: _http_error,
    Exception: _bug,
}
"""What a Starlette application is to answer to errors."""
