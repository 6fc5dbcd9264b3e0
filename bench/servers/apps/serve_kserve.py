"""KServe's Python server: Open Inference Protocol; its batcher is a sidecar in Go, so there is none here."""

from __future__ import annotations

import os
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
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
        rows = self.session.run(payload.inputs[0].as_numpy())
        output = InferOutput(OUTPUT, list(rows.shape), "FP32")
        output.set_data_from_numpy(rows, binary_data=bool(payload.use_binary_outputs))
        return InferResponse(
            response_id=payload.id or "",
            model_name=self.name,
            infer_outputs=[output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    ModelServer(
        http_port=int(os.environ["PORT"]), enable_grpc=False, enable_latency_logging=False, workers=1
    ).start([Served("model")])
