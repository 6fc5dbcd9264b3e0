"""Other libraries' arrays as numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np

_NATIVE_LIBRARIES = {"builtins", "numpy", "pyarrow", "pandas", "polars"}


def is_foreign(values: Any) -> bool:
    """Return whether it is an array of a library other than numpy, Arrow, pandas and Polars.

    That is a PyTorch tensor, say, or anything else with DLPack or `__array__`, but no subclass of those
    libraries' types (GeoPandas' frames and series), and no frame (Modin's).
    """
    libraries = {base.__module__.partition(".")[0] for base in type(values).__mro__[:-1]}
    if libraries & _NATIVE_LIBRARIES or hasattr(values, "columns"):
        return False
    return hasattr(values, "__dlpack__") or hasattr(values, "__array__")


def as_array(values: Any) -> Any:
    """Convert another library's array to numpy's, even a PyTorch tensor with its gradient or on a GPU; return
    anything else unchanged.

    Raises TypeError for one that numpy can't represent: sparse ones, and bfloat16.
    """
    if type(values) is np.ndarray or not is_foreign(values):
        return values
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu()
        return np.asarray(values) if hasattr(values, "__array__") else np.from_dlpack(values)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        actual = type(values).__name__
        raise TypeError(f"expected an array that numpy can represent, got a {actual}: {error}") from None
