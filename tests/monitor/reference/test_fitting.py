"""Fitting in batches: exact while it is small, sketched beyond, the same rules for both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from naive_kernels import bin_counts, moments

from driftline.columns import columns_of
from driftline.errors import BadRequest
from driftline.monitor.reference import fitting
from driftline.monitor.reference.column import Categorical, Numeric, Reference
from driftline.monitor.reference.fitting import Fit
from driftline.monitor.reference.whole import Whole

ODD = [0.0, 1.0, 1.0, 2.5, math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45]

NUMBERS, STRINGS = {"a": np.zeros(9)}, {"a": np.array(["x"])}


def fit(*batches: Any, most_bytes: float = math.inf, **kinds: str) -> tuple[dict[str, Reference], Whole]:
    one = Fit(kinds, most_bytes)
    for batch in batches:
        one.update(columns_of(batch))
    references, whole = one.result()
    return {reference.name: reference for reference in references}, whole


@settings(max_examples=60)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 80), st.integers(1, 3)),
        elements=st.sampled_from(ODD) | st.floats(width=32, allow_nan=True),
    ),
    st.integers(0, 80),
    st.sampled_from([math.inf, 0]),
)
def test_bins_and_moments_are_the_datas(matrix: np.ndarray, cut: int, most_bytes: float) -> None:
    """Few values are exact in a sketch as well."""
    references, whole = fit({"x": matrix[:cut]}, {"x": matrix[cut:]}, most_bytes=most_bytes)
    assert whole.rows == len(matrix)
    expected = moments(matrix)
    for index, reference in enumerate(references.values()):
        assert isinstance(reference, Numeric)
        column = matrix[:, index : index + 1]
        np.testing.assert_array_equal(reference.counts, bin_counts(column, reference.edges[None])[0])
        np.testing.assert_array_equal(reference.moments[[0, 3, 4]], expected[index, [0, 3, 4]])
        scale = np.nanmax(np.abs(column[np.isfinite(column)]), initial=0).astype(np.float64)
        atol = 1e-12 * scale  # sums of opposite numbers round
        np.testing.assert_allclose(reference.moments[1], expected[index, 1], rtol=1e-9, atol=atol)
        np.testing.assert_allclose(reference.moments[2], expected[index, 2], rtol=1e-9, atol=atol * scale)
        assert reference.gaps.sum() == pytest.approx(len(matrix) + 1, abs=1e-6)


def test_batches_that_are_small_together_are_fitted_exactly() -> None:
    values = np.random.default_rng(0).standard_normal((10_000, 2)).astype(np.float32)
    whole, parts = fit({"x": values}), fit(*({"x": part} for part in np.array_split(values, 7)))
    for expected, reference in zip(whole[0].values(), parts[0].values(), strict=True):
        assert isinstance(expected, Numeric)
        assert isinstance(reference, Numeric)
        np.testing.assert_array_equal(expected.edges, reference.edges)
        np.testing.assert_array_equal(expected.counts, reference.counts)
    np.testing.assert_allclose(whole[1].comoments, parts[1].comoments, atol=1e-6)
    np.testing.assert_allclose(whole[1].features, parts[1].features, rtol=1e-6)


def test_a_sketch_is_near_what_is_exact() -> None:
    random = np.random.default_rng(0)
    values = [random.exponential(1, 50_000).astype(np.float32) for _ in range(12)]
    exact, sketched = fit(*({"x": v} for v in values))[0]["x"], fit(*({"x": v} for v in values), most_bytes=0)
    sketch = sketched[0]["x"]
    assert isinstance(sketch, Numeric)
    assert isinstance(exact, Numeric)
    np.testing.assert_allclose(sketch.moments, exact.moments, rtol=1e-12)
    everything = np.sort(np.concatenate(values))
    below = np.searchsorted(everything, sketch.edges) / len(everything)
    np.testing.assert_allclose(np.cumsum(sketch.counts)[: len(below)] / len(everything), below, atol=0.0014)
    np.testing.assert_allclose(np.searchsorted(everything, exact.edges) / len(everything), below, atol=0.0014)
    assert sketch.gaps.sum() < exact.gaps.sum() == len(everything) + 1  # it is trusted less


@pytest.mark.parametrize("most_bytes", [math.inf, 0])
def test_kinds_are_told_by_what_is_kept(most_bytes: float) -> None:
    first = {
        "few": np.arange(100) % 20,
        "many": np.arange(100) % 21,
        "holes": pa.array([None, *range(99)]),
        "flag": np.arange(100) % 2 == 0,
        "text": np.array(["a", "b"] * 50),
    }
    references, whole = fit(first, first, most_bytes=most_bytes)
    kinds = {name: getattr(one, "kind", "numeric") for name, one in references.items()}
    assert kinds == {
        "few": "integer",
        "many": "numeric",
        "holes": "numeric",
        "flag": "boolean",
        "text": "string",
    }
    assert whole.names == ("many", "holes")
    assert list(references) == list(first)


@pytest.mark.parametrize("most_bytes", [math.inf, 0])
def test_batches_with_nulls_are_the_same_column(most_bytes: float) -> None:
    """Integers with nulls come as floats, booleans with nulls as strings."""
    batches = [
        {"i": pa.array([1, 2] * 10), "b": pa.array([True, False] * 10)},
        {"i": pa.array([1, None]), "b": pa.array([None, True])},
    ]
    references, _ = fit(*batches, most_bytes=most_bytes, i="categorical")
    i, b = references["i"], references["b"]
    assert isinstance(i, Categorical)
    assert isinstance(b, Categorical)
    assert (i.kind, i.categories, i.counts.tolist()) == ("integer", ("1", "2"), [11, 10, 0, 1])
    assert (b.kind, b.categories, b.counts.tolist()) == ("boolean", ("False", "True"), [10, 11, 0, 1])


@pytest.mark.parametrize("most_bytes", [math.inf, 0])
def test_odd_columns(most_bytes: float) -> None:
    columns = {
        "constant": np.full(50, 7.0),
        "missing": np.full(50, np.nan),
        "infinite": np.full(50, np.inf),
        "text": pa.array([None] * 50, pa.string()),
    }
    references, whole = fit(columns, most_bytes=most_bytes)
    constant, missing = references["constant"], references["missing"]
    assert isinstance(constant, Numeric)
    assert isinstance(missing, Numeric)
    assert constant.edges.tolist() == [7.0, np.nextafter(np.float32(7), np.float32(8))]
    assert constant.counts.tolist() == [0, 50, 0, 0, 0, 0]
    assert (constant.mean, constant.sd) == (7.0, 0.0)
    assert missing.counts.tolist() == [0, 50, 0, 0]
    assert math.isnan(missing.mean)
    assert math.isnan(missing.minimum)
    assert references["infinite"].counts.tolist() == [0, 0, 50, 0]
    assert references["text"].counts.tolist() == [0, 50]
    assert whole.scaling[:, 1].tolist() == [0, 0, 0]
    assert np.isfinite(whole.comoments).all()


def test_of_too_many_categories_the_rarest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MAX_DISTINCT", 5)
    often = np.repeat(np.arange(5), 40).astype(str)
    batches = [
        {"a": np.concatenate([often, [f"once {batch} {row}" for row in range(20)]])} for batch in range(5)
    ]
    reference = fit(*batches)[0]["a"]
    assert isinstance(reference, Categorical)
    assert {"0", "1", "2", "3", "4"} <= set(reference.categories)
    assert reference.rows == 5 * 220 / 2
    assert reference.counts[reference.missing] == 0
    assert reference.counts[reference.unseen] >= 5 * 20 / 2 - len(reference.categories)


@pytest.mark.parametrize("most_bytes", [math.inf, 0])
@pytest.mark.parametrize(
    ("batches", "kinds", "message"),
    [
        ([NUMBERS, STRINGS], {}, "column 'a': expected numbers as before, got strings"),
        ([STRINGS, NUMBERS], {}, "column 'a': expected strings as before, got numbers"),
        ([{"": np.zeros(9)}], {}, "expected columns with names, got one without"),
        ([NUMBERS, {"b": np.zeros(9)}], {}, "got more or fewer: a, b"),
        ([STRINGS], {"a": "numeric"}, "column 'a': expected numbers, got strings"),
        ([NUMBERS], {"b": "numeric"}, "column 'b' as 'numeric': expected one of a as"),
        ([NUMBERS], {"a": "text"}, "column 'a' as 'text': expected one of a as"),
        ([{"a": np.full(9, 0.5)}], {"a": "categorical"}, "column 'a' as 'categorical': expected whole"),
        ([{"a": np.full(9, np.inf)}], {"a": "categorical"}, "column 'a' as 'categorical': expected whole"),
    ],
)
def test_what_does_not_fit_is_named(
    batches: list[Any], kinds: dict[str, str], message: str, most_bytes: float
) -> None:
    with pytest.raises(BadRequest, match=message):
        fit(*batches, most_bytes=most_bytes, **kinds)


@pytest.mark.parametrize("cut", [0, 1, 500, 777])
def test_categories_that_alternate_are_in_both_halves(cut: int) -> None:
    """With one that is rare, so that one half names them and the other is counted."""
    rows = np.array(["left", "right"] * 500)
    rows[100] = "rare"
    (reference,) = fit({"a": rows[:cut]}, {"a": rows[cut:]})[0].values()
    assert isinstance(reference, Categorical)
    counts = dict(zip(reference.categories, reference.counts.tolist(), strict=False))
    assert 200 < counts["left"] < 300
    assert 200 < counts["right"] < 300
    assert reference.rows == 500
    (whole,) = fit({"a": rows})[0].values()
    assert whole.counts.tolist() == reference.counts.tolist()


@pytest.mark.parametrize(("first", "most_bytes"), [(0, math.inf), (1, math.inf), (0, 0)])
def test_a_batch_whose_values_are_all_missing_has_no_type(first: int, most_bytes: float) -> None:
    """Untyped nulls look like numbers."""
    batches = [{"a": pa.array(["x", "y"] * 10)}, {"a": pa.nulls(4)}]
    references, _ = fit(*batches[first:], *batches[:first], most_bytes=most_bytes)
    a = references["a"]
    assert isinstance(a, Categorical)
    assert (a.kind, a.categories, a.counts.tolist()) == ("string", ("x", "y"), [10, 10, 0, 4])


def test_kinds_without_names_are_refused() -> None:
    with pytest.raises(BadRequest, match="by column name, got 'numeric'"):
        Fit("numeric")  # type: ignore[arg-type]
