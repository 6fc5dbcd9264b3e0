"""What can go wrong, named by whose fault it is, and how messages name values.

Each error is raised once, where the fault is known, with a message that names the thing, what was
expected and what came. At the doors it becomes an HTTP status or an exit code with one line.
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
    """What came is not what the signature says that a model was logged with in MLflow."""


class Forbidden(DriftlineError):
    """The caller has not shown that it may ask for this."""

    status = 403


class NotFound(DriftlineError):
    """No such model, version or alias."""

    status = 404


class WrongMethod(DriftlineError):
    """Only POST is answered here."""

    status = 405


class UnsupportedMedia(DriftlineError):
    """A body of a content type that nobody reads here."""

    status = 415


class TooLarge(DriftlineError):
    """More than this server is set to take in one request."""

    status = 413


class RequestTimeout(DriftlineError):
    """The client took too long to send its request."""

    status = 408


class Unavailable(DriftlineError):
    """Too busy, or not ready; try again after `retry_after` seconds."""

    status = 503
    reason = "REJECTED"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Stopping(Unavailable):
    """The server takes no more."""

    def __init__(self, message: str = "the server is stopping", retry_after: int = 1) -> None:
        super().__init__(message, retry_after)


class DeadlineExceeded(DriftlineError):
    """The request's own deadline passed before its answer was there."""

    status = 504
    reason = "REJECTED"


class ModelError(DriftlineError):
    """A model's files can't be loaded, or the model failed at work."""

    reason = "BACKEND"


class RegistryError(DriftlineError):
    """A registry can't be read or written."""


class ConfigError(DriftlineError):
    """A setting is wrong; the message names file, key, value and what is allowed."""

    status = 400


class Cancelled(DriftlineError):
    """The client has gone; nobody reads this. 499 is nginx's status for it."""

    status = 499
    reason = "CANCELED"


def listed(names: Iterable[object], most: int = 20) -> str:
    """Names for a message: the first, and how many more there are."""
    texts = [str(name) for name in names]
    more = [f"{len(texts) - most} more"] if len(texts) > most else []
    return ", ".join([*texts[:most], *more]) or "none"


class _JsonRepr(reprlib.Repr):
    """Finds these by the names of types."""

    def repr_NoneType(self, value: None, level: int) -> str:  # noqa: N802
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return "true" if value else "false"


_REPR = reprlib.Repr()
_JSON = _JsonRepr()
for _each in (_REPR, _JSON):
    _each.maxlevel, _each.maxlist, _each.maxdict, _each.maxstring = 4, 8, 8, 80


def shorten(value: object, most: int = 60) -> str:
    """A value for a message: its repr, cut, however long or deep it is."""
    return _cut(_REPR.repr(value), most)


def shown(value: object) -> str:
    """The same of what came as JSON, which has null, true and false for Python's words."""
    return _cut(_JSON.repr(value), 60)


def told(value: object) -> str:
    """The same of a value of the wrong type: '1 (string)', for text may look like a number."""
    return f"{shown(value)} (string)" if type(value) is str else shown(value)


def _cut(text: str, most: int) -> str:
    if "\n" in text:  # as arrays and series have it
        text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
