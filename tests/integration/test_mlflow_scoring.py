"""MLflow's scoring protocol beside MLflow itself: the same models and requests, the same answers."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from onnx_models import identity, save_model, scale
from server_process import Process, serving
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression, LogisticRegression

import driftline as dl
from driftline.registry.source import Registry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow.onnx
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

pytestmark = pytest.mark.timeout(300)

HELPERS = Path(__file__).parents[1] / "helpers"
SCRIPTS = Path(sys.executable).parent
RANDOM = np.random.default_rng(0)
FLOAT, TEXT = TensorProto.FLOAT, TensorProto.STRING
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
F4 = np.dtype(np.float32)


def columns(*types: str, optional: str = "") -> ModelSignature:
    names = "abcdefgh"[: len(types)]
    return ModelSignature(
        Schema([ColSpec(kind, name, name not in optional) for name, kind in zip(names, types, strict=True)])
    )


def linear(kind: Any, **options: Any) -> onnx.ModelProto:
    rows = RANDOM.normal(size=(200, 3)).astype(np.float32)
    target = rows @ [1, -2, 0.5] if kind is LinearRegression else rows[:, 0] > rows[:, 1]
    return to_onnx(kind().fit(rows, target), rows[:1], **options)


def two(path: Path) -> Path:
    """`p` is `a`, `q` is `b`: a number and a text a row."""
    nodes = [helper.make_node("Identity", ["a"], ["p"]), helper.make_node("Identity", ["b"], ["q"])]
    nodes += [helper.make_node("Identity", ["c"], ["r"])]
    return save_model(
        path,
        nodes,
        {"a": (FLOAT, ("N",)), "b": (TEXT, ("N",)), "c": (TEXT, ("N",))},
        {"p": (FLOAT, ("N",)), "q": (TEXT, ("N",)), "r": (TEXT, ("N",))},
    )


def models(root: Path) -> dict[str, Path]:
    """MLflow's folders of all models, by name."""
    file = root / "model.onnx"
    parameters = ParamSchema([ParamSpec("k", "long", 3), ParamSpec("l", "double", [1.0], shape=(-1,))])
    tensor = Schema([TensorSpec(F4, (-1, 3))])
    made = {
        "plain": (onnx.load(scale(file, 2)), None),
        "classifier": (linear(LogisticRegression), columns("double", "double", "double")),
        "undeclared": (linear(LogisticRegression), None),
        "matrix": (linear(LogisticRegression, options={"zipmap": False}), None),
        "optional": (onnx.load(scale(file, 2)), columns("double", "double", "double", optional="abc")),
        "regressor": (linear(LinearRegression), columns("double", "long", "float", optional="c")),
        "tensor": (onnx.load(scale(file, 2)), ModelSignature(tensor, params=parameters)),
        "named": (onnx.load(identity(file)), ModelSignature(Schema([TensorSpec(F4, (-1, 3), "x")]))),
        "wide": (onnx.load(identity(file)), None),
        "mixed": (onnx.load(two(file)), columns("double", "string", "datetime")),
        "mixed_plain": (onnx.load(two(file)), None),
        "texts": (onnx.load(identity(file, "BYTES", ("N", 2))), columns("string", "string")),
        "flags": (onnx.load(identity(file, "BOOL", ("N", 2))), columns("boolean", "boolean")),
        "integers": (onnx.load(identity(file, "INT32", ("N", 2))), columns("integer", "integer")),
    }  # fmt: skip
    folders = {}
    for name, (model, signature) in made.items():
        folders[name] = root / "mlflow" / name
        mlflow.onnx.save_model(model, folders[name], signature=signature, pip_requirements=["onnx"])
    folders["raw"] = raw(root)
    folders["python"] = root / "mlflow" / "python"
    mlflow.pyfunc.save_model(
        folders["python"],
        python_model=str(HELPERS / "mlflow_forms.py"),
        signature=ModelSignature(Schema([ColSpec("double", "x"), ColSpec("string", "form")])),
        pip_requirements=["pandas"],
    )
    return folders


