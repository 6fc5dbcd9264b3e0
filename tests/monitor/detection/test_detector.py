"""Rank bins and what the detectors make of them; the bets themselves are tested with their kernels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.monitor.detection.detector import BINS, FEW_ROWS, Detectors, RankBins, radius, shares_of
from driftline.monitor.detection.onset import Look
from driftline.monitor.reference.column import Numeric, Reference
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reference.ranks import CUTS, Group, cut_ranks, split
from driftline_kernels import moments


def reference(values: object) -> Reference:
    return Profile.fit(
        {"x": values}, kinds={"x": "numeric"} if np.asarray(values).dtype.kind in "fi" else {}
    )["x"]


def counts_of(reference: Reference, values: np.ndarray) -> np.ndarray:
    assert isinstance(reference, Numeric)
    inner = np.bincount(
        np.searchsorted(reference.edges, values[np.isfinite(values)], side="right"),
        minlength=len(reference.edges) + 1,
    )
    special = [np.isnan(values).sum(), np.isposinf(values).sum(), np.isneginf(values).sum()]
    return np.array([*inner, *special], np.int64)


@pytest.mark.parametrize("rows", [40, 100, 1_000, 12_345])
def test_rank_bins_of_a_continuous_column_are_cut_at_their_ranks(rows: int) -> None:
    random = np.random.default_rng(rows)
    sample = random.standard_normal(rows).astype(np.float32)
    if rows < 100:
        with pytest.warns(UserWarning, match="weak"):
            one = reference(sample)
    else:
        one = reference(sample)
    live = np.concatenate([random.standard_normal(5_000).astype(np.float32), sample, [9, -9]]).astype(
        np.float32
    )
    cuts = np.sort(sample)[np.array(cut_ranks(rows)) - 1]
    expected = np.bincount(np.searchsorted(cuts, live, side="right"), minlength=BINS)
    beyond = (live > sample.max()).sum()  # the greatest row itself has been seen
    expected[CUTS - 1 :] = expected[CUTS - 1 :].sum() - beyond, beyond
    np.testing.assert_array_equal(RankBins([one]).count(counts_of(one, live))[0], expected)


def test_what_is_equal_is_split_and_no_row_is_lost() -> None:
    random = np.random.default_rng(0)
    references = [
        reference(random.standard_normal(1_000).astype(np.float32)),
        reference(random.poisson(3, 1_000).astype(np.float32)),
        reference(np.where(random.random(1_000) < 0.3, np.nan, random.random(1_000)).astype(np.float32)),
        reference(np.ones(1_000, np.float32)),
    ]
    counts = [random.integers(0, 50, len(one.counts)) for one in references]
    ranks = RankBins(references)
    drawn = np.array([ranks.count(np.concatenate(counts)) for _ in range(400)])
    assert drawn.shape == (400, len(references), BINS)
    np.testing.assert_array_equal(drawn.sum(axis=2), np.tile([one.sum() for one in counts], (400, 1)))
    assert (drawn[:, 0] == drawn[0, 0]).all()  # continuous: nothing is left to chance
    expected = np.array([own @ one.split for own, one in zip(counts, references, strict=True)])
    error = np.sqrt(np.maximum(expected, 1) / 400)
    assert (np.abs(drawn.mean(axis=0) - expected) < 5 * error).all()


groups = st.lists(st.builds(Group, st.integers(0, 300), st.booleans()), min_size=1, max_size=40)


@given(groups)
def test_a_split_shares_every_group_out_whole(parts: list[Group]) -> None:
    shares, gaps = split(parts, 0)
    total = sum(group.rows for group in parts)
    assert shares.shape == (len(parts), BINS)
    assert gaps.shape == (BINS,)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares >= 0).all()
    assert gaps.sum() == pytest.approx(total + 1)
    assert gaps[-1] == 1
    # In order: a group begins in the rank bin in which the one before it ends, or in a later one.
    bins = [np.flatnonzero(row) for row in shares]
    assert all(earlier[-1] <= later[0] for earlier, later in pairwise(bins))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_cuts_within_different_values_take_their_gaps_along(sizes: list[int]) -> None:
    """As in a sketch: it may not tell which of many values lie on which side of a rank."""
    shares, gaps = split([Group(rows, single=False) for rows in sizes], 0)
    within = np.array(sizes) @ shares
    # A cut is at a row, which has half a gap below it: bins have as many gaps as rows, but at the two ends.
    assert np.abs(within - gaps).max() <= 1 + 1e-6


def test_a_radius_allows_for_the_tolerance_and_for_chance() -> None:
    rows = np.array([500.0, 10_000, 1e12])
    found = radius(rows, 0.02, 1)
    assert (np.diff(found) < 0).all()
    assert found[-1] == pytest.approx(np.sqrt(0.02), rel=1e-4)
    random = np.random.default_rng(0)
    gaps = reference(random.random(10_000).astype(np.float32)).gaps
    shares = gaps / gaps.sum()
    truth = random.dirichlet(gaps, 2_000)
    distance = np.sqrt(((truth - shares) ** 2 / shares).sum(axis=1))
    assert np.mean(distance > radius(np.array([10_000.0]), 0.0, 1)) < 0.02
    assert (radius(rows, 0.02, 50) > found).all()


def look(*counts: np.ndarray) -> Look:
    return Look(np.concatenate(counts), moments.start(len(counts)), 0, 0.0)


def looks(detectors: Detectors, references: list[Reference], drifting: set[int], number: int) -> list[object]:
    """Looks at 100 rows; in columns that drift, all of them are below the reference's lower quarter."""
    random = np.random.default_rng(1)
    found: list[object] = []
    for _ in range(number):
        rows = [
            counts_of(one, (random.random(100) * (0.25 if column in drifting else 1)).astype(np.float32))
            for column, one in enumerate(references)
        ]
        found += detectors.look(look(*rows), 100)
    return found


