"""What one fault upstream has changed is told as one thing, the worst first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from driftline.monitor.comparison.statistics import Statistic
from driftline.monitor.detection.grouping import groups
from driftline.monitor.detection.onset import Onset
from driftline.monitor.detection.signals import Signal

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def signal(
    column: str,
    raised: int,
    began: int | None = None,
    psi: float = 0.5,
    kind: str = "alarm",
    first: bool = False,
) -> Signal:
    """Of a column, told and begun so many seconds after noon."""
    when = NOON + timedelta(seconds=raised)
    onset = None if began is None else Onset(NOON + timedelta(seconds=began), 900, first)
    words, statistics = f"mean of {column}", {"psi": Statistic(psi)}
    return Signal(kind, "m", 1, column, when, 1_500, 20.0, (), statistics, words, onset)


def test_what_had_begun_when_the_first_was_told_is_one_thing_the_worst_first() -> None:
    fault = [signal(f"x_{index}", 10 + index, 5, psi=index) for index in range(5)]
    later = signal("y", 90, 80)
    (group, later_group) = groups([later, *fault])
    assert group.signals == tuple(fault)
    assert later_group.signals == (later,)
    text = group.describe(6)
    assert text.startswith(
        "5 of 6 columns, 2026-03-01 12:00:10 to 2026-03-01 12:00:14 UTC, after 1,500 rows, "
        "since about 2026-03-01 12:00:05 UTC, 900 rows before: x_4 (PSI 4: mean of x_4), x_3 (PSI 3: "
    )
    assert "2 more; so many about at once" in text
    assert text.endswith("look first at where the data comes from")
    assert "so many" not in group.describe(50)
    assert later_group.describe(6) == (
        "y, 2026-03-01 12:01:30 UTC, after 1,500 rows, "
        "since about 2026-03-01 12:01:20 UTC, 900 rows before: mean of y"
    )


def test_all_columns_from_the_first_row_on_are_a_question_of_the_profile() -> None:
    (group,) = groups([signal(f"x_{index}", 9, 0, first=True) for index in range(3)])
    assert group.describe(3).endswith(
        "mean of x_2); so many from the first row on: is the profile of data like this?"
    )
    (mixed,) = groups([signal(f"x_{index}", 9, 0, first=index < 2) for index in range(3)])
    assert mixed.describe(3).endswith("look first at where the data comes from")


def test_so_many_are_no_hint_where_nobody_knows_since_when() -> None:
    (group,) = groups([signal(f"x_{index}", 9) for index in range(3)])
    assert "so many" not in group.describe(3)


def test_two_are_not_many() -> None:
    (group,) = groups([signal(f"x_{index}", 9, 5) for index in range(2)])
    assert "so many" not in group.describe(2)


def test_kinds_are_apart_and_an_alarm_is_a_change_that_is_told_once() -> None:
    signals = [signal("a", 9, 0), signal("a", 5, 0, kind="change"), signal("b", 5, 0, kind="change")]
    assert [(group.kind, len(group.signals)) for group in groups(signals)] == [("alarm", 1), ("change", 1)]


def test_signals_without_an_onset_belong_to_their_look() -> None:
    signals = [signal("a", 9), signal("b", 9), signal("c", 10), signal("", 9)]
    group, other = groups(signals)
    assert {each.column for each in group.signals} == {"a", "b", ""}
    assert group.describe(3).startswith(
        "2 of 3 columns and of the model as a whole, 2026-03-01 12:00:09 UTC, after 1,500 rows: "
    )
    assert [each.column for each in other.signals] == ["c"]
    assert groups([]) == []
