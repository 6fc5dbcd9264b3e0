"""Kernels are loaded beside the first requests, whenever there is room for them."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from driftline.serving import kernels


def test_what_cannot_be_loaded_now_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []
    waits: list[float] = []

    def load() -> None:
        tries.append(len(tries))
        if len(tries) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "numba.py")

    monkeypatch.setattr(kernels.compiling, "load", load)
    monkeypatch.setattr(kernels, "sleep", waits.append)
    with caplog.at_level(logging.ERROR, "driftline.serving"):
        kernels.load_until_done([])
    assert waits == [1.0, 2.0]
    assert caplog.messages == [
        "kernels can't be loaded: [Errno 24] Too many open files: 'numba.py'; requests take longer; "
        f"next try in {wait} s"
        for wait in (1, 2)
    ]
