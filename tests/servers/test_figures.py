"""The arithmetic of bench/servers, on figures that are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bench.open_loop import percentile
from bench.servers.figures import MEASURES, Figures
from bench.servers.judge import targets
from bench.servers.visit import Seen
from bench.servers.works import BINARY_64, MEMORY, OPEN_LOOP, ROW_1, ROW_64, START
from hypothesis import given
from hypothesis import strategies as st


def rates(server: str, *values: float, work: str = ROW_64.name, **more: float) -> list[Seen]:
    """A server's rate in rounds 0, 1, ..."""
    return [Seen(number, server, work, {"rate": value, **more}) for number, value in enumerate(values)]


def times(server: str, work: str, figure: str, *values: float) -> list[Seen]:
    """A server's time in rounds 0, 1, ..."""
    return [Seen(number, server, work, {figure: value}) for number, value in enumerate(values)]


def test_a_ratio_is_taken_within_a_round() -> None:
    figures = Figures(rates("a", 10, 200, 30) + rates("b", 1, 100, 2))
    ratio = figures.ratio("a", "b", ROW_64.name, "rate")
    assert ratio is not None
    assert ratio.values == (10, 2, 15)
    assert ratio.median == 10
    assert f"{ratio:.3g}" == "10 ± 65%"


def test_a_round_that_one_of_them_lacks_is_left_out() -> None:
    lacking = [Seen(1, "b", ROW_64.name, {}, "it stopped"), *rates("b", 5)]
    figures = Figures(rates("a", 10, 20, 30) + lacking)
    ratio = figures.ratio("a", "b", ROW_64.name, "rate")
    assert ratio is not None
    assert ratio.values == (2,)
    assert figures.ratio("a", "c", ROW_64.name, "rate") is None
    assert figures.reasons("b") == ["it stopped"]


@pytest.mark.parametrize(("failed", "kept"), [(0.0, True), (0.001, True), (0.0011, False), (1.0, False)])
def test_a_rate_with_many_failures_is_no_figure(failed: float, kept: bool) -> None:
    figures = Figures(rates("a", 10, failed=failed))
    assert (figures.sample("a", ROW_64.name, "rate") is not None) == kept
    assert figures.failed("a", ROW_64.name) == failed


def test_no_answer_is_no_figure() -> None:
    assert Figures(rates("a", 0, failed=0.0)).sample("a", ROW_64.name, "rate") is None


def test_what_is_answered_by_a_second_of_cpu() -> None:
    figures = Figures(rates("two", 180, cores=2.0) + rates("one", 100, cores=1.0))
    ratio = figures.per_core_second("two", "one", ROW_64.name)
    assert ratio is not None
    assert ratio.median == pytest.approx(0.9)


def test_one_work_beside_another() -> None:
    figures = Figures(rates("a", 30, 60) + rates("a", 33, 90, work=BINARY_64.name))
    ratio = figures.across("a", BINARY_64.name, ROW_64.name, "rate")
    assert ratio is not None
    assert ratio.values == (1.1, 1.5)


def test_wins_are_of_both_kinds_the_best_first() -> None:
    figures = Figures(
        [
            *rates("driftline", 10),
            *rates("fast", 20),
            *rates("faster", 40),
            *rates("slow", 5),
            *times("driftline", START, "seconds", 1.0),
            *times("fast", START, "seconds", 0.25),
            *times("slow", START, "seconds", 2.0),
        ]
    )
    found = [(m.title, o, t) for m, o, t in figures.wins("driftline", ["fast", "faster", "slow"])]
    assert found == [
        ("1 x 30 JSON, c=64", "faster", 4.0),
        ("1 x 30 JSON, c=64", "fast", 2.0),
        ("cold start", "fast", 4.0),
    ]


@given(st.sampled_from(MEASURES), st.floats(0.01, 100), st.floats(0.01, 100))
def test_better_than_one_means_better(measure: object, mine: float, theirs: float) -> None:
    better: Callable[[float], float] = measure.better  # type: ignore[attr-defined]
    more = mine > theirs if measure.sign > 0 else mine < theirs  # type: ignore[attr-defined]
    assert (better(mine / theirs) > 1) == more or mine == pytest.approx(theirs)


def test_neighbours_are_those_of_the_middle_visit() -> None:
    seen = [Seen(n, "a", "neighbours, trees", {"cores": c}) for n, c in enumerate((0.0, 0.01, 1.5))]
    assert Figures(seen).neighbours() == 0.01


def test_promises_are_judged_against_the_peer_that_comes_nearest() -> None:
    seen = rates("driftline", 1000) + rates("nginx", 2000) + rates("mosec", 250)
    seen += times("driftline", OPEN_LOOP, "p99_ms", 1.0) + times("mosec", OPEN_LOOP, "p99_ms", 10.0)
    seen += times("litserve", OPEN_LOOP, "p99_ms", 4.0)
    seen += times("driftline", ROW_1.name, "p50_ms", 0.3) + times("nginx", ROW_1.name, "p50_ms", 0.1)
    seen += times("driftline", MEMORY, "rss_mb", 230.0)
    judged = {target.what: (target.measured, target.met) for target in targets(Figures(seen))}
    assert judged == {
        "1 x 30 JSON, c=64, times nginx": (0.5, True),
        "1 x 30 JSON, c=64, times mosec": (4.0, True),
        "1 x 30 JSON, c=1, p50, times nginx": (3.0, False),
        "open loop, p99, of the best peer's (litserve)": (0.25, False),
        "RSS, MB": (230.0, False),
    }


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_so_many_are_not_above(
    values: list[float], percent: int
) -> None:
    enough = [one for one in values if sum(other <= one for other in values) * 100 >= percent * len(values)]
    assert percentile(values, percent) == min(enough)
