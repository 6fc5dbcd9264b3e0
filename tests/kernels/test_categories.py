"""Counting codes of categories."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from naive_kernels import back, examples, there

from driftline_kernels import categories


@examples(100)
@given(st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(-1, n - 1)))))
def test_codes_are_added_and_missing_ones_last(case: tuple[int, list[int]]) -> None:
    n, codes = case
    before = np.arange(n + 1)
    counts = there(before)
    categories.count(there(np.array(codes, np.int32)), counts)
    assert (back(counts) - before).tolist() == [codes.count(code) for code in [*range(n), -1]]
