"""Other ways to compute features: scikit-learn, its conversion to ONNX, polars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def column_transformer(frame: Any) -> ColumnTransformer:
    """Return a fitted ColumnTransformer: numbers imputed and standardised, strings one-hot."""
    numbers = [name for name in frame.columns if name.startswith("number")]
    strings = [name for name in frame.columns if name.startswith("string")]
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    branches = [
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        ("strings", encoder, strings),
    ]
    return ColumnTransformer(branches).fit(frame[numbers + strings])


def onnx(
    fitted: Any, numbers: Sequence[str], strings: Sequence[str]
) -> tuple[ort.InferenceSession, Callable[[pa.RecordBatch], dict[str, Any]]]:
    """Return its conversion, with one thread, and a function that makes its tensors."""
    types = [(name, FloatTensorType([None, 1])) for name in numbers]
    types += [(name, StringTensorType([None, 1])) for name in strings]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(convert_sklearn(fitted, initial_types=types).SerializeToString(), options)

    def feed(batch: pa.RecordBatch) -> dict[str, Any]:
        return {
            name: batch.column(name)
            .to_numpy(zero_copy_only=False)
            .astype(object if name in strings else np.float32)
            .reshape(-1, 1)
            for name in (*numbers, *strings)
        }

    return session, feed


def polars(
    fitted: Any, batch: pa.RecordBatch, numbers: Sequence[str], strings: Sequence[str]
) -> Callable[[], Any]:
    """Return the same in polars' expressions, to a matrix of float32."""
    import polars as pl

    pipeline, encoder = fitted.named_transformers_["numbers"], fitted.named_transformers_["strings"]
    imputer, scaler = pipeline.steps[0][1], pipeline.steps[1][1]
    columns = []
    for index, name in enumerate(numbers):
        filled = pl.col(name).fill_nan(imputer.statistics_[index])
        columns.append(((filled - scaler.mean_[index]) / scaler.scale_[index]).cast(pl.Float32).alias(name))
    for name, categories in zip(strings, encoder.categories_, strict=True):
        columns += [(pl.col(name) == text).cast(pl.Float32).alias(f"{name}_{text}") for text in categories]
    frame = pl.from_arrow(batch)
    return lambda: frame.select(columns).to_numpy(order="c")
