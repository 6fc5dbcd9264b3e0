"""KServe's Python server: Open Inference Protocol; its batcher is a sidecar in Go, so there is none here."""

from __future__ import annotations

import os
from typing import Any

from kserve import InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import get_predict_response
from session import OUTPUT, Session


class Served(Model):
    """The model by its name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.session = Session()
        self.ready = True

    async def predict(
        self, payload: InferRequest, headers: Any = None, response_headers: Any = None
    ) -> InferResponse:
        """The answer to one request."""
        return get_predict_response(payload, self.session.run(payload.inputs[0].as_numpy()), self.name)


if __name__ == "__main__":
    ModelServer(http_port=int(os.environ["PORT"]), enable_grpc=False, workers=1).start([Served("model")])
