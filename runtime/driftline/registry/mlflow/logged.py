"""Writes a version's folder as MLflow's ONNX flavor, so that `mlflow.onnx` and `mlflow.pyfunc` load it."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnxruntime
import yaml

from driftline.errors import ModelError
from driftline.mlmodel import MLMODEL, read_yaml
from driftline.registry.files import MODEL
from driftline.tensors import BY_ONNX

_PACKAGES = ("mlflow", "onnx", "onnxruntime")


def complete_mlflow_model(folder: Path, model_id: str, artifact_uri: str) -> None:
    """Make a folder with a model an MLflow model; update the location in an existing MLmodel.

    Raises ModelError if ONNX Runtime can't load the model, or the MLmodel is invalid.
    """
    _flatten(folder)
    path = folder / MLMODEL
    document = read_yaml(path) if path.is_file() else _new_mlmodel(folder)
    document |= {
        "artifact_path": artifact_uri,
        "model_id": model_id,
        "model_uuid": model_id,
        "model_size_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    requirements = "".join(f"{name}{_version_pin(name)}\n" for name in _PACKAGES)
    environment = {"python": platform.python_version(), "build_dependencies": ["pip"]}
    for name, text in (
        ("requirements.txt", requirements),
        ("python_env.yaml", yaml.safe_dump(environment | {"dependencies": ["-r requirements.txt"]})),
        ("conda.yaml", yaml.safe_dump(_conda_environment(requirements.split()))),
    ):
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8")


def _flatten(folder: Path) -> None:
    """Flatten Triton's layout of a model with external data, model.onnx/model.onnx, into one folder."""
    inner = folder / MODEL
    if inner.is_dir():
        renamed = inner.rename(folder / ".model")
        for path in renamed.iterdir():
            path.rename(folder / path.name)
        renamed.rmdir()


def _new_mlmodel(folder: Path) -> dict[str, Any]:
    return {
        "flavors": {
            "onnx": {
                "code": None,
                "data": str(MODEL),
                "onnx_session_options": None,
                "onnx_version": _version("onnx") or "unknown",
                "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"],
            },
            "python_function": {
                "data": str(MODEL),
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.onnx",
                "python_version": platform.python_version(),
            },
        },
        "signature": _signature(folder / MODEL),
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }


def _signature(path: Path) -> dict[str, str | None]:
    """Return the model's inputs and outputs as tensors; None for those that MLflow can't express (maps)."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # errors are raised
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{path.name}: {' '.join(str(error).split())}") from error
    return {
        "inputs": _schema(session.get_inputs()),
        "outputs": _schema(session.get_outputs()),
        "params": None,
    }


def _schema(nodes: Sequence[Any]) -> str | None:
    tensors = []
    for node in nodes:
        datatype = BY_ONNX.get(node.type.removeprefix("tensor(").removesuffix(")"))
        if datatype is None:
            return None
        dtype = "str" if datatype.name == "BYTES" else datatype.dtype.name
        shape = [size if isinstance(size, int) else -1 for size in node.shape]
        tensors.append({"name": node.name, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}})
    return json.dumps(tensors) if tensors else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _version_pin(package: str) -> str:
    installed = _version(package)
    return f"=={installed}" if installed else ""


def _conda_environment(requirements: list[str]) -> dict[str, Any]:
    return {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={platform.python_version()}", "pip", {"pip": requirements}],
    }