def flights(rows: int) -> pd.DataFrame:
    """Columns as they come: numbers with gaps, text with gaps, dates."""
    temperature = RANDOM.normal(15, 8, rows)
    temperature[::11] = np.nan
    carrier = RANDOM.choice(["AA", "UA", "Zürich Air"], rows).astype(object)
    carrier[::17] = None
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(RANDOM.integers(0, 400 * 24, rows), unit="h")
    return pd.DataFrame({"temperature": temperature, "carrier": carrier, "day": day})


def raw(root: Path) -> Path:
    """A version with a transform, and beside it what MLflow makes of it as a model in Python."""
    data = flights(500)
    steps = [
        dl.Impute(["temperature"], "median"),
        dl.OneHot("carrier"),
        dl.DatePart("day", "month"),
    ]
    transform = dl.Transform(steps).fit(data)
    matrix = transform.apply(data)
    version = root / "version"
    version.mkdir()
    model = LinearRegression().fit(matrix, matrix.sum(axis=1) + data["day"].dt.month)
    (version / "model.onnx").write_bytes(to_onnx(model, matrix[:1]).SerializeToString())
    transform.save(version / "transform.json")
    kinds = {"temperature": "double", "carrier": "string", "day": "datetime"}
    folder = root / "mlflow" / "raw"
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(HELPERS / "mlflow_raw.py"),
        artifacts={"version": str(version)},
        signature=ModelSignature(Schema([ColSpec(kind, name) for name, kind in kinds.items()])),
        pip_requirements=["pandas"],
    )
    shutil.copy(folder / "MLmodel", version)
    return folder


@dataclass
class Both:
    """MLflow's server and ours, with the same models."""

    peer: str
    ours: Process
    client: httpx.Client
    folders: dict[str, Path]

    def ask(self, model: str, body: Any, media_type: str = JSON) -> tuple[httpx.Response, httpx.Response]:
        content = body if isinstance(body, (str, bytes)) else json.dumps(body)
        options: Any = {"content": content, "headers": {"content-type": media_type}}
        theirs = self.client.post(f"{self.peer}/{model}/invocations", **options)
        return theirs, self.client.post(f"{self.ours.url}/models/{model}/invocations", **options)


