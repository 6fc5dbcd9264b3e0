"""The inputs and outputs of an MLflow model as tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from driftline.errors import ModelError
from driftline.mlmodel import MLMODEL, Column, MlflowSignature, MlModel, Schema, Tensor
from driftline.tensors import DATATYPES, Array, Datatype, Signature, Tensors, TensorSpec

INPUT, OUTPUT = "input", "predictions"
"""The names of tensors without a name."""

NUMBERS = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}
"""Columns of numbers; all others are text: dates in ISO 8601, bytes in base64, lists and objects in JSON."""

_BY_DTYPE = {datatype.dtype: datatype for datatype in DATATYPES.values()}


def logged_signature(folder: Path) -> MlflowSignature:
    """Return the signature that an MLflow model was logged with; ModelError if there is none."""
    model = MlModel.read(folder / MLMODEL)
    if model.signature is None or not model.signature.inputs:
        raise ModelError(
            f"{folder / MLMODEL}: expected a signature, there is none; log the model with "
            "`signature=mlflow.models.infer_signature(...)` or an input example"
        )
    return model.signature


def signature_of(logged: MlflowSignature, outputs: tuple[TensorSpec, ...] | None, path: Path) -> Signature:
    """Return the signature of a model that was logged with this one.

    outputs  its outputs, if the logged signature has none

    Raises ModelError, beginning with `path`, for types that a tensor can't have.
    """
    inputs = specs(logged.inputs, INPUT, path)
    outputs = specs(logged.outputs, OUTPUT, path) if outputs is None else outputs
    batched = all(spec.shape[:1] == (-1,) for spec in inputs + outputs)
    return Signature(inputs, outputs, batched)


def specs(schema: Schema, unnamed: str, path: Path) -> tuple[TensorSpec, ...]:
    """Return a tensor for each column or tensor of a schema."""
    names = (unnamed,) if len(schema) == 1 else map(str, range(len(schema)))
    items: tuple[Column | Tensor, ...] = schema
    return tuple(_spec(item, name, path) for item, name in zip(items, names, strict=True))


def _spec(item: Column | Tensor, unnamed: str, path: Path) -> TensorSpec:
    name = unnamed if item.name is None else item.name
    if isinstance(item, Tensor):
        return TensorSpec(name, _datatype(item.dtype, name, path), item.shape)
    if item.type.name in NUMBERS:
        return TensorSpec(name, DATATYPES[NUMBERS[item.type.name]], (-1,))
    return TensorSpec(name, DATATYPES["BYTES"], (-1,), raw=True)


def _datatype(dtype: np.dtype[np.generic], name: str, path: Path) -> Datatype:
    datatype = DATATYPES["BYTES"] if dtype.kind in "OUS" else _BY_DTYPE.get(dtype)
    if datatype is None:
        raise ModelError(f"{path}: tensor {name!r}: expected one of {', '.join(DATATYPES)}, got {dtype}")
    return datatype


def infer_outputs(predictions: Tensors, path: Path) -> tuple[TensorSpec, ...]:
    """Return a model's outputs, inferred from the predictions for one row."""
    return tuple(
        TensorSpec(name or OUTPUT, _datatype(array.dtype, name, path), (-1, *array.shape[1:]))
        for name, array in predictions.items()
    )


def match(predictions: Tensors, outputs: tuple[TensorSpec, ...]) -> Tensors:
    """Match predictions to outputs: by name, or, if the names differ, in order.

    Raises ModelError, with the output, what was expected and what came, if they do not fit.
    """
    names = [spec.name for spec in outputs]
    if not set(names) <= predictions.keys():
        if len(predictions) != len(outputs):
            actual = ", ".join(predictions) or "nothing"
            raise ModelError(f"the model gave {actual}: expected {', '.join(names)}")
        predictions = dict(zip(names, predictions.values(), strict=True))
    return {spec.name: _cast(spec, predictions[spec.name]) for spec in outputs}


def _cast(spec: TensorSpec, array: Array) -> Array:
    if array.ndim == len(spec.shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    dtype = spec.datatype.dtype
    if array.dtype != dtype and dtype == object:
        array = array.astype(np.str_).astype(object)
    if not spec.accepts(array.shape) or not (np.can_cast(array.dtype, dtype, "same_kind")):
        raise ModelError(
            f"output {spec.name!r}: expected {spec.datatype.name} {list(spec.shape)}, "
            f"the model gave {array.dtype} {list(array.shape)}"
        )
    return array.astype(dtype, copy=False)
