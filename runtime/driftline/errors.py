"""The exceptions, named by whose fault they are, and how messages name values.

Each error is raised once, where the fault is known, with a message that names the thing, what was
expected and what came. Servers turn it into an HTTP status, commands into an exit code and one line.
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class DriftlineError(Exception):
    """The base of all errors that driftline raises on purpose.

    `status` is its HTTP status, `reason` its label in Triton's `nv_inference_request_failure`.
    """

    status = 500
    reason = "OTHER"


class BadRequest(DriftlineError):
    """The caller sent something that does not fit: a tensor, a file, an argument."""

    status = 400


class SignatureViolation(BadRequest):
    """The data does not match the signature with which a model was logged in MLflow."""


class Forbidden(DriftlineError):
    """The caller is not authorised."""

    status = 403


class NotFound(DriftlineError):
    """There is no such model, version or alias."""

    status = 404


class WrongMethod(DriftlineError):
    """The path accepts only POST."""

    status = 405


class UnsupportedMedia(DriftlineError):
    """The body's content type is not supported."""

    status = 415


class TooLarge(DriftlineError):
    """The request is larger than the server's settings allow."""

    status = 413


class RequestTimeout(DriftlineError):
    """The client took too long to send its request."""

    status = 408


class Unavailable(DriftlineError):
    """Too busy, or not ready; retry after `retry_after` seconds."""

    status = 503
    reason = "REJECTED"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Stopping(Unavailable):
    """The server accepts no more requests."""

    def __init__(self, message: str = "the server is stopping", retry_after: int = 1) -> None:
        super().__init__(message, retry_after)


class DeadlineExceeded(DriftlineError):
    """The request's own deadline passed before its response was ready."""

    status = 504
    reason = "REJECTED"


class ModelError(DriftlineError):
    """A model's files can't be loaded, or the model failed to run."""

    reason = "BACKEND"


class RegistryError(DriftlineError):
    """A registry can't be read or written."""


class ConfigError(DriftlineError):
    """A setting is wrong; the message names file, key, value and what is allowed."""

    status = 400


class Cancelled(DriftlineError):
    """The client has disconnected, and will not see this. 499 is nginx's status for it."""

    status = 499
    reason = "CANCELED"


def listed(names: Iterable[object], limit: int = 20) -> str:
    """Format names for a message: the first `limit`, and how many more there are."""
    texts = [str(name) for name in names]
    more = [f"{len(texts) - limit} more"] if len(texts) > limit else []
    return ", ".join([*texts[:limit], *more]) or "none"


class _JsonRepr(reprlib.Repr):
    """Finds these by the names of types."""

    def repr_NoneType(self, value: None, level: int) -> str:  # noqa: N802
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return "true" if value else "false"


_REPR = reprlib.Repr()
_JSON = _JsonRepr()
for _formatter in (_REPR, _JSON):
    _formatter.maxlevel, _formatter.maxlist, _formatter.maxdict, _formatter.maxstring = 4, 8, 8, 80


def shorten(value: object, limit: int = 60) -> str:
    """Return a value's repr for a message, cut to `limit` characters, however long or deep it is."""
    return _truncate(_REPR.repr(value), limit)


def shown(value: object) -> str:
    """As `shorten`, for a value from JSON: null, true and false instead of Python's words."""
    return _truncate(_JSON.repr(value), 60)


def shown_with_type(value: object) -> str:
    """As `shown`, for a value of the wrong type: strings are marked, as text may look like a number."""
    return f"{shown(value)} (string)" if type(value) is str else shown(value)


def _truncate(text: str, limit: int) -> str:
    if "\n" in text:  # as arrays and series have it
        text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
