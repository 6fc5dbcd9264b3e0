"""MLflow's folder: the model, saved in its ONNX flavour with one thread."""

from __future__ import annotations

import os

import mlflow.onnx
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

options = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
inputs = Schema([TensorSpec(np.dtype("float32"), (-1, int(os.environ["WIDTH"])), "input")])
mlflow.onnx.save_model(
    onnx.load(os.environ["MODEL"]),
    os.path.join(os.environ["FOLDER"], "model"),
    onnx_execution_providers=["CPUExecutionProvider"],
    onnx_session_options=options,
    signature=ModelSignature(inputs),
)
