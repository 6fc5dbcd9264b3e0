"""MLflow's own scoring server for several models, in its own process: `mlflow_peer.py NAME=FOLDER...`.

At /NAME is the application that `mlflow models serve` starts for the model in FOLDER.
"""

from __future__ import annotations

import sys

import mlflow.pyfunc
import uvicorn
from fastapi import FastAPI
from mlflow.pyfunc.scoring_server import init


def main() -> None:
    app = FastAPI()
    for argument in sys.argv[1:]:
        name, _, folder = argument.partition("=")
        app.mount(f"/{name}", init(mlflow.pyfunc.load_model(folder)))
    uvicorn.run(app, port=0, log_level="info")


if __name__ == "__main__":
    main()
