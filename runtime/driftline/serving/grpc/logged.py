"""Inference that logs payloads as those of the same requests over REST."""

from __future__ import annotations

from typing import Any

from driftline.errors import BadRequest, DriftlineError
from driftline.protocols.grpc.codec import GrpcCodec, as_rest_request
from driftline.serving.grpc.inference import Inference
from driftline.serving.http.infer import header_lines, response_fields
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
        body, request_json_length = rest_request_of(request)
        name = request.message.model_name
        request_head = RequestHead(name, b"application/octet-stream", b"", request_json_length)
        try:
            call = await self._run(request, context)
            answer = call.response()[1]
        except Exception as error:
            status = error.status if isinstance(error, DriftlineError) else 500
            self._payloads.record(request_head, body, status, b"", b"", None)
            raise
        assert isinstance(call.codec, GrpcCodec)
        content, json_length = call.codec.as_rest(call.decoded, call.request.outcome())
        fields = header_lines(response_fields(content, json_length))
        self._payloads.record(request_head, body, 200, fields, content, call.served.version)
        return answer


def rest_request_of(request: Any) -> tuple[bytes, int]:
    """Return a request as over REST, and the length of its JSON; (b"", 0) if REST can't express it."""
    try:
        return as_rest_request(request)
    except BadRequest:
        return b"", 0
