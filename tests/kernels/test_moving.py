"""Columns of two blocks, moved into one matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_kernels import back, examples, there

from driftline_kernels import moving

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # as is said of float32


def moved(columns: list[tuple[int, np.ndarray, bool]], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """What comes of columns of a matrix each, and what should; -7 where nothing is written.

    columns  (block, matrix, whether its columns lie side by side in memory)
    """
    blocks, moves = [b"", b""], []
    expected = np.full((rows + 2, len(columns)), -7, np.float32)
    for into, (block, matrix, across) in enumerate(columns):
        number, width = matrix.shape
        place = into % width
        first = len(blocks[block]) // matrix.itemsize
        blocks[block] += (matrix.T if across else matrix).tobytes()
        blocks[block] += bytes(-len(blocks[block]) % 8)
        kind = moving.KINDS[matrix.dtype]
        lies = (first + place * number, 1) if across else (first + place, width)
        moves.append((block, kind, *lies, into))
        expected[:rows, into] = matrix[:rows, place]
    matrix = there(np.full_like(expected, -7))
    given = tuple(there(np.frombuffer(block, np.uint8).copy()) for block in blocks)
    moving.move((given[0], given[1]), rows, there(np.array(moves, np.int64)), matrix)
    return np.asarray(back(matrix)), expected


@examples(60)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(list(moving.KINDS)), st.integers(1, 3), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 20),
    st.integers(0, 2**32),
)
def test_columns_of_every_kind(kinds: list[tuple[int, np.dtype, int, bool]], rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    columns = [
        (block, random.integers(0, 100, (rows + 1, width)).astype(dtype), across)
        for block, dtype, width, across in kinds
    ]
    result, expected = moved(columns, rows)
    np.testing.assert_array_equal(result, expected)


def test_what_is_beyond_float32() -> None:
    values = np.array([[1e300], [-1e300], [np.nan], [0.1]])
    large = np.array([[2**63], [2**64 - 1], [1], [0]], np.uint64)
    result, expected = moved([(0, values, False), (1, large, False)], 4)
    np.testing.assert_array_equal(result, expected)
    assert np.isinf(result[:2, 0]).all()
