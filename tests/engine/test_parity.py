"""Files that are to predict what their maker says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from onnx_models import identity, scale

from driftline.engine.parity import check
from driftline.errors import BadRequest


def replayed(folder: Path, table: Any) -> int:
    pa.parquet.write_table(table, folder / "data.parquet")
    return check(folder, folder / "data.parquet", 1e-5, lambda rows: None)


def test_predictions_are_no_inputs(tmp_path: Path) -> None:
    scale(tmp_path / "model.onnx", 2.0)
    columns = {name: np.arange(5, dtype=np.float32) for name in "ab"}
    with pytest.raises(BadRequest, match="or 3 columns; the data has 2: a, b"):
        replayed(tmp_path, pa.table({**columns, "total": columns["a"]}))
    whole = {**columns, "c": np.zeros(5, np.float32)}
    assert replayed(tmp_path, pa.table({**whole, "total": 4 * columns["a"]})) == 5


@pytest.mark.parametrize(
    ("datatype", "x", "y", "message"),
    [
        ("INT64", [0, 1], [0, 2], "output 'y', row 1: expected 2 within 1e-05, got 1"),
        ("FP32", [0.5], [0.25], "output 'y', row 0: expected 0.25 within 1e-05, got 0.5"),
        ("BYTES", ["a"], ["b"], "output 'y', row 0: expected 'b' within 1e-05, got 'a'"),
    ],
)
def test_what_differs_is_shown_plainly(tmp_path: Path, datatype: str, x: Any, y: Any, message: str) -> None:
    identity(tmp_path / "model.onnx", datatype, ("N",))
    with pytest.raises(BadRequest) as caught:
        replayed(tmp_path, pa.table({"x": x, "y": y}))
    assert str(caught.value) == message


def test_text_in_csv_is_compared_as_it_is(tmp_path: Path) -> None:
    identity(tmp_path / "model.onnx", "BYTES", ("N",))
    (tmp_path / "data.csv").write_text("x,y\n02139,02139\nTrue,True\n1.50,1.5\n")
    with pytest.raises(BadRequest, match=r"output 'y', row 2: expected '1\.5' within 1e-05, got '1\.50'"):
        check(tmp_path, tmp_path / "data.csv", 1e-5, lambda rows: None)
