"""Inference that logs payloads as those of the same requests over REST."""

from __future__ import annotations

from typing import Any

from driftline.errors import BadRequest, DriftlineError
from driftline.protocols.grpc.codec import GrpcCodec, as_rest_request
from driftline.serving.grpc.inference import Inference
from driftline.serving.http.infer import fields_of, lines
from driftline.serving.payloads.exchange import RequestHead
from driftline.serving.payloads.log import PayloadLog


class LoggedInference(Inference):
    """See Inference.

    payloads  the payload log
    """

    def __init__(self, *arguments: Any, payloads: PayloadLog) -> None:
        super().__init__(*arguments)
        self._payloads = payloads

    async def model_infer(self, request: Any, context: Any) -> bytes:
        """Return the response to a request, serialised."""
        body, length = rest_of(request)
        asked = RequestHead(request.message.model_name, b"application/octet-stream", b"", length)
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
    """Return a request as over REST, and the length of its JSON; (b"", 0) if REST can't express it."""
    try:
        return as_rest_request(request)
    except BadRequest:
        return b"", 0
