"""Inference whose payloads are logged, as those of the same requests over REST would be."""

from __future__ import annotations

from typing import Any

from driftline.errors import BadRequest, DriftlineError
from driftline.protocols.grpc.codec import GrpcCodec, asked_by_rest
from driftline.serving.grpc.inference import Inference
from driftline.serving.http.infer import fields_of, lines
from driftline.serving.payloads.exchange import Asked
from driftline.serving.payloads.log import PayloadLog


class LoggedInference(Inference):
    """See Inference.

    payloads  where they are logged
    """

    def __init__(self, *arguments: Any, payloads: PayloadLog) -> None:
        super().__init__(*arguments)
        self._payloads = payloads

    async def model_infer(self, request: Any, context: Any) -> bytes:
        """The answer to a request, as it is sent."""
        body, length = rest_of(request)
        asked = Asked(request.message.model_name, b"application/octet-stream", b"", length)
        try:
            call = await self._ran(request, context)
            answer = call.answer()[1]
        except Exception as error:
            status = error.status if isinstance(error, DriftlineError) else 500
            self._payloads.record(asked, body, status, b"", b"", None)
            raise
        assert isinstance(call.codec, GrpcCodec)
        content, text_length = call.codec.as_rest(call.decoded, call.request.outcome())
        fields = lines(fields_of(content, text_length))
        self._payloads.record(asked, body, 200, fields, content, call.served.version)
        return answer


def rest_of(request: Any) -> tuple[bytes, int]:
    """A request as it would be over REST, and where its JSON ends; nothing of one that can't be said so."""
    try:
        return asked_by_rest(request)
    except BadRequest:
        return b"", 0
