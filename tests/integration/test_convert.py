"""Models that MLflow saved are converted, registered, served; what is Python code is served as it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from server_process import Process, serving

from driftline.cli import main
from driftline.registry.source import Registry

SAVE = """
import json, sys
import lightgbm, mlflow, numpy as np, pandas as pd, xgboost
from mlflow.models import infer_signature
from sklearn.ensemble import RandomForestClassifier
folder = sys.argv[1]
draw = np.random.default_rng(0)
table = pd.DataFrame(draw.normal(size=(200, 3)), columns=["a", "b", "c"])
late = (table["a"] > table["b"]).astype(int)
example = table[:5]
more = {"input_example": example, "pip_requirements": []}  # else MLflow finds them out, for a minute
forest = RandomForestClassifier(5, random_state=0).fit(table, late)
mlflow.sklearn.save_model(forest, folder + "/sklearn", serialization_format="cloudpickle", **more)
boosted = xgboost.XGBClassifier(n_estimators=5).fit(table, late)
mlflow.xgboost.save_model(boosted, folder + "/xgboost", **more)
light = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(table, late)
mlflow.lightgbm.save_model(light.booster_, folder + "/lightgbm", **more)
open(folder + "/code.py", "w").write('''
import os
import mlflow
class Sum(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input.sum(axis=1)
mlflow.models.set_model(Sum())
''')
mlflow.pyfunc.save_model(
    folder + "/pyfunc", python_model=folder + "/code.py",
    signature=infer_signature(example, np.zeros(5)), **more,
)
json.dump({
    "rows": example.to_numpy().tolist(),
    "sklearn": forest.predict_proba(example).tolist(),
    "xgboost": boosted.predict_proba(example).tolist(),
    "lightgbm": light.predict_proba(example).tolist(),
}, open(folder + "/expected.json", "w"))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of MLflow models, and what they predict for their examples."""
    folder = tmp_path_factory.mktemp("mlflow")
    subprocess.run([sys.executable, "-c", SAVE, str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def expected(saved: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((saved / "expected.json").read_text())
    return document


def driftline(*arguments: str | Path) -> str:
    done = CliRunner().invoke(main, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def test_models_of_three_libraries_are_converted_registered_and_served(
    saved: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    models = tmp_path / "models"
    for name, trust in (("sklearn", ["--trust"]), ("xgboost", []), ("lightgbm", [])):
        said = driftline("convert", saved / name, "-o", tmp_path / name, *trust)
        assert "on 5 rows: " in said
        driftline("register", tmp_path / name, "--name", name, "--registry", models)
    with serving("--registry", models) as server:
        for name in ("sklearn", "xgboost", "lightgbm"):
            answer = server.infer(name, {"input": ("FP32", expected["rows"])}).json()
            outputs = {output["name"]: output["data"] for output in answer["outputs"]}
            assert outputs["probabilities"] == pytest.approx(np.ravel(expected[name]), abs=1e-5)
            assert outputs["label"] == np.argmax(expected[name], axis=1).tolist()


def test_a_conversion_that_fails_is_one_line(saved: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["convert", str(saved / "sklearn"), "-o", str(tmp_path / "bundle")])
    assert done.exit_code == 2
    assert "model.pkl: a pickle, which runs whatever code is in it" in done.output
    done = CliRunner().invoke(main, ["convert", str(saved / "pyfunc"), "-o", str(tmp_path / "bundle")])
    assert done.exit_code == 2
    assert "it is served as it is by `driftline serve --trust`" in done.output


@pytest.fixture
def registry(saved: Path, tmp_path: Path) -> Path:
    Registry.open(tmp_path / "models").register([saved / "pyfunc"], "sum")
    return tmp_path / "models"


def test_python_code_does_not_run_without_trust(registry: Path, tmp_path: Path) -> None:
    data, output = tmp_path / "data.csv", tmp_path / "scored.parquet"
    data.write_text("a,b,c\n1,2,3\n4,5,6\n")
    command = [sys.executable, "-m", "driftline", "serve", "--registry", str(registry), "--port", "0"]
    served = subprocess.run(command, capture_output=True, text=True, timeout=60)
    score = ["score", "sum", str(data), "-o", str(output), "--registry", str(registry)]
    scored = CliRunner().invoke(main, score)
    for code, said in ((served.returncode, served.stderr), (scored.exit_code, scored.output)):
        assert code == 2
        assert "this model is Python code, which runs once somebody allows it: `--trust` does" in said
    scored = CliRunner().invoke(main, [*score, "--trust"])
    assert scored.exit_code == 0, scored.output
    assert pq.read_table(output).column("predictions").to_pylist() == [6, 15]


@pytest.fixture
def server(registry: Path) -> Iterator[Process]:
    with serving("--registry", registry, "--trust", "--python", sys.executable) as process:
        yield process


def ask(server: Process, *rows: list[float]) -> Any:
    columns = np.array(rows, float)
    return server.infer("sum", {name: ("FP64", columns[:, at].tolist()) for at, name in enumerate("abc")})


def worker(server: Process) -> int:
    """The process that the server has started."""
    found = Path(f"/proc/{server.popen.pid}/task").glob("*/children")
    (child,) = (int(pid) for path in found for pid in path.read_text().split())
    return child


def test_python_code_is_served_killed_and_served_again(server: Process) -> None:
    def outputs(answer: Any) -> list[float]:
        assert answer.status_code == 200, answer.text
        data: list[float] = answer.json()["outputs"][0]["data"]
        return data

    assert outputs(ask(server, [1, 2, 3], [4, 5, 6])) == [6.0, 15.0]
    with ThreadPoolExecutor(16) as pool:  # they run together, in one process
        many = list(pool.map(lambda number: outputs(ask(server, [number, 1, 1])), range(100)))
        assert many == [[number + 2.0] for number in range(100)]
        os.kill(worker(server), signal.SIGKILL)
        answers = list(pool.map(lambda number: ask(server, [number, 1, 1]), range(20)))
    for number, answer in enumerate(answers):
        if answer.status_code == 200:
            assert outputs(answer) == [number + 2.0]
        else:
            assert "process was killed by SIGKILL; it is started again" in answer.json()["error"]
    assert outputs(ask(server, [1, 1, 1])) == [3.0]
    wrong = server.infer("sum", {"a": ("FP64", [1.0])})
    assert wrong.status_code == 400
    last = worker(server)
    assert server.stop() == 0
    assert not Path(f"/proc/{last}").exists()
