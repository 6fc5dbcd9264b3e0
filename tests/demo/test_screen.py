from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from yarl import URL

from driftline.demo.drift import Window
from driftline.demo.replay import ANSWER, Replay
from driftline.demo.screen import Screen


def column(name: str, value: float, words: str) -> dict[str, object]:
    return {"name": name, "words": words, "statistics": {"psi": {"value": value, "null": 0.125}}}


@pytest.fixture
def window() -> Window:
    """Of the first 40 flights."""
    answers = np.zeros(40, ANSWER)
    answers["row"] = np.arange(40)
    columns = [
        column("dest", 0.5, 'category "LAX" 3 % -> 1 %'),
        column("temp", 3.25, "mean up 1.9 sd"),
        column("dewp", 0.01, "no single change stands out"),
        column("probabilities_1", 0.25, "mean down 0.1 sd"),
    ]
    alarms = [
        {"column": name, "rows": rows, "words": ""}
        for name, rows in (("temp", 200), ("", 300), ("month", 1400), ("a", 1), ("b", 2), ("c", 3))
    ]
    return Window(4, answers, {"rows": 40, "columns": columns, "changes": [], "alarms": alarms})


@pytest.fixture
def live() -> pd.DataFrame:
    scheduled = pd.date_range("2013-04-01", periods=100, freq="h", tz="America/New_York")
    return pd.DataFrame({"scheduled": scheduled, "late": [False, True] * 50})


def replay_of(answers: np.ndarray) -> Replay:
    replay = Replay(URL("http://127.0.0.1/"), {"flight": np.zeros(100)}, throttle_at=33)
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
    answers["throttled"][33:60] = True
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


def test_a_window_tells_of_alarms_and_of_the_columns_of_most_drift(
    window: Window, live: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    Screen().drift(window, live)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "drift     1 Apr to 2 Apr, version 4: alarms: temp after 200 flights, all columns 300, "
        "month 1,400, a 1, b 2, 1 more",
        "          temp            PSI 3.2, 0.12 by chance: mean up 1.9 sd",
        '          dest            PSI 0.50, 0.12 by chance: category "LAX" 3 % -> 1 %',
        "          probabilities_1 PSI 0.25, 0.12 by chance: mean down 0.1 sd",
    ]


def test_a_window_without_alarms_says_so(
    window: Window, live: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = replace(window, report={**window.report, "alarms": []})
    Screen().drift(quiet, live)
    assert capsys.readouterr().out.startswith("drift     1 Apr to 2 Apr, version 4: no alarm\n")


def test_the_months_have_a_row_for_each_window(
    window: Window, live: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    Screen().months([window, window], live)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    quality, drift = (
        [line.split()[5:] for line in part.splitlines()[1:]] for part in out.strip().split("\n\n")[:2]
    )
    assert quality == 2 * [["4", "40", "50.0%", "50.0%", "0.500", "0", "6"]]
    assert drift == 2 * [["3.2", "0.01", "0.50", "0.25", "0.12"]]


def test_the_summary_of_nothing_but_failures_says_why(
    live: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    replay = replay_of(np.zeros(0, ANSWER))
    replay.failures['400 {"error":"[/] expected shape [-1]"}'] = 100
    Screen().summary(replay, live)
    assert 'failed    100 × 400 {"error":"[/] expected shape [-1]"}' in capsys.readouterr().out
