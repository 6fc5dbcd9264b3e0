"""The search for settings, on machines that are made up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import httpx
import pytest
from onnx_models import scale

from driftline.config import ServerFile
from driftline.errors import DriftlineError
from driftline.load import tune
from driftline.load.bench import Point
from driftline.load.pace import SECOND, Answer, Outcome
from driftline.load.server import serving
from driftline.load.tune import REPEATS, Settings, Trial, Tuning
from driftline.registry.source import Registry

START = Settings(max_batch_rows=128, instances=1, threads=0)
Carried = Callable[[Settings], float]


def search(monkeypatch: pytest.MonkeyPatch, carried: Carried, batched: bool = True) -> Tuning:
    """A search on a machine of 4 cores that carries so much."""

    def measure(self: Tuning, trial: Trial) -> None:
        rate = carried(trial.settings)
        outcome = Outcome(elapsed_ns=SECOND)
        outcome.add(Answer(0, 10_000_000, None))
        trial.knees.append(Point(1, rate, "own", outcome) if rate else None)
        trial.rows_a_batch.append(1.0)

    monkeypatch.setattr(Tuning, "measure", measure)
    monkeypatch.setattr(tune, "available_cores", lambda: 4)
    tuning = Tuning(Path("m"), "m", START, {}, 20.0, 1, 1.0, lambda *shown: None, batched=batched)
    tuning.run()
    return tuning


def test_it_climbs_to_what_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    def carried(settings: Settings) -> float:
        batch = 1000 / (1 + abs(settings.max_batch_rows - 32) / 32)
        return (
            batch * {1: 1.0, 2: 1.5, 4: 1.2}[settings.instances] * {0: 1.0, 1: 1.3}.get(settings.threads, 0.9)
        )

    found = search(monkeypatch, carried)
    assert found.best.settings == Settings(max_batch_rows=32, instances=2, threads=1)
    assert found.best.per_second == pytest.approx(1950)
    assert "max_batch_rows = 32, instances = 2, threads = 1: 1,950 requests/s" in found.conclusion()
    tried = [trial.settings for trial in found.trials]
    assert len(tried) == len(set(tried)) < 20


def test_what_gains_less_than_5_percent_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(monkeypatch, lambda settings: 1000 if settings == START else 1040)
    assert found.best.settings == START
    assert found.trials[1].verdict == "+4%, not kept"
    assert "as it was, 1,000 requests/s" in found.conclusion()
    assert all(len(trial.knees) == 1 for trial in found.trials[1:])


def test_a_gain_that_does_not_repeat_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    lucky = cycle([1200, 900, 950])
    found = search(monkeypatch, lambda settings: 1000 if settings == START else next(lucky))
    assert found.best.settings == START
    assert found.trials[1].verdict == "-5%, not kept"
    assert len(found.trials[1].knees) == REPEATS
    assert len(found.best.knees) > REPEATS


def test_a_gain_of_which_one_repeat_is_a_loss_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = cycle([1200, 900, 1300])
    found = search(monkeypatch, lambda settings: 1000 if settings == START else next(noisy))
    assert found.trials[1].verdict == "+20%, not kept"
    assert found.best.settings == START


def test_a_machine_that_is_not_quiet_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = cycle([1000, 700, 1300])
    found = search(monkeypatch, lambda settings: next(noisy) if settings == START else 1)
    assert found.conclusion().endswith("differed by ± 30% between runs: the machine is not quiet")


def test_rows_are_left_alone_where_they_do_not_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(monkeypatch, lambda settings: 1000, batched=False)
    assert {trial.settings.max_batch_rows for trial in found.trials} == {128}


def test_settings_that_meet_the_target_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(monkeypatch, lambda settings: 50 if settings.threads == 2 else 0)
    assert found.best.settings.threads == 2


def test_a_target_that_nothing_meets_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DriftlineError, match="m: no settings that were tried have a p99 of 20 ms at any rate"
    ):
        search(monkeypatch, lambda settings: 0)


@pytest.mark.parametrize(
    ("settings", "name", "up", "expected"),
    [
        (START, "max_batch_rows", True, Settings(256, 1, 0)),
        (Settings(1024, 1, 0), "max_batch_rows", True, None),
        (Settings(1, 1, 0), "max_batch_rows", False, None),
        (Settings(0, 1, 0), "max_batch_rows", True, None),
        (START, "instances", True, Settings(128, 2, 0)),
        (START, "instances", False, None),
        (START, "threads", True, None),
        (START, "threads", False, Settings(128, 1, 2)),
        (Settings(128, 2, 0), "threads", False, Settings(128, 2, 1)),
        (Settings(128, 2, 0), "threads", True, Settings(128, 2, 4)),
    ],
)
def test_neighbours(settings: Settings, name: str, up: bool, expected: Settings | None) -> None:
    assert settings.neighbours(name, up, cores=4) == expected


def test_the_servers_settings_keep_what_the_file_says_and_leave_no_history() -> None:
    tables = {"monitor": {"history": "history", "enabled": False}, "engine": {"spinning": True}}
    tuning = Tuning(Path("m"), "a.b", START, tables, 20.0, 1, 1.0, lambda *shown: None)
    assert tuning.config(Settings(64, 2, 1)) == (
        '[models."a.b".monitor]\nhistory = ""\nenabled = false\n'
        '[models."a.b".engine]\nspinning = true\ninstances = 2\nthreads = 1\n'
        '[models."a.b".batching]\nmax_batch_rows = 64\n'
    )


@pytest.mark.parametrize("alone", [True, False])
def test_what_becomes_of_the_registry_changes_no_trial(tmp_path: Path, alone: bool) -> None:
    file = scale(tmp_path / "m.onnx", 2.0)
    registry = Registry.open(tmp_path / "models")
    registry.register([file], "m")
    model = str(file) if alone else "m"
    tuning = Tuning.of(model, registry.uri, ServerFile(), 20.0, 1, 1.0, lambda *shown: None)
    (tmp_path / "models" / "m" / "aliases.json").write_text("{")
    with serving(tuning.path, tuning.name, tuning.config(tuning.start)) as url:
        assert httpx.get(f"{url}/v2/models/m").json()["name"] == "m"
