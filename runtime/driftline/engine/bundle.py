"""A version's files on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from driftline.config import ModelSettings, bundle_settings
from driftline.errors import ModelError
from driftline.mlmodel import MLMODEL, MlModel
from driftline.registry.files import PROFILE, SETTINGS, TRANSFORM

MODEL = "model.onnx"
OTHERS = frozenset(
    (".pkl", ".pickle", ".joblib", ".skops", ".json", ".ubj", ".txt", ".pt2", ".pt", ".pth", ".keras")
)
"""How files of other libraries' models end."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a version consists of.

    model      its file; of an MLflow model that is Python code, the MLmodel
    settings   of it
    profile    that it is watched by, if any
    transform  of raw columns to what the model takes, if any
    mlmodel    what MLflow says of it, if it comes from there
    """

    model: Path
    settings: ModelSettings
    profile: Path | None = None
    transform: Path | None = None
    mlmodel: MlModel | None = None

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read a version's folder, of driftline's, Triton's or MLflow's form, or a lone .onnx file.

        Raises ModelError if there is no model in it, ConfigError if its driftline.toml is wrong.
        """
        if path.is_file():
            if path.suffix.lower() in OTHERS:
                raise ModelError(
                    f"{path}: expected an .onnx file, came one that ends in {path.suffix}; "
                    "`driftline convert` makes one of other libraries' models"
                )
            return cls(path, ModelSettings())
        if not path.is_dir():
            raise ModelError(f"{path}: expected a version's folder or an .onnx file, there is nothing")
        mlmodel = MlModel.read(path / MLMODEL) if _is_file(path / MLMODEL) else None
        model = lone(path) if mlmodel is None else path / data_of(mlmodel, path)
        if model.is_dir():  # Triton's form of a model with external data
            model = model / MODEL
        if not model.is_file():
            came = sorted(each.name for each in path.iterdir())
            beside = f"; there are: {', '.join(came[:8])}{', ...' * (len(came) > 8)}" if came else ""
            raise ModelError(f"{path}: expected a file {model.relative_to(path)}, there is none{beside}")
        profile, transform = (
            file if _is_file(file := path / name) else None for name in (PROFILE, TRANSFORM)
        )
        return cls(model, bundle_settings(path / SETTINGS), profile, transform, mlmodel)


def _is_file(path: Path) -> bool:
    """Whether there is such a file; ModelError for what only has its name.

    Without it a model would be served, but otherwise or unwatched. Of a file that is not there, a container's
    volume makes a folder.
    """
    if path.is_file():
        return True
    if os.path.lexists(path):
        what = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "something else"
        raise ModelError(f"{path}: expected a file, came {what}")
    return False


def lone(folder: Path) -> Path:
    """The model's file in a folder that says nothing else of it: model.onnx, or the only one that ends so."""
    models = [] if (folder / MODEL).exists() else sorted(folder.glob("*.onnx"))
    return models[0] if len(models) == 1 else folder / MODEL


def data_of(mlmodel: MlModel, folder: Path) -> str:
    """The model's file in an MLflow model's folder, MLmodel itself if it is Python code; ModelError if it is
    neither."""
    flavor = mlmodel.flavors.get("onnx")
    if flavor is None and (folder / MODEL).exists():  # driftline's own, with what MLflow says of it
        return MODEL
    if flavor is None and "python_function" in mlmodel.flavors:
        return MLMODEL
    if flavor is None:
        known = ", ".join(mlmodel.flavors) or "none"
        raise ModelError(f"{folder}: expected a model of MLflow's onnx flavor, its flavors are: {known}")
    data = flavor.get("data", MODEL)
    if not isinstance(data, str) or Path(data).is_absolute() or ".." in Path(data).parts:
        raise ModelError(f"{folder}: flavors.onnx.data: expected a file in this folder, came {data!r}")
    return data
