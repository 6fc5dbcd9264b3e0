"""An afternoon's work: a plain ASGI function, no batching, no validation. A peer for bench/http.py.

Run it as `MODEL=path uvicorn bench.plain_asgi:app`.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
import orjson

_options = onnxruntime.SessionOptions()
_options.intra_op_num_threads = 1
_session = onnxruntime.InferenceSession(os.environ["MODEL"], _options, providers=["CPUExecutionProvider"])


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer any request as an inference request."""
    entry = orjson.loads((await receive())["body"])["inputs"][0]
    matrix = np.array(entry["data"], np.float32).reshape(entry["shape"])
    (probabilities,) = _session.run(["probabilities"], {"input": matrix})
    output = {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": probabilities.shape,
        "data": probabilities.ravel(),
    }
    answer = {"model_name": "xgboost", "model_version": "1", "outputs": [output]}
    content = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