@contextmanager
def peer(*command: str | Path) -> Iterator[str]:
    """MLflow's server; its address."""
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"  # where `mlflow` looks for its uvicorn
    with subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"},
    ) as popen:  # fmt: skip
        assert popen.stderr is not None
        try:
            lines = []
            for line in popen.stderr:
                lines.append(line)
                if found := re.search(r"running on (http://\S+)", line):
                    break
            assert found, "".join(lines)
            yield found[1]
        finally:
            os.killpg(popen.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    root: Path = tmp_path_factory.mktemp("scoring")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folders = models(root)
    registry = Registry.open(root / "models")
    arguments = [f"{name}={folder}" for name, folder in folders.items()]
    for name, folder in folders.items():
        registry.register([root / "version" if name == "raw" else folder], name)
    with (
        peer(sys.executable, HELPERS / "mlflow_peer.py", *arguments) as theirs,
        serving("wide", *folders, "--registry", root / "models", "--trust") as ours,
        httpx.Client(timeout=60) as client,
    ):
        yield Both(theirs, ours, client, folders)


def split(rows: list[Any], names: str | list[str] | None = None, **more: Any) -> dict[str, Any]:
    named = {} if names is None else {"columns": list(names)}
    return {"dataframe_split": {**named, "data": rows, **more}}


def parquet(**values: Any) -> bytes:
    sink = io.BytesIO()
    pd.DataFrame(values).to_parquet(sink)
    return sink.getvalue()


def in_every_form(values: list[Any]) -> list[Any]:
    """Rows of these and a text."""
    rows = [{"a": value, "b": "b"} for value in values]
    return [
        split([list(row.values()) for row in rows], "ab"), {"dataframe_records": rows},
        {"inputs": {"a": values, "b": ["b"] * len(values)}}, {"inputs": rows}, {"instances": rows},
    ]  # fmt: skip


ROW = [1.5, 2, -3]
VALUES: list[list[Any]] = [
    [1, 2, 3], ROW, ["1", "2", "3"], ["1.5", 2, 3], ["x", 2, 3], [True, False, True], [None, 2, 3],
    [math.nan, 2, math.inf], [2**40, 1, 2], [10**30, 1, 2], [{}, 1, 2], [2, 3], [1, 2, 3, 4], [],
]  # fmt: skip
MALFORMED: list[Any] = [
    "{", "[1]", "5", "", b"\xff", {}, {"instances": [ROW], "inputs": [ROW]}, {"predict": [ROW]},
    {"dataframe_split": [1]}, {"dataframe_split": {"columns": ["a"]}}, {"dataframe_split": None},
    split([ROW], "a"), split([ROW], "abc", more=1), {"dataframe_records": {"a": 1}},
    {"dataframe_records": [5]}, {"dataframe_records": None}, {"inputs": None}, {"inputs": []},
    {"inputs": 5}, {"instances": 5},
    {"instances": []}, {"instances": [[1.5, 2]]}, {"inputs": {"z": [ROW]}}, {"inputs": {}},
]  # fmt: skip
TENSORS: list[Any] = [
    {"inputs": [ROW]}, {"instances": [ROW, ROW]}, {"inputs": {"x": [ROW]}}, {"instances": [{"x": ROW}]},
    {"inputs": {"a": 1.5, "b": 2, "c": 3}}, {"inputs": {"a": [1.5, 2], "b": [2, 3], "c": [3, 4]}},
    {"inputs": {"a": ["x"], "b": [2], "c": [3]}}, {"inputs": {"a": [1, 2], "b": [2], "c": [3]}},
    {"instances": [{"a": 1.5, "b": 2, "c": 3}, {"c": 3, "a": 2, "b": 5}]}, {"instances": [{"a": [1.5]}]},
    {"inputs": {"a": [1.5], "b": [2]}},
    '{"inputs": [[NaN, Infinity, -Infinity]]}', {"instances": [ROW], "params": {"t": 1}, "more": 5},
]  # fmt: skip
TABLES: list[Any] = [
    split([ROW, [0.5, None, 2]], "abc"), split([ROW], "abc", index=["r"]), split([ROW]), split([], "abc"),
    split([[*ROW, "x"], [*ROW, None]], "bcad"), split([ROW], "ab"), {"dataframe_records": []},
    {"dataframe_records": [{"c": 3.5, "b": 1, "a": 2}, {"a": 5, "b": 0.5, "c": 3}]},
    {"dataframe_records": [{"c": 3.5, "b": 1, "a": 2}, {"a": 5, "b": 0.5}]},
    {"inputs": [{"a": 1.5, "b": 2, "c": 3, "d": "x"}]},
]  # fmt: skip
NAMED: list[Any] = [
    {"inputs": {"x": [ROW], "z": [1]}}, {"inputs": {"x": [[1, 2]]}}, {"inputs": {"x": [["1.5", True, 2]]}},
    split([[[1, 2, 3]], [ROW]], "x"), split([[1.5]], "x"),
]  # fmt: skip
PARAMETERS = [
    None,
    5,
    {},
    {"k": 5},
    {"k": 1.5},
    {"k": "x"},
    {"z": 1},
    {"l": [1, 2]},
    {"l": 3},
    {"k": [1]},
    {"k": None},
]
MIXED: list[Any] = [
    split([[1.5, "é", "2024-01-05"], [2.5, "", "null"]], "abc"), split([["x", 1.5, "2024-01-05", 0]], "bacd"),
    split([[1.5, "x"]], "ab"), split([["x", "y", "z"]], "abc"), split([[1, 2.5, True]], "abc"),
    {"dataframe_records": [{"a": 1.5, "b": "x", "c": "2024-01-05"}]}, {"inputs": {"a": [1.5], "b": ["x"]}},
    {"inputs": {"a": [1.5], "b": ["x"], "c": ["2024-01-05"]}}, {"inputs": {"a": 1.5, "b": "x", "c": "y"}},
    {"instances": [{"a": 1.5, "b": "x", "c": "2024-01-05"}, {"a": 2.5, "b": "y", "c": "2024-01-05"}]},
]  # fmt: skip
WHOLE = [[1, 2], [1.5, -1.5], ["7", True], ["1.5", 1], [None, 1], [math.nan, 1], ["x", 1]]
NUMBERS: list[list[Any]] = [
    [5.5, 1], [1, 2], [1.0], [True, 1], [True, 1.5], ["x", 1, 1.5], [-0.0, 0], [2**53 + 1, 1.5], [1e16, 1],
    [2**63, 1], [2**63, -1], [math.inf, 1],
]  # fmt: skip
OPTIONAL: list[Any] = [
    split([ROW]), split([ROW], "abc"), split([ROW], "xyz"), split([], "abc"), split([]),
    {"inputs": {"z": [1]}}, {"dataframe_records": []}, {"dataframe_records": [{}]}, {"instances": [{"z": 1}]},
]  # fmt: skip
DAYS = [
    "2024/02/05", "2024-2-5", "2024.2.5 07:08", "2024/02/05T07:08:09.5", "20240205", "2024-02/5x",
    "2024/13/1", "2024-W05-1", "2024-02-05_07:08", "1677-09-21", "1677-09-22", "2262-04-11",
    "2262-04-12", "9999-12-31",
]  # fmt: skip
FLIGHT = ["temperature", "carrier", "day"]
RAW: list[Any] = [
    split([[7.5, "AA", "2024-01-05"], [None, None, None], [1, "UA", "2024-05-06"]], FLIGHT),
    split([["2024-01-05T07:08:09.5", "x", 7, "AA"]], ["day", "odd", "temperature", "carrier"]),
    {"dataframe_records": [{"day": "2024-02-29", "carrier": "Zürich Air", "temperature": 7}]},
    {"inputs": {"temperature": [7.5], "carrier": ["AA"], "day": ["2024-01-05"]}},
    split([[7.5, "AA", "yesterday"]], FLIGHT), split([[7.5, "AA"]], FLIGHT[:2]),
    split([["warm", "AA", "2024-01-05"]], FLIGHT),
]  # fmt: skip
FILES: list[tuple[str, str | bytes, str]] = [
    ("classifier", "a,b,c\n1,2,3\n0.5,,7\n", CSV), ("classifier", "c,b,a,z\n1,2,3,x\n", CSV),
    ("classifier", "a,b,c\n1,x,3\n", CSV), ("classifier", "a,b\n1,2\n", CSV), ("classifier", "", CSV),
    ("classifier", b"\xff\xfe", CSV), ("undeclared", "a,b,c\n1.5,2,3\n", CSV),
    ("undeclared", "a,b\n1.5,2\n", CSV),
    *(("integers", f"a,b\n{text},2\n", CSV) for text in ("1.0", "1e3", "1.7", "True", "1.0,1\n1", "1.0,1\n")),
    *(("classifier", f"a,b,c\n{text},2,3\n", CSV) for text in ("True", "true,1,2\nFALSE", "True,1,2\n1")),
    ("integers", "a,b\n1,2\n", CSV), ("integers", "a,b\n1.5,2\n", CSV), ("integers", "a,b\n,2\n", CSV),
    ("texts", "a,b\n2024-01-05,007\n", CSV), ("mixed_plain", "b,c,a\nx,2024-01-05,1.5\n", CSV),
    ("flags", "a,b\nTrue,False\n", CSV), ("mixed", "a,b,c\n1.5,x,y\n", CSV),
    ("undeclared", "x", "text/plain"), ("undeclared", "x", "text/csv; charset=latin1"),
    ("undeclared", "{}", "application/json; odd=1"),
    ("undeclared", '{"inputs": [[1.5, 2, 3]]}', JSON + "; charset=utf-8"),
    ("classifier", parquet(a=[1.5, 2.5], b=[1.0, None], c=[0.5, 1]), PARQUET),
    ("classifier", parquet(a=[7], b=[1.0], c=[0.5]), PARQUET),
    ("classifier", parquet(a=[1], b=[1.0], c=[0.5]), PARQUET),
    ("classifier", parquet(a=np.array([7], "i4"), b=np.array([7], "f4"), c=[0.5]), PARQUET),
    ("classifier", parquet(a=["x"], b=[1.0], c=[0.5]), PARQUET),
    ("classifier", parquet(a=[1.5], b=[1.5]), PARQUET),
    ("classifier", b"PAR1", PARQUET), ("undeclared", parquet(a=[1.5], b=[1.5], c=[1.5]), PARQUET),
    ("mixed", parquet(a=[1.5], b=["x"], c=["y"]), PARQUET), ("integers", parquet(a=[1], b=[2]), PARQUET),
    ("integers", parquet(a=np.array([1], "i2"), b=np.array([2], "i4")), PARQUET),
    ("raw", parquet(**flights(40)), PARQUET),
    ("raw", parquet(temperature=[7], carrier=["A"], day=["x"]), PARQUET),
]  # fmt: skip
CASES: list[tuple[str, Any, str]] = [
    *((name, body, JSON) for name in ("plain", "classifier", "tensor", "named") for body in MALFORMED),
    *(
        (name, form, JSON)
        for name in ("classifier", "regressor", "tensor", "named")
        for row in VALUES
        for form in (split([row], "abc"), split([row, ROW], "abc"))
    ),
    *(
        (name, {"dataframe_records": [dict(zip("abc", row, strict=False)), {"a": 1, "b": 2, "c": 3.5}]}, JSON)
        for name in ("classifier", "regressor")
        for row in VALUES
    ),
    *(
        (name, form, JSON)
        for name in ("classifier", "regressor", "plain", "matrix", "undeclared", "tensor", "named", "wide")
        for form in TENSORS
    ),
    *((name, form, JSON) for name in ("classifier", "undeclared", "wide") for form in TABLES),
    *(("named", form, JSON) for form in NAMED),
    *(("tensor", {"inputs": [ROW], "params": params}, JSON) for params in PARAMETERS),
    *(("regressor", form, JSON) for form in (split([[1.5, 2]], "ab"), split([[1.5, 2.7, 3]], "abc"))),
    *((name, form, JSON) for name in ("mixed", "mixed_plain") for form in MIXED),
    *(("texts", split([row], "ab"), JSON) for row in (["a", "null"], [1, 2], ["a", 1.5], [True, "é"])),
    *(("texts", split([[text, "b"]], "ab"), JSON) for text in ("\ud83d", "\U0001f600", r"\ud83d")),
    *(("texts", form, JSON) for values in NUMBERS for form in in_every_form(values)),
    *(("flags", split([row], "ab"), JSON) for row in ([True, False], [1, 0], [0.5, 0])),
    *(("integers", split([row], "ab"), JSON) for row in WHOLE),
    *(("optional", form, JSON) for form in OPTIONAL),
    *(("raw", form, JSON) for form in RAW),
    *(("raw", split([[7.5, "AA", day]], FLIGHT), JSON) for day in DAYS),
    *(
        ("python", form, JSON)
        for kind in ("array", "list", "series", "named", "frame", "records", "mapping")
        for form in (split([[1.5, kind], [2, kind]], ["x", "form"]), {"inputs": {"x": [1], "form": [kind]}})
    ),
    *FILES,
]
MORE = "Encountered an unexpected error while evaluating the model"
"""What MLflow says of whole numbers for fractions, outputs that make no table, and the like."""


@pytest.mark.parametrize(
    ("model", "body", "media_type"),
    CASES,
    ids=[f"{model}-{number}" for number, (model, _, _) in enumerate(CASES)],
)
def test_answers_are_those_of_mlflow(both: Both, model: str, body: Any, media_type: str) -> None:
    theirs, ours = both.ask(model, body, media_type)
    if theirs.status_code == 200:
        assert ours.status_code == 200
        assert repr(ours.json()) == repr(theirs.json())  # in which NaN is itself
    elif theirs.status_code == 415:
        assert (ours.status_code, ours.json()["error_code"]) == (415, "BAD_REQUEST")
    else:
        error = theirs.json()
        if ours.status_code == 200:  # more is taken than there
            assert MORE in error["message"]
        else:
            found = ours.json()
            assert (ours.status_code, found["error_code"]) == (theirs.status_code, error["error_code"])
            assert found["message"]


def test_answers_are_those_of_the_command(both: Both) -> None:
    """All others ask the application that this command starts."""
    options = ("-h", "127.0.0.1", "-p", "0", "--env-manager", "local")
    with peer(SCRIPTS / "mlflow", "models", "serve", "-m", both.folders["classifier"], *options) as theirs:
        for body in (TABLES[0], TABLES[5], MALFORMED[0]):
            asked: Any = {"content": body if isinstance(body, str) else json.dumps(body)}
            asked["headers"] = {"content-type": JSON}
            answer = both.client.post(f"{theirs}/invocations", **asked)
            ours = both.client.post(f"{both.ours.url}/models/classifier/invocations", **asked)
            assert ours.status_code == answer.status_code
            key = "predictions" if answer.status_code == 200 else "error_code"
            assert ours.json()[key] == answer.json()[key]


def test_the_scoring_client_of_mlflow(both: Both) -> None:
    for model in ("wide", "mixed_plain", "raw"):
        data = flights(30) if model == "raw" else pd.DataFrame({"a": [1.5], "b": ["x"], "c": ["2024-01-05"]})
        data = pd.DataFrame([ROW]) if model == "wide" else data
        answers = []
        for url in (f"{both.peer}/{model}", f"{both.ours.url}/models/{model}"):
            client = ScoringServerClient.__new__(ScoringServerClient)
            client.url_prefix = url
            answers.append(client.invoke(data).get_predictions())
        pd.testing.assert_frame_equal(*answers)


def test_the_default_model_is_the_first_reference(both: Both) -> None:
    client = ScoringServerClient(*both.ours.address.split(":"))
    client.wait_server_ready(timeout=30)
    assert client.invoke([ROW]).get_predictions().to_dict("list") == {"y": [ROW]}


@pytest.mark.parametrize("path", ["/ping", "/health", "/version"])
def test_the_other_paths(both: Both, path: str) -> None:
    theirs, ours = both.client.get(both.peer + "/plain" + path), both.client.get(both.ours.url + path)
    assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text)
    assert ours.headers["content-type"] == theirs.headers["content-type"]


def test_an_unknown_model_and_another_method(both: Both) -> None:
    missing = both.client.post(both.ours.url + "/models/none/invocations", json={"inputs": [ROW]})
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert "'none'" in missing.json()["message"]
    wrong = both.client.get(both.ours.url + "/invocations")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert set(wrong.json()) == {"error_code", "message"}


def test_rows_are_watched_as_all_others(both: Both) -> None:
    before = both.ours.get("/v2/models/raw/stats").json()["model_stats"][0]["inference_count"]
    both.ask("raw", RAW[0])
    stats = both.ours.get("/v2/models/raw/stats").json()["model_stats"][0]
    assert stats["inference_count"] == before + 3
