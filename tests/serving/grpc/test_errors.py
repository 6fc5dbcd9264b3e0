from __future__ import annotations

import logging

import grpc
import pytest

from driftline.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    DriftlineError,
    ModelError,
    NotFound,
    TooLarge,
    Unavailable,
)
from driftline.serving.grpc.errors import page_error, status_of

Status = grpc.StatusCode


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadRequest("that"), Status.INVALID_ARGUMENT),
        (NotFound("that"), Status.NOT_FOUND),
        (TooLarge("that"), Status.RESOURCE_EXHAUSTED),
        (Unavailable("that"), Status.UNAVAILABLE),
        (DeadlineExceeded("that"), Status.DEADLINE_EXCEEDED),
        (Cancelled("that"), Status.CANCELLED),
        (ModelError("that"), Status.INTERNAL),
        (page_error(404, "that"), Status.NOT_FOUND),
        (page_error(418, "that"), Status.INTERNAL),
    ],
)
def test_a_code_for_each_status(error: DriftlineError, code: grpc.StatusCode) -> None:
    assert status_of(error) == (code, "that")


def test_what_nobody_meant_to_raise_is_ours_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    code, message = status_of(KeyError("secret"))
    assert code is Status.INTERNAL
    assert message == "internal error: KeyError; the server's log says more"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
