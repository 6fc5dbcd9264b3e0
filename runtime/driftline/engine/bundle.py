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
CONVERTIBLE = frozenset(
    (".pkl", ".pickle", ".joblib", ".skops", ".json", ".ubj", ".txt", ".pt2", ".pt", ".pth", ".keras")
)
"""Suffixes of other libraries' models, which `driftline convert` takes."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of a version.

    model      the .onnx file; for a model that is Python code, MLflow's MLmodel
    settings   of the version's driftline.toml
    profile    the reference for its monitor, if there is one
    transform  makes the model's input from raw columns, if there is one
    mlmodel    MLflow's description, if the model is MLflow's
    """

    model: Path
    settings: ModelSettings
    profile: Path | None = None
    transform: Path | None = None
    mlmodel: MlModel | None = None

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read a version's folder in the layout of driftline, Triton or MLflow, or a lone .onnx file.

        Raises ModelError if there is no model in it, ConfigError if its driftline.toml is wrong.
        """
        if path.is_file():
            if path.suffix.lower() in CONVERTIBLE:
                raise ModelError(
                    f"{path}: expected an .onnx file, got one that ends in {path.suffix}; "
                    "`driftline convert` makes one of other libraries' models"
                )
            return cls(path, ModelSettings())
        if not path.is_dir():
            raise ModelError(f"{path}: expected a version's folder or an .onnx file, there is nothing")
        mlmodel = MlModel.read(path / MLMODEL) if _is_file(path / MLMODEL) else None
        model = only_model(path) if mlmodel is None else path / mlflow_model(mlmodel, path)
        if model.is_dir():  # Triton's layout of a model with external data
            model = model / MODEL
        if not model.is_file():
            names = sorted(each.name for each in path.iterdir())
            listing = f"; there are: {', '.join(names[:8])}{', ...' * (len(names) > 8)}" if names else ""
            raise ModelError(f"{path}: expected a file {model.relative_to(path)}, there is none{listing}")
        profile, transform = (
            file if _is_file(file := path / name) else None for name in (PROFILE, TRANSFORM)
        )
        return cls(model, bundle_settings(path / SETTINGS), profile, transform, mlmodel)


def _is_file(path: Path) -> bool:
    """Return whether the file exists; ModelError for a folder or a broken link of that name.

    Ignoring those would serve the model without its transform or its monitor. A container engine creates
    a folder if a file to mount is missing.
    """
    if path.is_file():
        return True
    if os.path.lexists(path):
        kind = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "something else"
        raise ModelError(f"{path}: expected a file, got {kind}")
    return False


def only_model(folder: Path) -> Path:
    """Return the model's file in a folder without an MLmodel: model.onnx, or the only .onnx file."""
    models = [] if (folder / MODEL).exists() else sorted(folder.glob("*.onnx"))
    return models[0] if len(models) == 1 else folder / MODEL


def mlflow_model(mlmodel: MlModel, folder: Path) -> str:
    """Return the name of the model's file in an MLflow model's folder: MLmodel if the model is Python code.

    Raises ModelError if it is neither ONNX nor Python code.
    """
    flavor = mlmodel.flavors.get("onnx")
    if flavor is None and (folder / MODEL).exists():  # driftline's own, with MLflow's description
        return MODEL
    if flavor is None and "python_function" in mlmodel.flavors:
        return MLMODEL
    if flavor is None:
        flavors = ", ".join(mlmodel.flavors) or "none"
        raise ModelError(f"{folder}: expected a model of MLflow's onnx flavor, its flavors are: {flavors}")
    name = flavor.get("data", MODEL)
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ModelError(f"{folder}: flavors.onnx.data: expected a file in this folder, got {name!r}")
    return name
