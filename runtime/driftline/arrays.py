"""What other libraries call an array, as numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np

_KNOWN = {"builtins", "numpy", "pyarrow", "pandas", "polars"}


def is_foreign(values: Any) -> bool:
    """Whether it is an array of a library that is neither numpy's, nor Arrow's, nor a data frame's: PyTorch's
    tensor, say, or whatever else speaks DLPack or has `__array__`. What derives from those is none, as
    GeoPandas' frames and series, and no frame is one, as Modin's."""
    homes = {base.__module__.partition(".")[0] for base in type(values).__mro__[:-1]}
    if homes & _KNOWN or hasattr(values, "columns"):
        return False
    return hasattr(values, "__dlpack__") or hasattr(values, "__array__")


def as_array(values: Any) -> Any:
    """An array of another library as numpy's, a tensor of PyTorch with its gradient or on a card, too;
    anything else as it is.

    Raises TypeError for one that numpy can't have: sparse ones, and bfloat16.
    """
    if type(values) is np.ndarray or not is_foreign(values):
        return values
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu()
        return np.asarray(values) if hasattr(values, "__array__") else np.from_dlpack(values)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        came = type(values).__name__
        raise TypeError(f"expected an array that numpy can have, came a {came}: {error}") from None
