"""Where a model to convert is: an MLflow model's folder, or a file whose suffix tells its library."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftline.errors import BadRequest
from driftline.mlmodel import MLMODEL, MlModel

LIBRARIES = {
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".joblib": "pickle",
    ".skops": "sklearn",
    ".json": "xgboost",
    ".ubj": "xgboost",
    ".txt": "lightgbm",
    ".pt2": "torch",
    ".pt": "torch",
    ".pth": "torch",
    ".keras": "keras",
}
"""The library of each suffix."""

PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")

FLAVORS = {
    "sklearn": ("sklearn", "pickled_model"),
    "xgboost": ("xgboost", "data"),
    "lightgbm": ("lightgbm", "data"),
    "pytorch": ("torch", "model_data"),
    "tensorflow": ("keras", "data"),
    "keras": ("keras", "data"),
    "spark": ("spark", "model_data"),
}
"""MLflow's flavors: the library, and the key of the model's path in the folder."""

_FILE_NAMES = ("model.pt2", "model.pth", "model.keras")
"""MLflow's names for the single file in a flavor's folder."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model to convert.

    kind     its library; 'pickle' if only loading it tells
    path     the file, or, for Spark, the folder
    pickled  whether loading it runs code that is in it
    mlflow   MLflow's description
    folder   of the MLflow model
    """

    kind: str
    path: Path
    pickled: bool
    mlflow: MlModel | None = None
    folder: Path | None = None

    @classmethod
    def open(cls, path: Path) -> Source:
        """Find the model at a path.

        Raises BadRequest if it can't be converted, ModelError if it is MLflow's and its MLmodel is invalid.
        """
        if path.is_dir():
            return cls._of_mlflow(path)
        if not path.is_file():
            raise BadRequest(f"{path}: expected a model, there is nothing")
        kind = LIBRARIES.get(path.suffix.lower())
        if kind is None:
            raise BadRequest(
                f"{path}: expected an MLflow model's folder, or a file that ends in {', '.join(LIBRARIES)}"
            )
        return cls(kind, path, _is_pickle(path))

    @classmethod
    def _of_mlflow(cls, folder: Path) -> Source:
        if not (folder / MLMODEL).is_file():
            raise BadRequest(f"{folder}: expected an MLflow model's folder, there is no {MLMODEL} in it")
        model = MlModel.read(folder / MLMODEL)
        flavors = {name: flavor for name, flavor in model.flavors.items() if name in FLAVORS}
        if not flavors:
            raise BadRequest(
                f"{folder}: expected a flavor of {', '.join(FLAVORS)}, got {', '.join(model.flavors)}; "
                "it is served as it is by `driftline serve --trust`"
            )
        name, flavor = next(iter(flavors.items()))
        kind, key = FLAVORS[name]
        path = folder / str(flavor.get(key))
        if not path.resolve().is_relative_to(folder.resolve()) or not path.exists():
            raise BadRequest(f"{folder / MLMODEL}: {name}.{key}: expected a path in the folder, got {path}")
        if path.is_dir() and kind != "spark":
            folders = (path / "data", path) if (path / "data").is_dir() else (path,)
            paths = [parent / file_name for parent in folders for file_name in _FILE_NAMES]
            files = [file for file in paths if file.is_file()]
            if not files:
                raise BadRequest(f"{path}: expected one of {', '.join(_FILE_NAMES)}, there is none")
            path = files[0]
        return cls(kind, path, _is_pickle(path), model, folder)


def _is_pickle(path: Path) -> bool:
    """Return whether a file is a pickle, by its name, or, for PyTorch, by its content: TorchScript is not."""
    suffix = path.suffix.lower()
    if suffix not in (".pt", ".pth"):
        return suffix in PICKLE_SUFFIXES
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return not any(name.endswith("/constants.pkl") for name in archive.namelist())


def describe(source: Source, bundle: Path) -> None:
    """Write the bundle's own MLmodel, if its source has one: the same inputs, in the flavor of ONNX.

    So clients can send the same requests as before, and `mlflow.onnx.load_model` loads it.
    """
    if source.folder is None:
        return
    import onnx
    import yaml

    document: dict[str, Any] = yaml.safe_load((source.folder / MLMODEL).read_text(encoding="utf-8"))
    data = "model.onnx"
    document["flavors"] = {
        "onnx": {
            "code": None,
            "data": data,
            "onnx_version": onnx.__version__,
            "providers": ["CPUExecutionProvider"],
        },
        "python_function": {"loader_module": "mlflow.onnx", "data": data},
    }
    document.pop("saved_input_example_info", None)
    if isinstance(signature := document.get("signature"), dict):
        signature["outputs"] = None  # they have other names now, and there may be more of them
    (bundle / MLMODEL).write_text(yaml.safe_dump(document), encoding="utf-8")
