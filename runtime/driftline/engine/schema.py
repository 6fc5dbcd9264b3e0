"""Combines a model's own signature with the one that MLflow has for it."""

from __future__ import annotations

from dataclasses import replace

from driftline.errors import ModelError, listed
from driftline.mlmodel import MlflowSignature, Schema, Tensor
from driftline.tensors import Signature, TensorSpec


def merge_mlflow(signature: Signature, mlflow: MlflowSignature, where: str) -> Signature:
    """Return the model's signature, with dimensions that it leaves free taken from MLflow's signature.

    Types stay the model's: MLflow's are often inferred from data of more bits than the model computes with.
    Raises ModelError, beginning with `where`, if no input could fit both.
    """
    inputs = _merge_inputs(signature.inputs, mlflow.inputs, f"{where}: signature.inputs")
    free = all(spec.shape[:1] == (-1,) for spec in inputs)
    return replace(signature, inputs=inputs, batched=signature.batched and free)


def _merge_inputs(specs: tuple[TensorSpec, ...], schema: Schema, where: str) -> tuple[TensorSpec, ...]:
    tensors = [item for item in schema if isinstance(item, Tensor)]
    if not tensors:
        return _merge_table(specs, schema, where)
    if len(tensors) == len(specs) == 1 and tensors[0].name is None:
        return (_merge_tensor(specs[0], tensors[0], where),)
    named = {tensor.name: tensor for tensor in tensors}
    # The model may have inputs with defaults, which MLflow's signature does not name.
    for name in named:
        if name not in {spec.name for spec in specs}:
            inputs = ", ".join(spec.name for spec in specs)
            raise ModelError(f"{where}: tensor {name!r}: the model has no such input; it has: {inputs}")
    return tuple(
        _merge_tensor(spec, named[spec.name], where) if spec.name in named else spec for spec in specs
    )


def _merge_tensor(spec: TensorSpec, tensor: Tensor, where: str) -> TensorSpec:
    text = spec.datatype.dtype == object
    if tensor.dtype.kind not in ("OSU" if text else "biuf"):
        raise ModelError(
            f"{where}: tensor {spec.name!r}: expected {spec.datatype.name} as in the model, "
            f"got {tensor.dtype}"
        )
    shape = tuple(
        dimension if dimension != -1 else logged
        for dimension, logged in zip(spec.shape, tensor.shape, strict=False)
    )
    is_compatible = all(logged in (-1, size) for size, logged in zip(shape, tensor.shape, strict=False))
    if len(spec.shape) != len(tensor.shape) or not is_compatible:
        raise ModelError(
            f"{where}: tensor {spec.name!r}: expected a shape of {list(spec.shape)} as in the model, "
            f"got {list(tensor.shape)}"
        )
    return replace(spec, shape=shape)


def _merge_table(specs: tuple[TensorSpec, ...], schema: Schema, where: str) -> tuple[TensorSpec, ...]:
    """Check that a table fits, as one matrix or with an input for each column, and name its columns."""
    names = tuple(column.name for column in schema if column.name is not None)
    spec = specs[0]
    if len(specs) > 1 or len(spec.shape) != 2 or not schema:
        return specs
    if spec.name in names and spec.shape[1] == 1:
        return (_name_columns(spec, (spec.name,), where),)
    if spec.shape[1] not in (-1, len(schema)):
        raise ModelError(f"{where}: expected {spec.shape[1]} columns as in the model, got {len(schema)}")
    return (_name_columns(spec, names, where),) if names else specs


def _name_columns(spec: TensorSpec, names: tuple[str, ...], where: str) -> TensorSpec:
    # A model that knows its columns by these names knows their order, too.
    if set(names) == set(spec.column_names):
        return spec
    if spec.column_names:
        raise ModelError(
            f"{where}: expected columns {listed(spec.column_names)} as in the model, got {listed(names)}"
        )
    return replace(spec, column_names=names)
