"""MLflow's signature and the model's own: together they say which inputs are taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftline.engine.schema import merge_mlflow
from driftline.errors import ModelError
from driftline.mlmodel import Column, ColumnType, MlflowSignature, Schema, Tensor
from driftline.tensors import DATATYPES, Signature, TensorSpec

ROWS = (-1, -1)


def model(*inputs: TensorSpec, batched: bool = True) -> Signature:
    return Signature(inputs, (TensorSpec("y", DATATYPES["FP32"], (-1,)),), batched)


def spec(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = ROWS) -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], shape)


def tensor(dtype: str = "float32", shape: tuple[int, ...] = ROWS, name: str | None = "x") -> Tensor:
    return Tensor(name, np.dtype(dtype), shape)


def columns(number: int) -> Schema:
    return tuple(Column(f"c{i}", ColumnType("double")) for i in range(number))


@pytest.mark.parametrize(
    ("own", "said", "both"),
    [
        (spec(), tensor(), spec()),
        (spec(), tensor(shape=(-1, 30)), spec(shape=(-1, 30))),
        (spec(shape=(-1, 30)), tensor(), spec(shape=(-1, 30))),
        (spec(), tensor(name=None, shape=(-1, 2)), spec(shape=(-1, 2))),
        (spec(), tensor("float64"), spec()),  # inferred from numpy's default
        (spec(datatype="INT64"), tensor("int32"), spec(datatype="INT64")),
        (spec(datatype="BYTES"), tensor("str"), spec(datatype="BYTES")),
        (spec(datatype="BYTES"), tensor("object"), spec(datatype="BYTES")),
    ],
)
def test_what_one_leaves_open_the_other_says(own: TensorSpec, said: Tensor, both: TensorSpec) -> None:
    assert merge_mlflow(model(own), MlflowSignature((said,)), "MLmodel") == model(both)


def test_a_first_dimension_that_is_fixed_is_no_batch() -> None:
    assert merge_mlflow(model(spec()), MlflowSignature((tensor(shape=(1, 3)),)), "MLmodel") == model(
        spec(shape=(1, 3)), batched=False
    )


def test_an_input_that_the_signature_leaves_out_stays_as_it_is() -> None:
    own = model(spec("x"), spec("z"))
    assert merge_mlflow(own, MlflowSignature((tensor(),)), "MLmodel") == own


def test_declared_columns_name_those_of_a_matrix() -> None:
    known = ("c2", "c0", "c1")
    for own, names in (
        (spec(shape=(-1, 3)), ("c0", "c1", "c2")),
        (spec(), ("c0", "c1", "c2")),
        (replace(spec(), column_names=known), known),  # the same in its own order
    ):
        both = merge_mlflow(model(own), MlflowSignature(columns(3)), "MLmodel")
        assert both == model(replace(own, column_names=names))


def test_a_column_that_is_an_input_is_taken_out_of_all_that_are_declared() -> None:
    own = spec("c1", shape=(-1, 1))
    both = merge_mlflow(model(own), MlflowSignature(columns(3)), "MLmodel")
    assert both == model(replace(own, column_names=("c1",)))


def test_columns_of_several_inputs_and_nothing_change_nothing() -> None:
    for own, schema in ((model(spec("a"), spec("b")), columns(3)), (model(spec(shape=(-1, 3))), ())):
        assert merge_mlflow(own, MlflowSignature(schema), "MLmodel") == own


@pytest.mark.parametrize(
    ("own", "schema", "message"),
    [
        (spec(), (tensor(name="z"),), "tensor 'z': the model has no such input; it has: x"),
        (spec(), (tensor("str"),), "tensor 'x': expected FP32 as in the model, got <U0"),
        (spec(), (tensor("datetime64[ns]"),), "tensor 'x': expected FP32 as in the model, got datetime64"),
        (spec(datatype="BYTES"), (tensor(),), "tensor 'x': expected BYTES as in the model, got float32"),
        (spec(), (tensor(shape=(-1,)),), r"expected a shape of \[-1, -1\] as in the model, got \[-1\]"),
        (spec(shape=(-1, 3)), (tensor(shape=(-1, 4)),), r"expected a shape of \[-1, 3\] .* got \[-1, 4\]"),
        (spec(shape=(-1, 3)), columns(4), "expected 3 columns as in the model, got 4"),
        (
            replace(spec(), column_names=("a", "c0", "c1")),
            columns(3),
            "expected columns a, c0, c1 as in the model, got c0, c1, c2",
        ),
        (
            replace(spec("c1", shape=(-1, 1)), column_names=("a",)),
            columns(3),
            "expected columns a as in the model, got c1",
        ),
    ],
)
def test_what_no_input_could_fit_is_refused(own: TensorSpec, schema: Schema, message: str) -> None:
    with pytest.raises(ModelError, match=rf"^MLmodel: signature.inputs: .*{message}"):
        merge_mlflow(model(own), MlflowSignature(schema), "MLmodel")
