"""A model that does what its rows say; MLflow runs this file in a process of its own."""

import os
import sys

import mlflow
import numpy as np
import pandas as pd


class Obedient(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        kept = []
        for do in model_input["do"]:
            if do == "raise":
                raise ValueError("no such thing")
            if do == "die":
                os._exit(3)
            if do == "print":
                print("hello from the model")
                print("and from its stderr", file=sys.stderr)
            if do == "eat":
                kept.append(np.ones(2**30, np.uint8))
        days = model_input["day"].dt.dayofyear.fillna(-1).astype("int64")
        tags = model_input["tags"].map(lambda tags: len(tags or []))
        return pd.DataFrame(
            {
                "twice": model_input["x"] * 2,
                "said": model_input["do"].fillna("nothing"),
                "day": days,
                "tags": tags.astype("int64"),
                "pid": np.full(len(model_input), os.getpid()),
            }
        )


mlflow.models.set_model(Obedient())
