"""MLServer's folder: settings, and adaptive batching on."""

from __future__ import annotations

import json
import os
from pathlib import Path

folder = Path(os.environ["FOLDER"])
port = int(os.environ["PORT"])
settings = {
    "host": "127.0.0.1",
    "http_port": port,
    "grpc_port": int(os.environ["PORT_2"]),
    "metrics_port": int(os.environ["PORT_3"]),
    "parallel_workers": 0,
    "debug": False,
}
model = {
    "name": "model",
    "implementation": "serve_mlserver.Served",
    "max_batch_size": 64,
    "max_batch_time": 0.001,
    "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, int(os.environ["WIDTH"])]}],
}
(folder / "settings.json").write_text(json.dumps(settings))
(folder / "model-settings.json").write_text(json.dumps(model))
