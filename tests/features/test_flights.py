"""Real flights: the features of a request are those of the training table, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest
from fake_gpu import Cpu
from onnx_models import with_transform

from driftline.demo.flights import CATEGORIES, FEATURES, load
from driftline.demo.train import STEPS
from driftline.engine import model as engine
from driftline.engine.features import Features
from driftline.engine.model import Model
from driftline.features.transform import Transform
from driftline.protocols.arrow import ArrowCodec
from driftline.protocols.v2 import V2Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec

ROWS = 3000


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return load()[[*FEATURES]]


@pytest.fixture(scope="module")
def served(flights: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Features]:
    """What was trained with, and what a server makes of the saved file."""
    transform = Transform(STEPS).fit(flights[:80_000])
    path: Path = tmp_path_factory.mktemp("flights") / "transform.json"
    transform.save(path)
    matrix = TensorSpec("input", DATATYPES["FP32"], (-1, transform.width))
    score = TensorSpec("score", DATATYPES["FP32"], (-1,))
    return transform, Features.of(path, Signature((matrix,), (score,), batched=True))


def sample(flights: pd.DataFrame) -> pd.DataFrame:
    """Flights of the whole year, some of airports and carriers that the training had not."""
    return flights.iloc[:: len(flights) // ROWS].reset_index(drop=True)


def test_json_gives_the_bits_of_training(flights: pd.DataFrame, served: tuple[Any, Features]) -> None:
    transform, features = served
    rows = sample(flights)
    entries = []
    for name in FEATURES:
        values = rows[name].astype(object).where(rows[name].notna(), None).tolist()
        datatype = "BYTES" if name in CATEGORIES else "FP64"
        entries.append({"name": name, "shape": [len(rows)], "datatype": datatype, "data": values})
    request = V2Codec(features.signature, "flights", 1).decode(orjson.dumps({"inputs": entries}))
    (matrix,) = features.apply(request.inputs).values()
    np.testing.assert_array_equal(matrix.view(np.uint32), transform.apply(rows).view(np.uint32))


def test_arrow_gives_the_bits_of_training(flights: pd.DataFrame, served: tuple[Any, Features]) -> None:
    transform, features = served
    rows = pa.Table.from_pandas(sample(flights), preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=500)
    request = ArrowCodec(features.signature, "flights", 1).decode(sink.getvalue().to_pybytes())
    (matrix,) = features.apply(request.inputs).values()
    np.testing.assert_array_equal(matrix.view(np.uint32), transform.apply(rows).view(np.uint32))


def test_one_flight_has_the_bits_it_has_among_others(
    flights: pd.DataFrame, served: tuple[Any, Features]
) -> None:
    transform, features = served
    rows = sample(flights)[:200]
    matrix_of_all = transform.apply(rows)
    for row in range(len(rows)):
        columns = {
            name: rows[name].to_numpy(object if name in CATEGORIES else np.float64)[row : row + 1]
            for name in FEATURES
        }
        (matrix,) = features.apply(columns).values()
        np.testing.assert_array_equal(matrix.view(np.uint32), matrix_of_all[row : row + 1].view(np.uint32))


def test_a_gpu_has_the_bits_of_training(
    flights: pd.DataFrame, served: tuple[Any, Features], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform, _ = served
    monkeypatch.setattr(engine, "find", lambda wanted: Cpu())
    model, rows = Model.load(with_transform(tmp_path, transform)), sample(flights)
    for number in (1, 5, 128, len(rows)):
        matrix = model.predict(rows[:number])["y"]
        np.testing.assert_array_equal(matrix.view(np.uint32), transform.apply(rows[:number]).view(np.uint32))
    assert len(model.device_sessions[0].buffers) > 2
