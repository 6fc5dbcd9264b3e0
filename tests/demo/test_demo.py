from __future__ import annotations

import pytest

from driftline.demo import demo
from driftline.demo.demo import run
from driftline.errors import BadRequest


def test_it_names_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "xgboost" else name)
    with pytest.raises(BadRequest, match=r"needs xgboost: pip install 'driftline\[cpu,demo\]'"):
        run("models", "127.0.0.1", 0, None)


def test_too_few_rows_for_two_versions_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"expected at least 10.* got 3"):
        run("models", "127.0.0.1", 0, 3)
