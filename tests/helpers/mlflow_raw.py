"""A version with a transform as an MLflow model, one of MLflow's "models from code"."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

import driftline as dl


class Raw(PythonModel):
    def load_context(self, context: Any) -> None:
        self.model = dl.Model.load(context.artifacts["version"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        outputs = self.model.predict(model_input)
        return pd.DataFrame({name: array.ravel() for name, array in outputs.items()})


set_model(Raw())
