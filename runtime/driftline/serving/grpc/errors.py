"""gRPC's view of an error: HTTP's message, and the code for HTTP's status."""

from __future__ import annotations

import grpc

from driftline.answers import client_error
from driftline.errors import DriftlineError

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the code and the message of an error; log it if it is unexpected."""
    driftline_error = client_error(error)
    return _CODES.get(driftline_error.status, grpc.StatusCode.INTERNAL), str(driftline_error)


def page_error(status: int, message: str) -> DriftlineError:
    """Return the error that an HTTP page responded with."""
    error = DriftlineError(message)
    error.status = status
    return error
