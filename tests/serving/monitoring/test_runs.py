"""Windows and alarms as MLflow's metrics and tags: their names, and what is lost while the server is away."""

from __future__ import annotations

import posixpath
import re
import threading
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from server_process import receiver

from driftline.config import Server
from driftline.errors import ConfigError
from driftline.monitor.detection.signals import Signal
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting.outbox import Outbox
from driftline.registry.source import Version
from driftline.serving.monitoring.runs import MAX_WAITING, Runs, metrics_of, mlflow_name, tag_of

VERSION = Version("flights", 3)
SIGNAL = Signal(
    "alarm", "flights", 3, "dep delay", datetime(2026, 1, 2, tzinfo=UTC), 1000, 14.0, (), {}, "mean up 0.4 sd"
)


def mlflow_takes(name: str) -> bool:
    """mlflow.utils.validation: validate_param_and_metric_name, path_not_unique, MAX_ENTITY_KEY_LENGTH."""
    normal = posixpath.normpath(name)
    unique = normal == name and normal != "." and not normal.startswith(("..", "/"))
    return bool(re.match(r"^[/\w.\- :]*$", name)) and unique and len(name) <= 250


@given(st.text(max_size=300))
@example("..")
@example("a\n")
def test_every_column_has_a_name_that_mlflow_takes(column: str) -> None:
    assert mlflow_takes(f"kolmogorov_smirnov/{mlflow_name(column)}")
    assert mlflow_takes(f"driftline.alarm.{mlflow_name(column)}")


@given(st.lists(st.text("a_/(%é.", max_size=4), unique=True))
def test_no_two_columns_have_one_name(columns: list[str]) -> None:
    assert len({mlflow_name(column) for column in columns}) == len(columns)


@pytest.mark.parametrize("column", ["age", "dep delay", "x_1", "größe", "a.b-c:d"])
def test_a_name_that_fits_stays(column: str) -> None:
    assert mlflow_name(column) == column


def test_the_metrics_of_a_window() -> None:
    random = np.random.default_rng(1)
    profile = Profile.fit({"age": random.normal(size=2000), "city": random.choice(["a", "b"], 2000)})
    monitor = Monitor(profile)
    ages = random.normal(1.0, size=1000)
    ages[:100] = np.nan
    monitor.observe({"age": ages, "city": random.choice(["a", "b"], 1000)})
    report = monitor.report()
    metrics = dict(metrics_of(report))
    assert next(iter(metrics)) == "rows"
    assert metrics["rows"] == 1000
    assert metrics["psi/age"] == report["age"].statistics["psi"].value
    assert metrics["mean/age"] == pytest.approx(np.nanmean(ages))
    assert metrics["missing_rate/age"] == 0.1
    assert {name for name in metrics if name.endswith("/city")} == {
        "psi/city", "jensen_shannon/city", "missing_rate/city"
    }  # fmt: skip
    assert "kolmogorov_smirnov/age" in metrics
    assert "wasserstein/age" in metrics


def test_an_alarm_is_a_tag() -> None:
    assert tag_of(SIGNAL) == ("driftline.alarm.dep delay", "2026-01-02 00:00:00+00:00 mean up 0.4 sd")


def test_what_waits_for_a_server_that_is_away_is_bounded_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with receiver() as (url, _):
        pass
    port = url.split(":")[-1].split("/")[0]
    runs = Runs(f"http://me:secret@127.0.0.1:{port}")
    for _ in range(MAX_WAITING + 50):
        runs.alarm(VERSION, SIGNAL)
    assert runs.dropped >= 49  # one may be on its way
    runs.close()
    assert runs.dropped == MAX_WAITING + 50
    drops = f"tracking: {MAX_WAITING} wait already, so the oldest were dropped, "
    assert f"{drops}1 in all: flights 3" in caplog.text
    assert caplog.text.count(drops) == 2
    assert caplog.text.count("windows and alarms wait") == 1
    assert "windows and alarms were not written to http://127.0.0.1" in caplog.text
    assert "secret" not in caplog.text


def test_what_there_is_no_time_for_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, taken, go = Outbox.close, threading.Event(), threading.Event()

    def stall(*_: object) -> None:
        taken.set()
        go.wait(30)

    monkeypatch.setattr(Runs, "_write_alarm", stall)
    monkeypatch.setattr(Outbox, "close", lambda self: close(self, 0.1))
    runs = Runs("http://127.0.0.1:1")
    for _ in range(3):
        runs.alarm(VERSION, SIGNAL)
    assert taken.wait(30)
    runs.close()
    go.set()
    assert "3 windows and alarms were not written to http://127.0.0.1:1" in caplog.messages


def test_a_version_without_windows_has_no_run_to_finish(caplog: pytest.LogCaptureFixture) -> None:
    with receiver() as (url, posts):
        runs = Runs(f"http://{url.split('/')[2]}")
        runs.finish(VERSION)
        runs.close()
    assert posts == []
    assert caplog.text == ""


@pytest.mark.parametrize("named", ["models", "/srv/me/models"])
def test_a_registry_that_is_none_of_mlflows_is_refused(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=r"track = true: expected an MLflow server's http:// URL .* got"):
        Runs.of(Server(registry=named, track=True))


def test_another_server_is_named_by_mlflows_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    Runs.of(Server(registry="models", track=True)).close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db/mlflow")
    with pytest.raises(ConfigError, match="got 'postgresql'") as refusal:
        Runs.of(Server(registry="http://127.0.0.1:1", track=True))
    assert "secret" not in str(refusal.value)
