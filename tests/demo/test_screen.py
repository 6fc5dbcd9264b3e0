from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from yarl import URL

from driftline.demo.replay import ANSWER, Replay
from driftline.demo.screen import Screen


@pytest.fixture
def live() -> pd.DataFrame:
    scheduled = pd.date_range("2013-04-01", periods=100, freq="h", tz="America/New_York")
    return pd.DataFrame({"scheduled": scheduled, "late": [False, True] * 50})


def replay_of(answers: np.ndarray) -> Replay:
    replay = Replay(URL("http://127.0.0.1/"), np.zeros((100, 1), np.float32), ease_at=33)
    replay._answers[: len(answers)] = answers
    replay._answered = len(answers)
    return replay


def test_the_summary_has_a_row_for_each_version(
    live: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = np.zeros(100, ANSWER)
    answers["row"] = np.arange(100)
    answers["finished"] = 1 + np.arange(100) / 100
    answers["latency"] = 0.01
    answers["version"] = [4] * 60 + [5] * 40
    answers["easy"][33:60] = True
    answers["probability"] = np.where(answers["version"] == 4, 0.1, live["late"])
    Screen().summary(replay_of(answers), live)
    rows = {
        " ".join(line.split()[:-7]): line.split()[-7:]
        for line in capsys.readouterr().out.splitlines()
        if line
    }
    assert rows["version 4"] == ["33", "100", "10.0", "10.0", "51.5%", "51.5%", "0.500"]
    assert rows["while next trains"][0] == "27"
    assert rows["version 5"] == ["40", "100", "10.0", "10.0", "100.0%", "50.0%", "1.000"]
    assert rows["all"][0] == "100"


def test_the_summary_of_nothing_but_failures_says_why(
    live: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    replay = replay_of(np.zeros(0, ANSWER))
    replay.failures['400 {"error":"[/] expected shape [-1, 16]"}'] = 100
    Screen().summary(replay, live)
    assert 'failed    100 × 400 {"error":"[/] expected shape [-1, 16]"}' in capsys.readouterr().out