@pytest.fixture(scope="module")
def references() -> list[Reference]:
    random = np.random.default_rng(0)
    return [reference(random.random(2_000).astype(np.float32)) for _ in range(3)]


def test_columns_that_have_changed_are_named(references: list[Reference]) -> None:
    detectors = Detectors(references, 20_000, 0.02)
    found = looks(detectors, references, {1}, 10)
    assert {finding.kind for finding in found} == {"change", "alarm"}
    assert all(finding.columns == (1,) and not finding.together for finding in found)


def test_no_signal_costs_less_than_was_promised(references: list[Reference]) -> None:
    """Each takes columns x A from the sum of M: so n rows, which add n x columns at most, pay for n / A."""
    rows = 20_000.0
    for drifting in ({0}, {0, 2}, {0, 1, 2}):
        detectors = Detectors(references, rows, 0.02)
        for finding in looks(detectors, references, drifting, 12):
            each = np.exp(np.minimum(finding.evidence, 700))
            assert (each >= (rows if finding.together else rows * len(references)) * (1 - 1e-12)).all()
            assert set(finding.columns) <= drifting or finding.together


def test_only_columns_that_signal_begin_anew(references: list[Reference]) -> None:
    detectors = Detectors(references, 20_000, 0.02)
    assert [finding.kind for finding in looks(detectors, references, {1}, 2)] == ["change", "alarm"]
    change = np.logaddexp.reduce(detectors._state.change, axis=1)
    assert change[1] == -np.inf
    assert np.isfinite(change[[0, 2]]).all()


def test_all_columns_together_pass_where_none_does_alone(references: list[Reference]) -> None:
    detectors = Detectors(references, 20_000, 0.02)
    state = detectors._state
    state.change[:] = np.log(20_000 * 2)
    findings = [one for one in looks(detectors, references, set(), 1) if one.kind == "change"]
    assert len(findings) == 1
    assert findings[0].together
    assert sorted(findings[0].columns) == [0, 1, 2]
    assert len(findings[0].evidence) == 1
    assert (state.change == -np.inf).all()


def test_without_new_rows_nothing_is_bet(references: list[Reference]) -> None:
    detectors = Detectors(references, 20_000, 0.02)
    before = [one.copy() for one in detectors._state]
    assert detectors.look(look(*(np.zeros_like(one.counts) for one in references)), 0) == []
    for one, other in zip(before, detectors._state, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_burst_that_is_all_of_one_look_signals(references: list[Reference]) -> None:
    """As many looks would; a bet on rows is made of what came before them, so one alone never could."""
    random = np.random.default_rng(2)
    for before in (0, 20):
        detectors = Detectors(references, 1_000_000, 0.02)
        assert looks(detectors, references, set(), before) == []
        burst = [counts_of(one, random.random(4_800).astype(np.float32) * 0.5) for one in references]
        found = detectors.look(look(*burst), 4_800)
        assert [finding.kind for finding in found] == ["change", "alarm"]
        assert all(sorted(finding.columns) == [0, 1, 2] for finding in found)


@given(st.integers(0, 10**7))
def test_each_part_of_a_look_is_as_large_as_all_before_it(rows: int) -> None:
    shares = shares_of(rows)
    assert shares.sum() == 1
    assert all(share == shares[: part + 1].sum() for part, share in enumerate(shares[1:]))
    assert len(shares) == 1 if rows < 2 * FEW_ROWS else FEW_ROWS <= shares[0] * rows < 2 * FEW_ROWS


def test_parts_of_a_look_are_all_of_its_rows(references: list[Reference]) -> None:
    """Whatever a column's rows: an output is not always computed."""
    random = np.random.default_rng(0)
    of = [counts_of(one, random.random(rows)) for one, rows in zip(references, (6_400, 31, 0), strict=True)]
    counts = np.concatenate(of)
    parts = RankBins(references).parts(counts, 6_400)
    assert parts.shape == (7, 3, BINS)
    np.testing.assert_array_equal(parts.sum(axis=0), RankBins(references).count(counts))
    expected = 6_400 * shares_of(6_400)
    assert (np.abs(parts[:, 0].sum(axis=1) - expected) < 5 * np.sqrt(expected)).all()


def test_a_look_at_few_rows_leaves_nothing_to_chance(references: list[Reference]) -> None:
    """It is one, as it ever was: what is drawn by lot stays where it was."""
    ranks = RankBins(references)
    before = ranks.random.bit_generator.state
    random = np.random.default_rng(0)
    counts = np.concatenate([counts_of(one, random.random(2 * FEW_ROWS - 1)) for one in references])
    np.testing.assert_array_equal(ranks.parts(counts, 2 * FEW_ROWS - 1), [ranks.count(counts)])
    assert ranks.random.bit_generator.state == before
