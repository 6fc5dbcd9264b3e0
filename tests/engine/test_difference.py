"""Versions that follow one another."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx_models import identity, scale

from driftline.engine import difference
from driftline.engine.bundle import Bundle
from driftline.engine.difference import differences, signature_changes
from driftline.engine.session import COLUMNS
from driftline.tensors import DATATYPES, Signature, TensorSpec


def named(path: Path, *names: str) -> Bundle:
    model = onnx.load(identity(path))
    if names:
        model.metadata_props.add(key=COLUMNS, value=json.dumps(names))
    onnx.save(model, path)
    return Bundle.open(path)


def test_columns_by_other_names_are_told(tmp_path: Path) -> None:
    known, turned, unnamed = (named(tmp_path / f"{names}.onnx", *names) for names in ("abc", "cba", ""))
    for new, old, message in (
        (turned, known, "has other columns, or in another order"),
        (known, unnamed, "now takes columns by name"),
        (unnamed, known, "no longer knows its columns by name"),
    ):
        said = list(differences(new, old, "version 1"))
        assert said == [f"may break clients of version 1: input 'x' {message}"]
    for same in (known, unnamed):
        assert not list(differences(same, same, "version 1"))


def test_models_that_are_large_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = [
        Bundle.open(make(tmp_path / f"{make.__name__}.onnx", *more))
        for make, more in ((identity, ()), (scale, (2.0,)))
    ]
    assert len(list(differences(*two, "version 1"))) == 1
    monkeypatch.setattr(difference, "MAX_BYTES", 10)
    assert not list(differences(*two, "version 1"))


@pytest.mark.parametrize(
    ("inputs", "outputs", "changes"),
    [
        ([("x", (-1, 2)), ("c", (-1,))], [("y", (-1,))], ""),
        ([("c", (-1,)), ("x", (-1, 2))], [("y", (-1,))], ""),
        ([("x", (-1, 3)), ("c", (-1,))], [("y", (-1,))], "input 'x' is FP32 [-1, 3], was FP32 [-1, 2]"),
        ([("x", (-1, 2)), ("d", (-1,))], [("y", (-1,))], "no input 'c', new input 'd' FP32 [-1]"),
        ([("x", (-1, 2)), ("c", (-1,))], [("z", (-1,))], "no output 'y', new output 'z' FP32 [-1]"),
        (
            [(f"x{number}", (-1,)) for number in range(8)], [("y", (-1,))],
            "no input 'x', no input 'c', new input 'x0' FP32 [-1], new input 'x1' FP32 [-1], "
            "new input 'x2' FP32 [-1], new input 'x3' FP32 [-1], 4 more",
        ),
    ],
)  # fmt: skip
def test_what_clients_notice_of_another_signature(
    inputs: list[tuple[str, tuple[int, ...]]], outputs: list[tuple[str, tuple[int, ...]]], changes: str
) -> None:
    def specs(shapes: list[tuple[str, tuple[int, ...]]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, DATATYPES["FP32"], shape) for name, shape in shapes)

    old = Signature(specs([("x", (-1, 2)), ("c", (-1,))]), specs([("y", (-1,))]), True)
    new = Signature(specs(inputs), specs(outputs), True)
    assert signature_changes(old, new) == changes
