"""From flights to a version that predicts the probability of a delay: raw columns in, probabilities out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftline.demo.flights import CATEGORIES, FEATURES, WEATHER
from driftline.engine.bundle import MODEL
from driftline.engine.model import Model
from driftline.features.spec import Cyclic, Impute, OneHot, Pass
from driftline.registry.files import PROFILE, SETTINGS, TRANSFORM

STEPS = (
    # Airlines and airports with less than a fiftieth of the flights share a category, with all new ones.
    OneHot(CATEGORIES, min_frequency=0.02, unknown="infrequent"),
    Cyclic("month", period=12),
    Cyclic("hour", period=24),
    Pass(("weekday", "distance")),
    Impute(WEATHER, "median"),
)
"""From FEATURES to the input of a version's model; each version fits them anew."""

TOLERANCE = 1e-5
"""The most that a probability may differ from XGBoost's own."""

_SAMPLE_ROWS = 4096
_MONITOR = """\
[monitor]
look_rows = 100
look_seconds = 0
window_rows = {}
window_seconds = 0
"""
"""By rows, not by time: a replay covers months in seconds."""


def bundle(flights: pd.DataFrame, window_rows: int, folder: Path, sample: Path) -> None:
    """Write a version to `folder`: a transform, a model, the profile of its training data, its settings.

    flights      to train on, as returned by `load`
    window_rows  how many rows its monitor compares with the profile at a time
    folder       to make
    sample       an Arrow file to write: some of the flights with the probabilities that XGBoost gave them

    The profile is of the raw rows that the model was trained on, and of its outputs for them: so what differs
    from it later is new to the model.
    """
    # This is compiled code and slow to import, so only the process that trains imports it.
    from driftline.features.transform import Transform
    from driftline.monitor.reference.profile import Profile

    folder.mkdir()
    columns = flights[[*FEATURES]]
    transform = Transform(STEPS).fit(columns)
    transform.save(folder / TRANSFORM)
    matrix = transform.apply(columns)
    classifier = train(matrix, flights["late"].to_numpy(), folder / MODEL)
    outputs = Model.load(folder).predict(columns)
    Profile.fit({**columns, **outputs}).save(folder / PROFILE)
    (folder / SETTINGS).write_text(_MONITOR.format(window_rows), encoding="utf-8")
    sampled = np.random.default_rng(0).permutation(len(flights))[:_SAMPLE_ROWS]
    in_time, late = classifier.predict_proba(matrix[sampled]).T
    expected = columns.iloc[sampled].assign(probabilities_0=in_time, probabilities_1=late)
    expected.reset_index(drop=True).to_feather(sample)


def train(matrix: npt.NDArray[np.float32], late: npt.NDArray[np.bool_], path: Path) -> Any:
    """Train on `matrix` (rows, width) and `late` (rows,), and write the model to `path`.

    The model takes `input` FP32 (rows, width) and gives `label` INT64 (rows,) and `probabilities` FP32
    (rows, 2), of being in time and of being late. One thread trains, so that the machine can serve
    meanwhile; the same data gives the same trees. Returns XGBoost's classifier.
    """
    # These libraries take seconds to import, too.
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType
    from xgboost import XGBClassifier

    # Some fifty flights share one hour's weather. Half of the rows and columns for a tree, and leaves of
    # at least that many flights, keep it from memorising single hours.
    classifier = XGBClassifier(
        n_estimators=60,
        max_depth=6,
        learning_rate=0.1,
        subsample=0.5,
        colsample_bytree=0.5,
        min_child_weight=50,
        n_jobs=1,
        random_state=0,
    ).fit(matrix, late)
    width = matrix.shape[1]
    model = convert_xgboost(classifier, "flights", initial_types=[("input", FloatTensorType([None, width]))])
    path.write_bytes(model.SerializeToString())
    return classifier
