"""From flights to an ONNX model that says how likely each is to be late."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from driftline.demo.flights import CATEGORIES, FEATURES
from driftline.engine.bundle import MODEL, PROFILE, SETTINGS
from driftline.engine.model import Model
from driftline.errors import ModelError

_CHECKED_ROWS = 4096
_TOLERANCE = 1e-5
_KINDS = {f"input_{place}": "categorical" for place, name in enumerate(FEATURES) if name in CATEGORIES}
_MONITOR = """\
[monitor]
look_rows = 100
look_seconds = 0
window_rows = {}
window_seconds = 0
"""
"""By rows, not by time: a replay runs through months in seconds."""


def bundle(
    matrix: npt.NDArray[np.float32], late: npt.NDArray[np.bool_], window_rows: int, folder: Path
) -> None:
    """Write all of a version to `folder`: a model, the profile of its training, and its settings.

    matrix, late  as `train` has them
    window_rows   how many rows its monitor holds against the profile at a time

    The profile is of the rows that the model learnt from and of what it says of them, so what differs from
    it later is new to the model. Raises ModelError as `train` does.
    """
    from driftline.monitor.profile import Profile

    train(matrix, late, folder / MODEL)
    outputs = Model.load(folder / MODEL).predict(matrix)
    Profile.fit({"input": matrix, **outputs}, _KINDS).save(folder / PROFILE)
    (folder / SETTINGS).write_text(_MONITOR.format(window_rows), encoding="utf-8")


def train(matrix: npt.NDArray[np.float32], late: npt.NDArray[np.bool_], path: Path) -> None:
    """Train on `matrix` (rows, width) and `late` (rows,), and write the model to `path`.

    The model takes `input` FP32 (rows, width) and gives `label` INT64 (rows,) and `probabilities` FP32
    (rows, 2), of being in time and of being late. One thread trains, so that the machine can serve
    meanwhile; the same data gives the same trees.

    Raises ModelError if the ONNX model does not predict what XGBoost does.
    """
    # These libraries take seconds to import, so only the process that trains pays for them.
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType
    from xgboost import XGBClassifier

    # Some fifty flights share one hour's weather. Half of the rows and columns for a tree, and leaves of
    # at least that many flights, keep it from learning single hours by heart.
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
    sample = matrix[np.random.default_rng(0).permutation(len(matrix))[:_CHECKED_ROWS]]
    _check(path, sample, classifier.predict_proba(sample))


def _check(path: Path, sample: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    probabilities = Model.load(path).predict(sample, ["probabilities"])["probabilities"]
    difference = float(np.abs(probabilities - expected).max())
    if not difference <= _TOLERANCE:
        raise ModelError(f"{path}: expected XGBoost's probabilities, came others by up to {difference:.2g}")
