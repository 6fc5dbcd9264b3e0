"""Counting into bins, against numpy's searchsorted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from naive_kernels import SIMULATED, bin_counts, examples, observed

from driftline_kernels import bins

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what overflows does so on purpose

KINDS = ("even", "normal", "heavy", "neighbours", "denormal", "huge", "repeated scale", "one far out")
ROWS = (0, 1, 2, 127, 200) if SIMULATED else (0, 1, 255, 256, 257, 1000)


def spread(kind: str, number: int, dtype: Any, random: np.random.Generator) -> np.ndarray:
    """At most so many ascending edges of one kind; where values of the kind tie, fewer."""
    limits = np.finfo(dtype)
    if kind == "even":
        x = np.arange(number) * random.uniform(0.01, 10) - random.uniform(0, number)
    elif kind == "normal":
        x = random.normal(random.uniform(-1e4, 1e4), 1, number)
    elif kind == "heavy":
        x = random.standard_cauchy(number) ** 5
    elif kind == "neighbours":  # one unit in the last place between them
        x = np.array([random.normal()], dtype)
        for _ in range(number - 1):
            x = np.append(x, np.nextafter(x[-1], dtype(np.inf)))
        x = x[:number]
    elif kind == "denormal":
        x = random.integers(-300, 300, number) * np.float64(limits.smallest_subnormal)
    elif kind == "huge":
        x = random.uniform(-1, 1, number) * np.float64(limits.max)
    elif kind == "repeated scale":
        x = np.ldexp(1.0, random.integers(-100, 100, number)) * random.choice([-1, 1], number)
    else:
        x = np.append(random.normal(size=max(number - 2, 0)), [-1e30, 1e30])[:number]
    return np.unique(x.astype(dtype))[:number]


def near(edges: np.ndarray, rows: int, random: np.random.Generator) -> np.ndarray:
    """Values at edges, one unit in the last place beside them, between, beyond, and special ones."""
    dtype, limits = edges.dtype.type, np.finfo(edges.dtype)
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, limits.max, limits.min, limits.tiny]
    special += [limits.smallest_subnormal, -limits.smallest_subnormal, *random.normal(size=4)]
    pools = [np.array(special, dtype)]
    if len(edges):
        low, high = dtype(-np.inf), dtype(np.inf)
        between = edges[:-1] + (edges[1:] / 2 - edges[:-1] / 2)
        pools += [edges, np.nextafter(edges, low), np.nextafter(edges, high), between]
    pools = [pool for pool in pools if len(pool)]
    picked = [
        pools[pool][random.integers(len(pools[pool]))] for pool in random.integers(len(pools), size=rows)
    ]
    return np.array(picked, dtype)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Values, and edges of their columns, padded where a column has fewer."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    width = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 16, 31, 63, bins.MAX_EDGES]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns, rows = draw(st.integers(1, 2 if SIMULATED else 4)), draw(st.sampled_from(ROWS))
    edges = np.full((columns, width), np.inf, dtype)
    values = np.empty((rows, columns), dtype, order=draw(st.sampled_from("CF")))
    for column in range(columns):
        number = draw(st.one_of(st.just(width), st.integers(0, width)))
        if draw(st.booleans()):
            finite = st.floats(allow_nan=False, allow_infinity=False, width=np.finfo(dtype).bits)
            real = np.unique(np.array(draw(st.lists(finite, max_size=min(number, 20))), dtype))
        else:
            real = spread(draw(st.sampled_from(KINDS)), number, dtype, random)
        edges[column, : len(real)] = real
        values[:, column] = near(real, rows, random)
    return values, edges


def counted(values: np.ndarray, edges: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    columns, width = edges.shape
    counts = np.zeros((columns, width + 4), np.int64) if before is None else before.copy()
    if SIMULATED:
        nothing = np.zeros((columns + 1, 0), np.float32)
        scaling = np.tile([0.0, 1.0], (columns, 1))
        return observed([values], bins.prepare(edges), width, scaling, nothing, counts=counts).counts
    bins.count(values, bins.prepare(edges), counts)
    return counts


@examples(300)
@given(tables())
def test_counts_are_those_of_searchsorted(table: tuple[np.ndarray, np.ndarray]) -> None:
    values, edges = table
    np.testing.assert_array_equal(counted(values, edges), bin_counts(values, edges))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [31, 63, bins.MAX_EDGES])
@pytest.mark.parametrize("kind", KINDS)
def test_every_edge_and_its_neighbours(kind: str, width: int, dtype: Any) -> None:
    if SIMULATED and width == bins.MAX_EDGES:
        pytest.skip("many threads")
    random = np.random.default_rng(width)
    edges = np.full((1, width), np.inf, dtype)
    real = spread(kind, width, dtype, random)
    edges[0, : len(real)] = real
    beside = [np.nextafter(real, dtype(side)) for side in (-np.inf, np.inf)]
    values = np.concatenate([real, *beside])[:, None]
    np.testing.assert_array_equal(counted(values, edges), bin_counts(values, edges))


def test_each_kind_of_value_by_hand() -> None:
    values = np.array([[np.nan], [np.inf], [-np.inf], [-1], [-0.0], [0], [1], [2.5], [1e38]], np.float32)
    edges = np.array([[0, 1, 2.5, np.inf]], np.float32)
    assert counted(values, edges).tolist() == [[1, 2, 1, 2, 0, 1, 1, 1]]


def test_counts_are_added_to() -> None:
    values, edges = np.array([[0.5, np.nan]]), np.array([[0.0, 1.0], [0.0, np.inf]])
    before = np.arange(12).reshape(2, 6)
    expected = before + bin_counts(values, edges)
    np.testing.assert_array_equal(counted(values, edges, before), expected)


@examples(40)
@given(st.integers(0, 5), st.integers(0, 5), st.sampled_from([np.float32, np.float64]))
@example(0, 0, np.float32)
def test_columns_without_edges_have_one_finite_bin(columns: int, width: int, dtype: Any) -> None:
    values = np.tile(np.array([[-np.inf], [np.nan], [3], [-1e30], [np.inf]], dtype), (1, columns))
    edges = np.full((columns, width), np.inf, dtype)
    expected = np.tile([2] + [0] * width + [1, 1, 1], (columns, 1)).reshape(columns, width + 4)
    np.testing.assert_array_equal(counted(values, edges), expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_of_a_table_are_counted_alike(order: Any) -> None:
    random = np.random.default_rng(1)
    values = np.array(random.normal(size=(60 if SIMULATED else 700, 3)), np.float32, order=order)
    edges = np.sort(random.normal(size=(3, 31)).astype(np.float32))
    np.testing.assert_array_equal(counted(values[7:50], edges), bin_counts(values[7:50], edges))
    for column in range(3):
        alone = slice(column, column + 1)
        result = counted(values[:, alone], edges[alone])
        np.testing.assert_array_equal(result, bin_counts(values, edges)[alone])


def test_the_most_edges_leave_room_for_the_special_bins() -> None:
    edges = np.arange(bins.MAX_EDGES, dtype=np.float64)[None]
    values = np.array([[-1.0], [bins.MAX_EDGES - 1], [np.nan], [np.inf], [-np.inf]])
    result = counted(values, edges)[0]
    assert result.nonzero()[0].tolist() == [0, 252, 253, 254, 255]
