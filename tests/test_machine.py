from __future__ import annotations

import os
from pathlib import Path

import pytest

from driftline.machine import available_cores


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for content, cores in {
        "max 100000": 8,
        "250000 100000": 2,
        "1000 100000": 1,
        "9900000 100000": 8,
    }.items():
        monkeypatch.setattr(Path, "read_text", lambda self, content=content, **_: content)
        assert available_cores() == cores
    for content in ("", "a b", "1 0 0"):
        monkeypatch.setattr(Path, "read_text", lambda self, content=content, **_: content)
        assert available_cores() == 8
