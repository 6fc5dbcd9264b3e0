"""MLServer's runtime: Open Inference Protocol, decoded and encoded by its own codec."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from session import OUTPUT, Session


class Served(MLModel):
    """The model that `mlserver start` loads."""

    async def load(self) -> bool:
        """Load it."""
        self.session = Session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The answer to one request, or to several that MLServer has put together."""
        rows = self.session.run(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(OUTPUT, rows)])
