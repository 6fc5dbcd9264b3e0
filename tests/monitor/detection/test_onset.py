"""Since when columns differ, held against streams of which it is known; what is said of the rows since."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from bench.promise import Draw, beyond, tilted, uniform, unlogged

from driftline.monitor import checkpoint
from driftline.monitor.detection.onset import (
    MAX_SIZE,
    PER_SIZE,
    Look,
    Looks,
    Onset,
    since_when,
)
from driftline.monitor.detection.signals import Signal
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline_kernels import moments

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
REFERENCE = np.random.default_rng(0).standard_normal((10_000, 4)).astype(np.float32)


def live(rows: int, seed: int, shift: float = 0.0, columns: slice = slice(1)) -> dict[str, np.ndarray]:
    found = np.random.default_rng(seed).standard_normal((rows, 4)).astype(np.float32)
    found[:, columns] += np.float32(shift)
    return {"x": found}


def watched(**settings: object) -> tuple[Monitor, list[Signal]]:
    signals: list[Signal] = []
    profile = Profile.fit({"x": REFERENCE})
    return Monitor(profile, on_signal=signals.append, **settings), signals  # type: ignore[arg-type]


# -- the estimate ---------------------------------------------------------------------------------


def errors(draw: Draw, before: int, paths: int = 12) -> dict[str, list[int]]:
    """Rows from the true beginning to the estimate, of each kind's first signal after it."""
    found: dict[str, list[int]] = {"change": [], "alarm": []}
    for path in range(paths):
        random = np.random.default_rng((path, 5))
        first: dict[str, Signal] = {}
        monitor = Monitor(Profile.fit(uniform(random, 10_000)))
        with unlogged():
            while monitor.rows < before:
                monitor.observe(uniform(random, 1_000))
            monitor.acknowledge()
            while len(first) < 2 and monitor.rows < before + 10_000:
                monitor.observe(draw(random, 100, monitor.rows - before))
                for signal in monitor.signals:
                    if signal.kind not in first:
                        first[signal.kind] = signal
                        assert signal.onset is not None
                        found[signal.kind].append(monitor.rows - signal.onset.rows - before)
    return found


@pytest.mark.parametrize(
    ("draw", "kinds", "off"),
    [
        (tilted(0.1), ("change", "alarm"), 600),
        (tilted(0.25), ("change", "alarm"), 300),
        (tilted(1.0), ("change", "alarm"), 100),
        (beyond(0.01), ("change",), 400),
        (beyond(0.05), ("change", "alarm"), 300),
    ],
)
def test_an_onset_is_about_when_it_began(draw: Draw, kinds: tuple[str, ...], off: int) -> None:
    for before in (3_000, 20_000):
        found = errors(draw, before)
        for kind in kinds:
            assert len(found[kind]) == 12
            assert abs(median(found[kind])) <= 200
            assert sum(abs(error) > off for error in found[kind]) <= 2


def test_what_differs_from_the_first_row_on_is_said_to() -> None:
    monitor, signals = watched()
    monitor.observe(live(2_000, 1, shift=1))
    assert {signal.onset.first for signal in signals if signal.onset} == {True}
    assert {signal.onset.rows - signal.rows for signal in signals if signal.onset} == {0}


@pytest.mark.parametrize("psi", [0.05, 0.1])
def test_what_differs_mildly_from_the_first_row_on_is_said_to(psi: float) -> None:
    """It once was told with a time, if it took so long that the first looks were kept together by then."""
    for path in range(10):
        random = np.random.default_rng((path, 6))
        monitor = Monitor(Profile.fit(uniform(random, 10_000)))
        with unlogged():
            while not monitor.signals:
                monitor.observe(tilted(psi)(random, 100, monitor.rows))
        assert all(signal.onset is not None and signal.onset.first for signal in monitor.signals)


