"""Raw columns over HTTP: what was trained in a notebook is what is served, to the bit."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tritonclient.http as triton
from server_process import Process, serving
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

import driftline as dl

RANDOM = np.random.default_rng(0)
ROWS = 2000


def raw(rows: int = ROWS) -> pd.DataFrame:
    """Columns as they come: numbers with gaps, whole numbers, text with gaps and letters of all kinds."""
    temperature = RANDOM.normal(15, 8, rows)
    temperature[::11] = np.nan
    carrier = RANDOM.choice(["AA", "UA", "Zürich Air", ""], rows).astype(object)
    carrier[::17] = None
    return pd.DataFrame(
        {"temperature": temperature, "distance": RANDOM.integers(50, 5000, rows), "carrier": carrier}
    )


class Trained:
    """A model, its transform, and what they predicted in training."""

    def __init__(self, folder: Path) -> None:
        self.columns = raw()
        late = (self.columns["distance"] > 2000) ^ (self.columns["carrier"] == "AA")
        self.transform = dl.Transform(
            [
                dl.Impute(["temperature"], "median", indicator=True),
                dl.Standardise(["temperature", "distance"]),
                dl.OneHot("carrier"),
            ]
        ).fit(self.columns)
        matrix = self.transform.apply(self.columns)
        model = LogisticRegression().fit(matrix, late)
        onnx = to_onnx(model, matrix[:1], options={"zipmap": False})
        (folder / "model.onnx").write_bytes(onnx.SerializeToString())
        self.transform.save(folder / "transform.json")
        self.outputs = dl.Model.load(folder).predict(self.columns)
        predicted = self.outputs["probabilities"]
        profile = {
            **{name: pa.array(self.columns[name]) for name in self.columns},
            "probabilities": predicted,
        }
        dl.Profile.fit(profile).save(folder / "profile.arrow")
        self.data = folder / "sample.parquet"
        sample = pa.Table.from_pandas(self.columns, preserve_index=False)
        for index in range(2):
            sample = sample.append_column(f"probabilities_{index}", pa.array(predicted[:, index]))
        pq.write_table(sample, self.data)
        np.testing.assert_allclose(predicted, model.predict_proba(matrix), atol=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


def register(registry: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "driftline", "register", *arguments, "--name", "late"]
    return subprocess.run([*command, "--registry", registry], capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def server(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    registry = tmp_path_factory.mktemp("registry") / "models"
    folder = trained.data.parent
    files = [folder / name for name in ("model.onnx", "transform.json", "profile.arrow")]
    done = register(registry, *files, "--check", trained.data)
    assert done.returncode == 0, done.stderr
    with serving("late", "--registry", registry) as process:
        yield process


def tensors(columns: pd.DataFrame) -> dict[str, tuple[str, Any]]:
    return {
        "temperature": ("FP64", [None if value != value else value for value in columns["temperature"]]),
        "distance": ("INT64", columns["distance"].tolist()),
        "carrier": ("BYTES", columns["carrier"].tolist()),
    }


def test_metadata_shows_the_raw_columns(server: Process) -> None:
    assert server.get("/v2/models/late").json()["inputs"] == [
        {"name": "temperature", "datatype": "FP64", "shape": [-1]},
        {"name": "distance", "datatype": "FP64", "shape": [-1]},
        {"name": "carrier", "datatype": "BYTES", "shape": [-1]},
    ]


def test_json_columns_are_answered_as_in_training(server: Process, trained: Trained) -> None:
    answer = server.infer("late", tensors(trained.columns[:100]), outputs=[{"name": "probabilities"}])
    answer.raise_for_status()
    data = np.array(answer.json()["outputs"][0]["data"], np.float32).reshape(-1, 2)
    np.testing.assert_array_equal(data, trained.outputs["probabilities"][:100])


def test_kserve_rows_are_answered_as_in_training(server: Process, trained: Trained) -> None:
    rows = trained.columns[1:11].astype({"distance": float}).replace({np.nan: None}).to_dict("records")
    answer = server.post("/v1/models/late:predict", json={"instances": rows})
    answer.raise_for_status()
    found = np.array([row["probabilities"] for row in answer.json()["predictions"]], np.float32)
    np.testing.assert_array_equal(found, trained.outputs["probabilities"][1:11])


def test_tritonclient_sends_a_tensor_a_column(server: Process, trained: Trained) -> None:
    columns = trained.columns[trained.columns["carrier"].notna()][:50]
    inputs = []
    for name, datatype, values in (
        ("temperature", "FP32", columns["temperature"].to_numpy(np.float32)[:, None]),
        ("distance", "INT32", columns["distance"].to_numpy(np.int32)),
        ("carrier", "BYTES", columns["carrier"].to_numpy(object)),
    ):
        tensor = triton.InferInput(name, values.shape, datatype)
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    with triton.InferenceServerClient(server.address) as client:
        found = client.infer("late", inputs).as_numpy("probabilities")
    np.testing.assert_allclose(found, trained.outputs["probabilities"][columns.index], atol=1e-6)


def test_an_arrow_stream_is_answered_as_in_training(server: Process, trained: Trained) -> None:
    rows = pa.Table.from_pandas(trained.columns, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=700)
    headers = {"content-type": "application/vnd.apache.arrow.stream"}
    answer = server.post("/v2/models/late/infer", content=sink.getvalue().to_pybytes(), headers=headers)
    answer.raise_for_status()
    found = pa.ipc.open_stream(answer.content).read_all()
    np.testing.assert_array_equal(found["probabilities_1"], trained.outputs["probabilities"][:, 1])


def test_the_monitor_watches_the_raw_columns(server: Process, trained: Trained) -> None:
    server.infer("late", tensors(trained.columns[:50])).raise_for_status()
    deadline = time.monotonic() + 60
    while (report := server.get("/v2/models/late/drift")).status_code == 503:
        assert time.monotonic() < deadline, report.text
        time.sleep(0.05)
    names = [column["name"] for column in report.json()["columns"]]
    assert names == ["temperature", "distance", "carrier", "probabilities_0", "probabilities_1"]
    metrics = server.get("/metrics").text
    assert 'driftline_rows_skipped_total{model="late",version="1"} 0.0' in metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"carrier": ("INT64", [1])}, "input 'carrier': expected datatype BYTES, got 'INT64'"),
        ({"distance": ("BYTES", ["far"])}, "input 'distance': expected datatype FP64, got 'BYTES'"),
        ({"distance": ("FP64", ["far"])}, "input 'distance': expected FP64 values, got 'far' (string)"),
        ({"distance": ("FP64", [1.0, 2.0])}, "input 'distance': expected 1 rows"),
        ({"gate": ("FP64", [1.0])}, "input 'gate': the model has no such input"),
    ],
)
def test_what_does_not_fit_is_named(server: Process, change: dict[str, Any], message: str) -> None:
    one = {"temperature": ("FP64", [1.0]), "distance": ("FP64", [1.0]), "carrier": ("BYTES", ["AA"])}
    answer = server.infer("late", one | change)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_scoring_a_file_gives_the_same(trained: Trained, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "driftline", "score", trained.data.parent, trained.data]
    subprocess.run(
        [*command, "-o", tmp_path / "scores.parquet"], check=True, capture_output=True, timeout=100
    )
    scores = pq.read_table(tmp_path / "scores.parquet")
    np.testing.assert_array_equal(scores["probabilities_1"], trained.outputs["probabilities"][:, 1])


def test_files_that_predict_otherwise_are_refused(trained: Trained, tmp_path: Path) -> None:
    folder = trained.data.parent
    files = [folder / "model.onnx", folder / "transform.json"]
    sample = pq.read_table(trained.data)
    wrong = sample["probabilities_1"].to_numpy().copy()
    wrong[1234] += 0.01
    pq.write_table(sample.set_column(4, "probabilities_1", pa.array(wrong)), tmp_path / "wrong.parquet")
    refused = register(tmp_path / "models", *files, "--check", tmp_path / "wrong.parquet")
    assert refused.returncode == 2
    assert "output 'probabilities_1', row 1234: expected" in refused.stderr
    assert not list((tmp_path / "models/late").glob("[0-9]*"))
    loose = register(tmp_path / "models", *files, "--check", tmp_path / "wrong.parquet", "--tolerance", "0.1")
    assert loose.returncode == 0
    nothing = register(tmp_path / "models", *files, "--check", tmp_path / "wrong.parquet")
    assert nothing.returncode == 2
    pq.write_table(sample.select(["temperature", "distance", "carrier"]), tmp_path / "none.parquet")
    none = register(tmp_path / "models", *files, "--check", tmp_path / "none.parquet")
    assert "expected predictions in columns named as the outputs: label, probabilities" in none.stderr


def test_a_transform_of_another_width_is_refused(trained: Trained, tmp_path: Path) -> None:
    folder = trained.data.parent
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    dl.Transform([dl.Pass("distance")]).fit(trained.columns).save(tmp_path / "transform.json")
    with pytest.raises(Exception, match=r"expected a model of one input FP32 \[-1, 1\], which the transform"):
        dl.Model.load(tmp_path)
