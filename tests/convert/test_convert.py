"""Models of other libraries, converted: what they say must be what they said."""

from __future__ import annotations

import errno
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from driftline.convert.convert import Report, convert
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.engine.profile import profile
from driftline.engine.score import score
from driftline.errors import BadRequest
from driftline.features.transform import Transform
from driftline.protocols.mlflow.tabular import CsvCodec

draw = np.random.default_rng(0)
ROWS = 300
TABLE = pd.DataFrame({"dep": draw.normal(size=ROWS), "dist": draw.integers(0, 3000, ROWS).astype(float)})
MIXED = TABLE.assign(carrier=draw.choice(["US", "UA", "B6"], ROWS))
OTHERS = pd.DataFrame({"dep": draw.normal(size=ROWS), "dist": draw.uniform(0, 3000, ROWS)})
"""Rows that no tree has learnt from: none lies on a threshold, where floats and doubles part."""
LATE = (TABLE["dep"] + TABLE["dist"] / 3000 > 0.4).astype(int)
KINDS = np.array(["early", "late", "never"])[draw.integers(0, 3, ROWS)]
DELAY = TABLE["dep"] * 20 + TABLE["dist"] / 100


def run(
    source: Path, output: Path, data: Path | None = None, tolerance: float = 1e-5, trust: bool = True
) -> Report:
    return convert(source, output, data, tolerance, trust, lambda stage: None)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows to compare on, with a column that no model takes."""
    path = tmp_path / "rows.parquet"
    MIXED.assign(late=LATE).to_parquet(path)
    return path


def save(model: Any, path: Path) -> Path:
    joblib.dump(model, path)
    return path


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression().fit(TABLE, LATE),
    "forest of three classes": lambda: RandomForestClassifier(10, random_state=0).fit(TABLE, KINDS),
    "forest of numbers": lambda: RandomForestRegressor(10, random_state=0).fit(TABLE, DELAY),
    "linear": lambda: LinearRegression().fit(TABLE, DELAY),
    "scaler": lambda: StandardScaler().fit(TABLE),
    "clusters": lambda: make_pipeline(StandardScaler(), KMeans(3, random_state=0)).fit(TABLE),
    "xgboost in a pipeline": lambda: make_pipeline(
        StandardScaler(), xgboost.XGBClassifier(n_estimators=5)
    ).fit(TABLE, LATE),
    "lightgbm in a pipeline": lambda: make_pipeline(
        StandardScaler(), lightgbm.LGBMRegressor(n_estimators=5, verbose=-1)
    ).fit(TABLE.to_numpy(), DELAY),
    "xgboost": lambda: xgboost.XGBRegressor(n_estimators=5).fit(TABLE, DELAY),
    "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(TABLE, KINDS),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_pickle_is_converted(name: str, tmp_path: Path) -> None:
    data = tmp_path / "rows.parquet"
    OTHERS.to_parquet(data)
    report = run(save(ESTIMATORS[name](), tmp_path / "model.joblib"), tmp_path / "bundle", data, 1e-4)
    assert report.rows == ROWS
    assert report.difference.value < 1e-4
    model = Model.load(tmp_path / "bundle")
    assert [spec.as_json() for spec in model.signature.inputs] == [
        {"name": "input", "datatype": "FP32", "shape": [-1, 2]}
    ]
    assert model.signature.batched


@pytest.mark.parametrize("name", ["forest of three classes", "linear", "xgboost", "lightgbm"])
def test_a_matrix_takes_a_table_by_the_names_it_was_fitted_on(name: str, tmp_path: Path, table: Path) -> None:
    run(save(ESTIMATORS[name](), tmp_path / "model.joblib"), tmp_path / "bundle", table)
    model = Model.load(tmp_path / "bundle")
    assert model.signature.inputs[0].column_names == ("dep", "dist")
    expected = model.predict(TABLE.to_numpy(np.float32))
    turned = MIXED[["dist", "carrier", "dep"]]
    for output, values in model.predict(turned).items():
        np.testing.assert_array_equal(values, expected[output])
    turned.to_csv(tmp_path / "turned.csv", index=False)
    score(Bundle.open(tmp_path / "bundle"), tmp_path / "turned.csv", tmp_path / "scored.parquet")
    scored = pd.read_parquet(tmp_path / "scored.parquet")
    first = next(iter(expected))
    column = scored[first if first in scored else f"{first}_0"].to_numpy()
    if column.dtype == object:
        assert column.tolist() == expected[first].tolist()
    else:
        assert column == pytest.approx(expected[first].ravel(), rel=1e-5)
    taken = profile(tmp_path / "turned.csv", bundle=Bundle.open(tmp_path / "bundle"))
    assert taken["dep"].source == "input_0"
    with pytest.raises(BadRequest, match=r"'input': missing columns: dist; the data has 2: dep, "):
        model.predict(MIXED[["dep", "carrier"]])


def test_names_with_spaces_which_lightgbm_does_not_keep(tmp_path: Path) -> None:
    spaced = TABLE.rename(columns={"dep": "dep time"})
    model = lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(spaced, DELAY)
    spaced[["dist", "dep time"]].to_parquet(tmp_path / "rows.parquet")
    run(save(model, tmp_path / "model.joblib"), tmp_path / "bundle", tmp_path / "rows.parquet")
    converted = Model.load(tmp_path / "bundle")
    assert converted.signature.inputs[0].column_names == ("dep time", "dist")
    predictions = converted.predict(spaced[["dist", "dep time"]])["variable"]
    assert predictions.ravel() == pytest.approx(model.predict(spaced), rel=1e-5)


@pytest.mark.parametrize("others", [("dep time", "dep_time"), ("dep time x", "dep_time x")])
def test_names_that_lightgbm_can_not_tell_apart_are_refused(tmp_path: Path, others: tuple[str, str]) -> None:
    fitted = TABLE.rename(columns={"dep": others[0]})
    model = lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(fitted, DELAY)
    fitted.assign(**{others[1]: 0.0}).to_parquet(tmp_path / "rows.parquet")
    saved = save(model, tmp_path / "model.joblib")
    with pytest.raises(BadRequest, match=f": expected one, got '{others[0]}', '{others[1]}', which"):
        run(saved, tmp_path / "bundle", tmp_path / "rows.parquet")


def test_names_that_others_tell_apart_are_taken(tmp_path: Path) -> None:
    both = TABLE.rename(columns={"dep": "dep time", "dist": "dep_time"})
    model = LinearRegression().fit(both, DELAY)
    both.to_parquet(tmp_path / "rows.parquet")
    run(save(model, tmp_path / "model.joblib"), tmp_path / "bundle", tmp_path / "rows.parquet")
    known = Model.load(tmp_path / "bundle").signature.inputs[0].column_names
    assert known == ("dep time", "dep_time")


def test_a_matrix_of_a_model_without_names_takes_a_table_in_order(tmp_path: Path, table: Path) -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(TABLE.to_numpy(), LATE)
    np.save(tmp_path / "rows.npy", OTHERS.to_numpy(np.float32))
    run(save(forest, tmp_path / "model.joblib"), tmp_path / "bundle", tmp_path / "rows.npy")
    model = Model.load(tmp_path / "bundle")
    assert model.signature.inputs[0].column_names == ()
    predictions = model.predict(OTHERS.rename(columns={"dep": "x", "dist": "dep"}))["label"]
    assert (predictions == model.predict(OTHERS.to_numpy(np.float32))["label"]).all()


def test_a_pipeline_that_picks_columns_takes_them_by_name(tmp_path: Path, table: Path) -> None:
    selector = ColumnTransformer(
        [("n", StandardScaler(), ["dep", "dist"]), ("t", OneHotEncoder(), ["carrier"])]
    )
    pipeline = make_pipeline(selector, LogisticRegression()).fit(MIXED, LATE)
    report = run(save(pipeline, tmp_path / "model.pkl"), tmp_path / "bundle", table)
    assert (report.kind, report.rows) == ("scikit-learn", ROWS)
    model = Model.load(tmp_path / "bundle")
    assert [(spec.name, spec.datatype.name) for spec in model.signature.inputs] == [
        ("dep", "FP32"), ("dist", "FP32"), ("carrier", "BYTES"),
    ]  # fmt: skip
    assert [spec.name for spec in model.signature.outputs] == ["label", "probabilities"]
    predictions = model.predict({"dep": [[1.0]], "dist": [[100.0]], "carrier": [["UA"]]})
    row = pd.DataFrame({"dep": [1.0], "dist": [100.0], "carrier": ["UA"]})
    assert predictions["probabilities"] == pytest.approx(pipeline.predict_proba(row), abs=1e-5)


def test_a_pipeline_that_picks_columns_keeps_their_names(tmp_path: Path) -> None:
    names = {"dep": "dep_time", "dist": "dep time", "carrier": "2nd carrier (%)"}
    odd = MIXED.rename(columns=names)
    numbers = ["dep_time", "dep time"]
    selector = ColumnTransformer(
        [("n", StandardScaler(), numbers), ("t", OneHotEncoder(), ["2nd carrier (%)"])]
    )
    pipeline = make_pipeline(selector, LogisticRegression()).fit(odd, LATE)
    odd.to_csv(tmp_path / "rows.csv", index=False)
    run(save(pipeline, tmp_path / "model.pkl"), tmp_path / "bundle", tmp_path / "rows.csv")
    model = Model.load(tmp_path / "bundle")
    assert [spec.name for spec in model.signature.inputs] == list(odd)
    body = odd[list(odd)[::-1]].to_csv(index=False).encode()
    for inputs in (odd, CsvCodec(model.signature).decode(body).inputs):
        predictions = model.predict(inputs)["probabilities"]
        assert predictions == pytest.approx(pipeline.predict_proba(odd), abs=1e-5)


@pytest.mark.parametrize("picked", [["dep"], [0], slice(1)])
def test_columns_that_a_pipeline_drops_are_not_asked_for(picked: Any, tmp_path: Path) -> None:
    selector = ColumnTransformer([("n", StandardScaler(), picked), ("t", OneHotEncoder(), ["carrier"])])
    pipeline = make_pipeline(selector, LogisticRegression()).fit(MIXED, LATE)
    (MIXED if picked != ["dep"] else MIXED[["carrier", "dep"]]).to_parquet(tmp_path / "rows.parquet")
    run(save(pipeline, tmp_path / "model.pkl"), tmp_path / "bundle", tmp_path / "rows.parquet")
    model = Model.load(tmp_path / "bundle")
    # By position, the converter counts all columns.
    expected = ["dep", "carrier"] if picked == ["dep"] else ["dep", "dist", "carrier"]
    assert [spec.name for spec in model.signature.inputs] == expected
    predictions = model.predict(MIXED)["probabilities"]
    assert predictions == pytest.approx(pipeline.predict_proba(MIXED), abs=1e-5)


def test_the_only_column_that_a_pipeline_does_not_drop(tmp_path: Path, table: Path) -> None:
    selector = ColumnTransformer([("n", StandardScaler(), ["dist"])])
    pipeline = make_pipeline(selector, LogisticRegression()).fit(MIXED, LATE)
    run(save(pipeline, tmp_path / "model.pkl"), tmp_path / "bundle", table)
    model = Model.load(tmp_path / "bundle")
    assert [spec.name for spec in model.signature.inputs] == ["dist"]
    body = MIXED.to_csv(index=False).encode()
    for inputs in (MIXED, CsvCodec(model.signature).decode(body).inputs):
        predictions = model.predict(inputs)["probabilities"]
        assert predictions == pytest.approx(pipeline.predict_proba(MIXED), abs=1e-5)


@pytest.mark.parametrize("fill", [False, True])
def test_text_in_csv_is_what_the_encoder_has_learnt(fill: bool, tmp_path: Path) -> None:
    codes = TABLE.assign(zip=draw.choice(["02139", "10001"], ROWS), flag=draw.choice(["True", "False"], ROWS))
    encoder = OneHotEncoder()
    if fill:
        encoder = make_pipeline(SimpleImputer(missing_values="", strategy="most_frequent"), encoder)
    selector = ColumnTransformer([("n", StandardScaler(), ["dep", "dist"]), ("t", encoder, ["zip", "flag"])])
    pipeline = make_pipeline(selector, LogisticRegression()).fit(codes, LATE)
    codes.to_csv(tmp_path / "rows.csv", index=False)
    run(save(pipeline, tmp_path / "model.pkl"), tmp_path / "bundle", tmp_path / "rows.csv")
    score(Bundle.open(tmp_path / "bundle"), tmp_path / "rows.csv", tmp_path / "scored.parquet")
    scored = pd.read_parquet(tmp_path / "scored.parquet")
    assert scored["probabilities_1"].to_numpy() == pytest.approx(
        pipeline.predict_proba(codes)[:, 1], abs=1e-5
    )


@pytest.mark.parametrize("ending", [".json", ".ubj"])
@pytest.mark.parametrize("target", [LATE, KINDS == "late", DELAY, np.unique(KINDS, return_inverse=True)[1]])
def test_xgboosts_files_are_converted(ending: str, target: Any, tmp_path: Path, table: Path) -> None:
    discrete = np.asarray(target).dtype.kind in "ib"
    model = (xgboost.XGBClassifier if discrete else xgboost.XGBRegressor)(n_estimators=5).fit(TABLE, target)
    model.save_model(tmp_path / f"model{ending}")
    report = run(tmp_path / f"model{ending}", tmp_path / "bundle", table, trust=False)
    assert report.kind == "XGBoost"
    predictions = Model.load(tmp_path / "bundle").predict(TABLE.to_numpy(np.float32))
    if discrete:
        assert predictions["probabilities"] == pytest.approx(model.predict_proba(TABLE), abs=1e-5)
    else:
        assert predictions["variable"].ravel() == pytest.approx(model.predict(TABLE), rel=1e-5)


@pytest.mark.parametrize("target", [LATE, np.unique(KINDS, return_inverse=True)[1], DELAY])
def test_lightgbms_files_are_converted(target: Any, tmp_path: Path, table: Path) -> None:
    discrete = np.asarray(target).dtype.kind == "i"
    maker = lightgbm.LGBMClassifier if discrete else lightgbm.LGBMRegressor
    model = maker(n_estimators=5, verbose=-1).fit(TABLE, target)
    model.booster_.save_model(tmp_path / "model.txt")
    assert run(tmp_path / "model.txt", tmp_path / "bundle", table, trust=False).kind == "LightGBM"
    predictions = Model.load(tmp_path / "bundle").predict(TABLE.to_numpy(np.float32))
    expected = model.predict_proba(TABLE) if discrete else model.predict(TABLE).reshape(-1, 1)
    assert predictions["probabilities" if discrete else "variable"] == pytest.approx(
        expected, rel=1e-5, abs=1e-5
    )


def test_where_classes_tie_either_is_the_label(tmp_path: Path) -> None:
    """Ten trees of twenty say one class, ten the other: sums of floats and of doubles part there."""
    random = np.random.default_rng(0)
    seen, other = random.normal(size=(2, 2000, 2)).astype(np.float32)
    np.save(tmp_path / "rows.npy", other)
    forest = RandomForestClassifier(20, random_state=0).fit(seen, random.integers(0, 2, 2000))
    bundle = tmp_path / "bundle"
    report = run(save(forest, tmp_path / "forest.joblib"), bundle, tmp_path / "rows.npy")
    assert report.difference.value < 1e-6
    labels = Model.load(bundle).predict(other)["label"]
    differ = labels != forest.predict(other)
    scores = forest.predict_proba(other)[differ]
    assert 0 < differ.sum() == report.difference.ties < 300
    assert np.allclose(scores, 0.5)


def test_what_predicts_otherwise_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    # A double that no float holds: trees that split there say something else of it.
    edge = np.array([[16_777_217.0], [16_777_216.0]])
    model = lightgbm.LGBMRegressor(n_estimators=1, verbose=-1, min_data_in_leaf=1, min_data_in_bin=1)
    model.fit(np.repeat(edge, 50, axis=0), np.repeat([100.0, 0.0], 50))
    np.save(tmp_path / "rows.npy", edge)
    before = sorted(tmp_path.iterdir())
    source = save(model, tmp_path / "model.pkl")
    message = (
        r"model\.pkl: the ONNX model predicts differently: .* in output 'variable', row 0: expected .*, got"
    )
    with pytest.raises(BadRequest, match=message):
        run(source, tmp_path / "bundle", tmp_path / "rows.npy")
    assert sorted(tmp_path.iterdir()) == sorted([*before, source])
    assert run(source, tmp_path / "bundle", tmp_path / "rows.npy", tolerance=1e9).difference.value > 0.1


def test_a_pickle_is_not_loaded_without_trust(tmp_path: Path, table: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(BadRequest, match=r"a pickle, which runs whatever code is in it .*--trust"):
        run(tmp_path / "model.pkl", tmp_path / "bundle", table, trust=False)
    assert not (tmp_path / "ran").exists()


def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.pt2").touch()
    (tmp_path / "model.keras").touch()
    for module in ("torch", "tensorflow", "xgboost"):
        monkeypatch.setitem(sys.modules, module, None)
    for ending, library, extra in ((".pt2", "PyTorch", "torch"), (".keras", "Keras", "keras")):
        message = rf"^{library} models are converted with .* pip install 'driftline\[{extra}\]'$"
        with pytest.raises(BadRequest, match=message):
            run(tmp_path / f"model{ending}", tmp_path / "bundle", table)


def write(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("model.exe", Path.touch, "expected an MLflow model's folder, or a file that ends in .pkl"),
        ("model.json", write("{}"), "can't be loaded: XGBoostError: Invalid cast, from Null to Object$"),
        ("model.json", write('{"a": '), r"can't be loaded: XGBoostError: Expecting: [^~/]*position: 6$"),
        ("model.txt", write("hello"), "can't be loaded: LightGBMError: "),
        ("model.pkl", write("hello"), "can't be loaded: "),
        ("nothing.pkl", lambda path: None, "expected a model, there is nothing"),
        ("folder", Path.mkdir, "expected an MLflow model's folder, there is no MLmodel in it"),
        ("list.pkl", lambda path: path.write_bytes(pickle.dumps([1])), "expected a model of scikit-learn, "),
    ],
)
def test_what_is_no_model_is_refused(
    tmp_path: Path, table: Path, name: str, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(BadRequest, match=f"{name}: {message}"):
        run(tmp_path / name, tmp_path / "bundle", table)
    assert not (tmp_path / "bundle").exists()


def test_rows_to_compare_on_are_needed(tmp_path: Path, table: Path) -> None:
    source = save(ESTIMATORS["linear"](), tmp_path / "model.pkl")
    with pytest.raises(BadRequest, match=r"it has no input example; expected .* --data FILE"):
        run(source, tmp_path / "bundle")
    TABLE[["dep"]].to_parquet(tmp_path / "few.parquet")
    with pytest.raises(BadRequest, match=r"few\.parquet: column 'dist': the model takes it, there is none"):
        run(source, tmp_path / "bundle", tmp_path / "few.parquet")
    TABLE[:0].to_parquet(tmp_path / "none.parquet")
    with pytest.raises(BadRequest, match=r"none\.parquet: expected rows, got none"):
        run(source, tmp_path / "bundle", tmp_path / "none.parquet")
    (tmp_path / "bundle").mkdir()
    with pytest.raises(BadRequest, match="bundle: expected a folder that does not exist yet"):
        run(source, tmp_path / "bundle", table)


class Unknown(LogisticRegression):
    """A model that no converter knows."""


@pytest.mark.parametrize("strategy", ["constant", "most_frequent"])
def test_a_pipeline_whose_first_step_cannot_be_converted_is_one_beside_a_transform(
    strategy: str, tmp_path: Path, table: Path
) -> None:
    imputed = make_pipeline(SimpleImputer(strategy=strategy), OneHotEncoder(handle_unknown="ignore"))
    selector = ColumnTransformer([("n", StandardScaler(), ["dep"]), ("t", imputed, ["carrier"])])
    pipeline = make_pipeline(selector, LogisticRegression()).fit(MIXED, LATE)
    message = r"in one: NotImplementedError: .*: dl\.Transform\.from_sklearn\(pipeline\[0\]\)\.save"
    with pytest.raises(BadRequest, match=message):
        run(save(pipeline, tmp_path / "model.pkl"), tmp_path / "bundle", table)
    kept = make_pipeline(selector, Unknown()).fit(MIXED, LATE)
    with pytest.raises(BadRequest, match=r"can't be converted to ONNX: [^:]*: .*`driftline serve --trust`"):
        run(save(kept, tmp_path / "unknown.pkl"), tmp_path / "bundle", table)
    # What the message says works:
    np.save(tmp_path / "rows.npy", pipeline[0].transform(MIXED))
    run(save(pipeline[1:], tmp_path / "rest.pkl"), tmp_path / "bundle", tmp_path / "rows.npy")
    Transform.from_sklearn(pipeline[0]).save(tmp_path / "bundle/transform.json")
    predictions = Model.load(tmp_path / "bundle").predict(MIXED)["probabilities"]
    assert predictions == pytest.approx(pipeline.predict_proba(MIXED), abs=1e-5)


def test_a_full_disk_is_said_plainly(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = save(ESTIMATORS["linear"](), tmp_path / "model.pkl")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device$"):
        run(source, tmp_path / "bundle", table)
    assert not list(tmp_path.glob("*bundle*"))


@pytest.mark.parametrize("ending", [".pkl", ".json"])
def test_categories_of_xgboost_are_refused_by_name(ending: str, tmp_path: Path, table: Path) -> None:
    rows = MIXED.astype({"carrier": "category"})
    model = xgboost.XGBClassifier(n_estimators=3, enable_categorical=True).fit(rows, LATE)
    path = tmp_path / f"model{ending}"
    if ending == ".json":
        model.save_model(path)
    else:
        save(model, path)
    message = rf"model{ending}: can't be converted to ONNX: categorical columns \('carrier'\) of XGBoost"
    with pytest.raises(BadRequest, match=message):
        run(path, tmp_path / "bundle", table)


def test_what_its_library_cannot_convert_says_how_it_can_be_served(tmp_path: Path, table: Path) -> None:
    ranker = xgboost.XGBRanker(n_estimators=2).fit(TABLE, LATE, group=[ROWS])
    ranker.save_model(tmp_path / "model.ubj")
    with pytest.raises(BadRequest, match=r"can't be converted to ONNX: .*`driftline serve --trust`"):
        run(tmp_path / "model.ubj", tmp_path / "bundle", table)


@pytest.mark.parametrize("flavor", ["sklearn", "xgboost"])
def test_an_mlflow_model_brings_its_example_and_its_signature(flavor: str, tmp_path: Path) -> None:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    if flavor == "sklearn":
        save(LogisticRegression().fit(TABLE, LATE), folder / "model.pkl")
        about: dict[str, Any] = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
    else:
        xgboost.XGBClassifier(n_estimators=3).fit(TABLE, LATE).save_model(folder / "model.ubj")
        about = {"data": "model.ubj", "model_class": "xgboost.sklearn.XGBClassifier"}
    columns = json.dumps([{"type": "double", "name": name} for name in TABLE])
    (folder / "MLmodel").write_text(
        json.dumps(
            {
                "flavors": {flavor: about, "python_function": {"loader_module": f"mlflow.{flavor}"}},
                "run_id": "r1",
                "signature": {"inputs": columns, "outputs": json.dumps([{"type": "long"}])},
                "saved_input_example_info": {"artifact_path": "input_example.json", "type": "dataframe"},
            }
        )
    )
    (folder / "input_example.json").write_text(TABLE[:7].to_json(orient="split", index=False))
    assert run(folder, tmp_path / "bundle", trust=flavor == "sklearn").rows == 7
    written = (tmp_path / "bundle/MLmodel").read_text()
    assert "mlflow.onnx" in written
    assert "run_id: r1" in written
    assert '"dep"' in written
