"""Driftline as it is measured: a registry with a monitored version, without the monitor, with a transform."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench import models
from bench.common import Matrix
from bench.servers.forms import MODEL
from bench.servers.place import Place
from bench.servers.works import TREES, Subject
from driftline.engine.model import Model
from driftline.features.spec import Impute, Standardise
from driftline.features.transform import Transform
from driftline.monitor.reference.profile import Profile

COMMAND = (
    *("{bin}/driftline", "serve", MODEL, "--registry", "{folder}/models"),
    *("--host", "{host}", "--port", "{port}", "--log-level", "warning"),
)
REFERENCE_ROWS = 50_000
ONE_THREAD = "[engine]\nthreads = 1\n"
UNWATCHED = "[monitor]\nenabled = false\n"


def watched(place: Place) -> None:
    """A version with a profile; the wide model has none: its monitor counts, and compares with nothing."""
    folder = version(place)
    if place.subject.name == TREES:
        matrix = reference()
        Profile.fit({"input": matrix, **Model.load(folder).predict(matrix)}).save(folder / "profile.arrow")


def unwatched(place: Place) -> None:
    """A version that is not monitored."""
    settings = version(place) / "driftline.toml"
    settings.write_text(ONE_THREAD + UNWATCHED, encoding="utf-8")


def transformed(place: Place) -> None:
    """A version with a transform of 30 raw columns in front, and their profile."""
    folder, columns = version(place), named(reference())
    transform().save(folder / "transform.json")
    Profile.fit({**columns, **Model.load(folder).predict(columns)}).save(folder / "profile.arrow")


def version(place: Place) -> Path:
    """A registry's first version: the model, for one thread."""
    folder = place.folder / "models" / MODEL / "1"
    folder.mkdir(parents=True)
    shutil.copy(place.subject.path, folder / "model.onnx")
    (folder / "driftline.toml").write_text(ONE_THREAD, encoding="utf-8")
    return folder


def reference() -> Matrix:
    """What the model has learnt from, as far as the monitor knows."""
    return models.rows(REFERENCE_ROWS, models.FEATURES, seed=3)


def named(matrix: Matrix) -> dict[str, Matrix]:
    """The columns of a matrix as raw columns x0, x1, ..."""
    return {f"x{place}": column.copy() for place, column in enumerate(matrix.T)}


def transform() -> Transform:
    """What a column of numbers gets: its median where it is missing, a mean of 0, a deviation of 1."""
    columns = named(reference())
    return Transform([Impute([*columns], "median"), Standardise([*columns])]).fit(columns)


def predict_transformed(subject: Subject, matrix: Matrix) -> Matrix:
    """The right answer to raw columns."""
    return subject.predict(transform().apply(named(matrix)))