def evidence(shares: list[float], rows: list[int]) -> np.ndarray:
    """Of looks of so many rows, of which these shares are after a change that each row speaks for by 1."""
    after = np.array(rows, np.float64)
    return np.array([(2 * np.array(shares) - 1) * after, -after, after])


def test_a_change_may_begin_within_looks_that_are_kept_together() -> None:
    looks = filled(100)
    sizes = looks._sizes
    assert sizes[2] == 16
    before = sum(sizes[:2])
    for share, place in ((0.75, before + 4), (0.25, before + 12)):
        shares = [0.0, 0.0, share, *[1.0] * (len(sizes) - 3)]
        onset = looks.onset(evidence(shares, [100 * size for size in sizes]), 100)
        assert onset == Onset(datetime.fromtimestamp(place, UTC), 100 - place, False)


def test_what_began_within_the_first_looks_is_not_said_to_be_from_the_first_row_on() -> None:
    looks = filled(100)
    sizes = looks._sizes
    rows = [100 * size for size in sizes]
    all_of_them = looks.onset(evidence([1.0] * len(sizes), rows), 100)
    assert all_of_them == Onset(datetime.fromtimestamp(0, UTC), 100, True)
    most_of_them = looks.onset(evidence([0.75, *[1.0] * (len(sizes) - 1)], rows), 100)
    assert most_of_them == Onset(datetime.fromtimestamp(sizes[0] // 4, UTC), 100 - sizes[0] // 4, False)
    assert filled(1).onset(evidence([1.0], [100]), 1) is None


def test_a_signal_that_is_raised_anew_began_when_it_did() -> None:
    monitor, signals = watched()
    monitor.observe(live(5_000, 1))
    monitor.observe(live(1_000, 2, shift=1))
    monitor.acknowledge()
    monitor.observe(live(1_000, 3, shift=1))
    began = [signal.rows - signal.onset.rows for signal in signals if signal.kind == "alarm" and signal.onset]
    assert began[0] == 5_000
    assert len(began) == 2
    assert 4_500 <= began[1] <= 5_000  # older looks are kept together


def test_what_ended_long_ago_is_not_what_began_now() -> None:
    monitor, signals = watched()
    for seed, (rows, shift) in enumerate(((3_000, 0), (1_000, 1), (20_000, 0))):
        monitor.observe(live(rows, seed, shift))
    monitor.acknowledge()
    before = len(signals)
    monitor.observe(live(1_000, 9, shift=1))
    alarm = next(signal for signal in signals[before:] if signal.kind == "alarm")
    assert alarm.onset is not None
    assert alarm.onset.rows <= 1_000


@pytest.mark.parametrize("normal", [2_000, 3_000, 6_000])
def test_what_is_over_is_not_when_another_began(normal: int) -> None:
    """It once was: the first incident spoke more for the change than the rows between spoke against it."""
    monitor, signals = watched(look_rows=50)
    for seed, (rows, shift) in enumerate(((5_000, 0), (1_500, 1), (normal, 0))):
        monitor.observe(live(rows, seed, shift))
        monitor.acknowledge()
    before = len(signals)
    monitor.observe(live(1_000, 9, shift=1))
    raised = {signal.kind: signal for signal in signals[before:]}
    for signal in (raised["change"], raised["alarm"]):
        assert signal.onset is not None
        assert abs(signal.rows - signal.onset.rows - (6_500 + normal)) <= 100
        assert signal.words.startswith(("mean up 0.8", "mean up 0.9", "mean up 1"))


def test_columns_that_differ_only_together_tell_since_when() -> None:
    monitor, signals = watched(look_rows=50)
    monitor.observe(live(4_000, 1))
    monitor.observe(live(600, 2, shift=0.45, columns=slice(4)))
    together = [signal for signal in signals if not signal.column]
    assert all(signal.onset is not None and signal.onset.rows <= 900 for signal in together)


# -- what is said ---------------------------------------------------------------------------------


def test_words_and_statistics_are_of_the_rows_since_the_onset() -> None:
    """They once were of the window: of a long one, an alarm said that no single change stands out."""
    monitor, signals = watched()
    monitor.observe(live(300_000, 1))
    monitor.observe(live(2_000, 2, shift=1))
    alarm = next(signal for signal in signals if signal.kind == "alarm")
    assert alarm.column == "x_0"
    assert alarm.rows > 300_000
    assert alarm.words.startswith(("mean up 1 sd", "mean up 1.0 sd", "mean up 0.9 sd"))
    assert alarm.statistics["psi"].value > 0.5
    assert alarm.statistics["mean_shift"].value == pytest.approx(1, abs=0.2)


def test_rare_categories_beside_a_frequent_one_are_told_exactly() -> None:
    """They once were rounded with it: some that had risen by half were told to have doubled."""
    random = np.random.default_rng(1)
    rare = np.full(500, 1 / 1_000)
    names = [*(f"c{index}" for index in range(500)), "big"]
    shares, since = (np.append(each, 1 - each.sum()) for each in (rare, rare * np.repeat([1.5, 1], 250)))
    counted = random.multinomial(400_000, shares)
    signals: list[Signal] = []
    profile = Profile.fit({"c": np.repeat(names, counted)})
    monitor, alone = Monitor(profile, look_rows=0, on_signal=signals.append), Monitor(profile, look_rows=0)
    for each in (shares, shares, since):
        rows = {"c": np.repeat(names, random.multinomial(500_000, each))}
        monitor.observe(rows)
        monitor.report()
    alone.observe(rows)
    expected = alone.report()["c"]
    assert {signal.onset.rows for signal in signals if signal.onset} == {500_000}
    for signal in signals:
        assert signal.words == expected.words
        assert signal.statistics["psi"].value == expected.statistics["psi"].value


def test_words_of_an_onset() -> None:
    one, other = Onset(NOON, 1_200, False), Onset(NOON + timedelta(seconds=3), 900, False)
    assert since_when([]) == since_when([None]) == ""
    assert since_when([one]) == ", since about 2026-03-01 12:00:00 UTC, 1,200 rows before"
    assert since_when([None, one, one]) == since_when([one])
    assert since_when([other, one]) == ", since about 2026-03-01 12:00:00 to 2026-03-01 12:00:03 UTC"
    first = Onset(NOON, 1_200, True)
    assert since_when([first]) == ", since the first rows watched (2026-03-01 12:00:00 UTC) or before"
    assert Onset.of_dict(one.to_dict()) == one


def test_words_of_several_onsets_say_of_all_what_is_so_of_all() -> None:
    """Once rows were those of the first alone, and one that may have begun before was said to have begun."""
    one, first = Onset(NOON, 1_200, False), Onset(NOON, 1_200, True)
    told_later = replace(one, rows=1_300)
    assert since_when([one, told_later]) == ", since about 2026-03-01 12:00:00 UTC"
    later = replace(one, when=NOON + timedelta(seconds=3))
    assert (
        since_when([later, first]) == ", since about 2026-03-01 12:00:00 or before to 2026-03-01 12:00:03 UTC"
    )
    soon = replace(first, when=NOON + timedelta(milliseconds=3))
    assert since_when([soon, replace(first, rows=1_300)]).endswith(" 12:00:00 UTC) or before")


# -- what it costs --------------------------------------------------------------------------------


def most_memory(columns: int) -> int:
    """Bytes that are taken, at most, while all of so many columns change."""
    random = np.random.default_rng(0)
    monitor = Monitor(Profile.fit({"x": random.standard_normal((1_000, columns), np.float32)}))
    monitor.observe({"x": random.standard_normal((300, columns), np.float32)})
    with unlogged():
        tracemalloc.start()
        monitor.observe({"x": random.standard_normal((600, columns), np.float32) + np.float32(1)})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(monitor.signals) == 2 * columns
    return peak


def test_what_a_fault_costs_grows_as_the_columns_do() -> None:
    """It once grew with their square: a second of work and half a gigabyte, of 1,500 columns."""
    most_memory(100)  # what is loaded once
    assert most_memory(400) < 6 * most_memory(100)


# -- looks ----------------------------------------------------------------------------------------


def filled(number: int, bins: int = 3) -> Looks:
    looks = Looks(bins, 1)
    for index in range(number):
        counts = np.ones(bins, np.int64)
        looks.add(Look(counts, np.array([[1.0, index, 0.0, index, index]]), index, float(index)))
    return looks


@pytest.mark.parametrize("number", [1, 8, 9, 100, 12_345])
def test_looks_are_few_and_lose_no_row(number: int) -> None:
    looks = filled(number)
    assert len(looks._looks) <= PER_SIZE * number.bit_length() + 5
    starts = [look.rows for look in looks._looks]
    assert starts == sorted(starts)
    for size, start in zip(looks._sizes, starts, strict=True):
        assert size - 1 <= number - start - size
    whole = looks.total(Onset(NOON, number, True), number)
    np.testing.assert_allclose(whole.counts, number, rtol=0.01)
    mean = (number - 1) / 2
    np.testing.assert_allclose(whole.moments[0, [0, 1, 3, 4]], [number, mean, 0, number - 1], rtol=1e-6)


def test_looks_are_bounded() -> None:
    looks = filled(5_000, 1)
    assert len(looks._looks) <= PER_SIZE * MAX_SIZE.bit_length() + 4
    assert max(looks._sizes) == MAX_SIZE


def test_counts_are_kept_exactly_in_the_fewest_bytes() -> None:
    looks = Looks(3, 1)
    exact = np.zeros(3, np.int64)
    for index in range(10):
        counts = np.array([1, 10 ** (9 - index), 2**33 if index == 0 else 0])
        looks.add(Look(counts, moments.start(1), index, float(index)))
        exact += counts
    total = looks.total(Onset(NOON, 10, True), 10)
    np.testing.assert_array_equal(total.counts, exact)
    assert {look.counts.itemsize for look in looks._looks} == {1, 2, 4, 8}
    restored = Looks(3, 1)
    restored.restore(looks.snapshot())
    np.testing.assert_array_equal(restored.total(Onset(NOON, 10, True), 10).counts, exact)


def test_the_oldest_looks_never_stop_adding_up() -> None:
    """Rounded each time that others were merged into them, they once lost all of a later change."""
    looks = Looks(3, 1)
    number, ended = 60_000, 30_000
    for index in range(number):
        counts, mean = ([900, 90, 10], 1e4) if index < ended else ([500, 400, 100], 1e4 + 1)
        looks.add(Look(np.array(counts), np.array([[1e3, mean, 1e3, 0, 2e4]]), 1_000 * index, float(index)))
    upto = looks._looks[1].rows // 1_000
    exact = np.array([900, 90, 10]) * ended + np.array([500, 400, 100]) * (upto - ended)
    np.testing.assert_array_equal(looks.counts(slice(3))[0], exact)
    mean = 1e4 + (upto - ended) / upto
    np.testing.assert_allclose(looks._looks[0].moments[0, :2], [1_000 * upto, mean], rtol=1e-10)


def test_moments_of_values_beyond_what_can_be_squared_are_kept_but_for_their_spread() -> None:
    looks = Looks(1, 1)
    for index in range(20):
        looks.add(Look(np.ones(1, np.int64), np.array([[2, 1e30, 2e60, 0, 2e30]]), index, float(index)))
    total = looks.total(Onset(NOON, 20, True), 20).moments[0]
    np.testing.assert_allclose(total, [40, 1e30, np.inf, 0, 2e30], rtol=1e-6)


def test_what_came_since_is_a_copy() -> None:
    looks = filled(3)
    looks.total(Onset(NOON, 2, False), 3).counts[:] = 0
    assert [look.counts[0] for look in looks._looks] == [1, 1, 1]


# -- over a restart -------------------------------------------------------------------------------


def without_looks(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As checkpoints were before there were looks in them."""
    return {name: array for name, array in arrays.items() if ".looks." not in name}


@pytest.mark.parametrize("changed", [dict, without_looks])
def test_a_checkpoint_remembers_looks_and_older_ones_do_without(
    tmp_path: Path, changed: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> None:
    before, _ = watched()
    before.observe(live(5_000, 1))
    before.observe(live(200, 2, shift=1))
    checkpoint.save(tmp_path / "c", before, {})
    with np.load(tmp_path / "c") as file:
        arrays = changed({name: file[name] for name in file.files})
    with (tmp_path / "c").open("wb") as file:
        np.savez(file, **arrays)
    after, signals = watched()
    checkpoint.load(tmp_path / "c", after)
    after.observe(live(800, 3, shift=1))
    alarm = next(signal for signal in signals if signal.kind == "alarm")
    assert alarm.onset is not None
    if changed is dict:
        assert after.rows - 1_400 <= alarm.onset.rows + 4_400
        assert alarm.words.startswith("mean up")
    assert not alarm.onset.first  # the first rows that are remembered are not the first that were watched
    assert alarm.onset.rows <= 1_100


@pytest.mark.parametrize("name", ["counts", "moments"])
def test_looks_of_other_columns_are_refused_and_nothing_has_changed(name: str) -> None:
    """They once were taken, and the next look at them failed."""
    saved, other = filled(5), filled(3)
    snapshot = saved.snapshot()
    before = other.snapshot()
    with pytest.raises(ValueError, match=rf"looks\.{name}: expected \(.*\) of each, got \("):
        other.restore(snapshot | {f"looks.{name}": snapshot[f"looks.{name}"][:, :0]})
    with pytest.raises(ValueError, match="zip"):
        other.restore(snapshot | {"looks.rows": snapshot["looks.rows"][1:]})
    for key, array in other.snapshot().items():
        np.testing.assert_array_equal(array, before[key])
    other.restore(snapshot)
    assert other._sizes == saved._sizes


def test_a_checkpoint_that_has_more_looks_is_gone_on_from() -> None:
    """Four of each size were kept once, of up to 4,096 looks."""
    sizes = np.repeat([4_096, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1], 4)
    starts = np.cumsum(sizes) - sizes
    snapshot = {
        "looks.sizes": sizes,
        "looks.counts": np.repeat(sizes[:, np.newaxis], 3, axis=1).astype(np.float32),
        "looks.moments": np.array([[[size, 0.0, 0.0, 0.0, 0.0]] for size in sizes]),
        "looks.rows": starts,
        "looks.when": starts.astype(np.float64),
    }
    looks = Looks(3, 1)
    looks.restore(snapshot)
    assert len(looks._looks) <= PER_SIZE * MAX_SIZE.bit_length() + 4
    assert [kept.rows for kept in looks._looks] == sorted({kept.rows for kept in looks._looks})
    whole = looks.total(Onset(NOON, sizes.sum(), True), sizes.sum())
    np.testing.assert_allclose(whole.counts, sizes.sum(), rtol=0.02)
    assert whole.moments[0, 0] == sizes.sum()


def test_moments_of_looks_are_as_of_all_rows() -> None:
    monitor, _ = watched()
    rows = live(3_000, 1)
    monitor.observe(rows)
    window, _signals = monitor.current()
    assert monitor._detectors is not None
    whole = monitor._detectors.looks.total(Onset(NOON, 3_000, True), 3_000)
    expected = moments.start(4)
    moments.update(rows["x"], expected)
    np.testing.assert_allclose(whole.moments, expected, rtol=1e-5)
    np.testing.assert_allclose([window.moments[f"x_{column}"] for column in range(4)], expected, rtol=1e-9)
