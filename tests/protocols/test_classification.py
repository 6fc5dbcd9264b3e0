"""The greatest values of outputs, as Triton tells of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from driftline.errors import BadRequest
from driftline.protocols.classification import check, greatest
from driftline.tensors import DATATYPES, TensorSpec


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint64]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
        elements=st.integers(0, 9),
    ),
    st.integers(1, 6),
    st.booleans(),
)
def test_the_greatest_of_each_row(array: np.ndarray, count: int, batched: bool) -> None:
    rows = [row.ravel().tolist() for row in array] if batched else [array.ravel().tolist()]
    expected = []
    for row in rows:
        order = sorted(range(len(row)), key=lambda index, row=row: (-row[index], index))[:count]
        text = "{:f}:{}" if array.dtype.kind == "f" else "{}:{}"
        expected.append([text.format(row[index], index) for index in order])
    assert greatest(array, count, batched).tolist() == (expected if batched else expected[0])


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_whole_numbers_that_no_float_holds(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    array = np.array([[limits.max - 1, limits.min, limits.max, limits.max]], dtype)
    expected = [f"{limits.max}:2", f"{limits.max}:3", f"{limits.max - 1}:0", f"{limits.min}:1"]
    assert greatest(array, 4, True).tolist() == [expected]


def test_what_is_not_finite() -> None:
    array = np.array([[np.nan, -np.inf, 0.1, np.inf]], np.float32)
    assert greatest(array, 4, True).tolist() == [["inf:3", "0.100000:2", "-inf:1", "nan:0"]]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_only_numbers_are_classes(datatype: Any) -> None:
    spec = TensorSpec("y", DATATYPES[datatype], (-1, 3))
    if datatype in ("BOOL", "BYTES"):
        with pytest.raises(BadRequest, match=f"expected an output of numbers, it is {datatype}"):
            check(spec)
    else:
        check(spec)
