"""Returns predictions in the form that the rows name; one of MLflow's "models from code"."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Forms(PythonModel):
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        twice = model_input["x"].to_numpy() * 2
        forms = {
            "list": twice.tolist(),
            "series": pd.Series(twice),
            "named": pd.Series(twice, name="twice"),
            "frame": pd.DataFrame({"twice": twice}),
            "records": [{"twice": one} for one in twice],
            "mapping": {"twice": twice},
        }
        return forms.get(model_input["form"].iloc[0], twice)


set_model(Forms())
