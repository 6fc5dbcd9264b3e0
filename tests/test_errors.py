from __future__ import annotations

import pytest

from driftline import errors
from driftline.serving.metrics import FAILURE_REASONS

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_a_status_a_reason_and_its_message(kind: type[errors.DriftlineError]) -> None:
    error = kind("what was expected, what came")
    assert isinstance(error, errors.DriftlineError)
    assert 400 <= error.status < 600
    assert error.reason in FAILURE_REASONS
    assert str(error) == "what was expected, what came"
    assert kind.__doc__


def test_unavailable_says_when_to_come_back() -> None:
    assert errors.Unavailable("full").retry_after == 1
    assert errors.Unavailable("full", 7).retry_after == 7
