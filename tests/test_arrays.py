"""Arrays of other libraries. PyTorch is none of the tests' own, so what it does stands here in small."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import driftline as dl
from driftline.arrays import as_array, is_foreign
from driftline.columns import columns_of, temporal_of
from driftline.errors import BadRequest
from driftline.tensors import DATATYPES, TensorSpec, coerce

VALUES = np.arange(6.0).reshape(3, 2)


class Duck:
    """Has `__array__` only."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return VALUES.astype(dtype)


class Exporting:
    """Speaks DLPack only."""

    def __dlpack__(self, **options: Any) -> Any:
        return VALUES.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return VALUES.__dlpack_device__()


class Tensor:
    """As PyTorch's: with a gradient, or on a GPU, it is no array until it is detached."""

    def __init__(self, ready: bool = False) -> None:
        self.ready = ready

    def detach(self) -> Self:
        return type(self)(True)

    def cpu(self) -> Self:
        return self

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("it requires a gradient")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if not self.ready:
            raise RuntimeError("it requires a gradient")
        return VALUES.astype(dtype)


class Sparse(Tensor):
    """As PyTorch's sparse ones, and those of bfloat16."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError("a sparse layout")


class TensorOnGpu(Tensor):
    """Counts how often it is copied from there."""

    dtype = "torch.float32"
    copies = 0

    def cpu(self) -> Self:
        TensorOnGpu.copies += 1
        return self


class Frame(pd.DataFrame):
    """As GeoPandas': made elsewhere, of pandas'."""

    @property
    def _constructor(self) -> Any:
        return Frame

    @property
    def _constructor_sliced(self) -> Any:
        return Series


class Series(pd.Series):
    """A column of those."""


class Alike:
    """As Modin's frames: not pandas' at all, but with the same face, `__array__` too."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._frame = pd.DataFrame(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._frame.to_numpy(dtype)


@pytest.mark.parametrize("kind", [Frame, Alike])
def test_frames_of_other_libraries_keep_their_names(kind: Any) -> None:
    data = kind({"a": [1.0, 3.0], "t": pd.Categorical(["x", "y"])})
    transform = dl.Transform([dl.OneHot("t"), dl.Standardise("a")]).fit(data)
    assert transform.apply(data).tolist() == [[1, 0, -1], [0, 1, 1]]
    assert columns_of(data)["t"].to_pylist() == ["x", "y"]


def test_a_tensor_on_a_gpu_is_copied_once() -> None:
    TensorOnGpu.copies = 0
    data = {"x": TensorOnGpu()}
    assert temporal_of(data) == {}
    assert TensorOnGpu.copies == 0
    columns_of(data)
    assert TensorOnGpu.copies == 1


@pytest.mark.parametrize("values", [Duck(), Exporting(), Tensor()])
def test_arrays_of_other_libraries_are_taken_wherever_ours_are(values: Any) -> None:
    np.testing.assert_array_equal(as_array(values), VALUES)
    columns = columns_of({"x": values})
    np.testing.assert_array_equal(columns["x_1"], VALUES[:, 1])
    spec = TensorSpec("x", DATATYPES["FP32"], (-1, 2))
    np.testing.assert_array_equal(coerce(spec, values), VALUES)
    transform = dl.Transform([dl.Pass("x_0"), dl.Pass("x_1")]).fit({"x": values})
    np.testing.assert_array_equal(transform.apply({"x": values}), VALUES)


def test_one_that_numpy_cannot_have_is_refused_by_name() -> None:
    message = "'x': expected an array that numpy can represent, got a Sparse: a sparse layout"
    with pytest.raises(BadRequest, match=f"column {message}"):
        columns_of({"x": Sparse()})
    with pytest.raises(BadRequest, match=f"column {message}"):
        temporal_of({"x": Sparse()})
    with pytest.raises(BadRequest, match=f"input {message}"):
        coerce(TensorSpec("x", DATATYPES["FP32"], (-1, 2)), Sparse())
    with pytest.raises(BadRequest, match=r"expected arrays by name, .* got an array alone"):
        columns_of(Tensor())


@pytest.mark.parametrize(
    "values",
    [VALUES, [1.0], 1.0, "a", pa.array([1]), pd.Series([1]), pl.Series([1]), np.float32(1), Series([1])],
)
def test_others_are_as_they_are(values: Any) -> None:
    assert not is_foreign(values)
    assert as_array(values) is values
