"""The hot path: one inference request, from its body to its response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope

from driftline import http
from driftline.batching.request import Request
from driftline.errors import BadRequest, Cancelled, DriftlineError, RequestTimeout, TooLarge
from driftline.protocols.codec import Codec, InferRequest
from driftline.protocols.encoding import SHORT, compress, decompress, response_coding
from driftline.protocols.mlflow import scoring
from driftline.protocols.v2 import V2Codec
from driftline.serving.base_host import BaseHost
from driftline.serving.payloads.exchange import RequestHead
from driftline.serving.payloads.log import PayloadLog
from driftline.serving.served import Served
from driftline.tensors import Tensors, shorten

BODY_SECONDS = 60.0
"""Time limit for a client to send a body."""

_BINARY = (b"content-type", b"application/octet-stream")
_ARROW = b"application/vnd.apache.arrow.stream"
_JSON_LENGTH = b"inference-header-content-length"
_MAX_DIGITS = 18


Fields = list[tuple[bytes, bytes]]
"""The headers of a response."""


class Infer:
    """The endpoint of one inference protocol. It raises errors; the application turns them into responses.

    host            finds the version to run
    protocol        'v1', 'v2', which includes Arrow streams, or 'mlflow', which includes CSV and Parquet
    max_body_bytes  limit of a body's size
    failure         makes the response for an error in this protocol
    """

    def __init__(
        self, host: BaseHost, protocol: str, max_body_bytes: int, failure: Callable[[Exception], Response]
    ) -> None:
        self._host = host
        self._protocol = protocol
        self.max_body_bytes = max_body_bytes
        self.failure = failure

    async def __call__(
        self, scope: Scope, receive: Receive, name: str | None, version: str | None = None
    ) -> tuple[Fields, bytes]:
        """Return headers and body of the response, from a model's default version or the one named."""
        arrived_ns = perf_counter_ns()
        headers = dict(scope["headers"])
        body = await read_body(headers, receive, self.max_body_bytes)
        target = self.target(headers, name, version)
        fields, content = await self._respond(headers, target, body, arrived_ns, receive)
        coding = response_coding(scope["headers"])
        if coding is None or len(content) < SHORT:
            return fields, content
        compressed = await asyncio.to_thread(compress, content, coding)
        return compressed_fields(fields, coding, compressed), compressed

    async def _respond(
        self, headers: dict[bytes, bytes], target: Target, body: bytes, arrived_ns: int, receive: Receive
    ) -> tuple[Fields, bytes]:
        """Return headers and body of the response to a complete request."""
        call = self.submit(target, body, arrived_ns)
        await call.wait(receive)
        return call.response()

    def target(self, headers: Mapping[bytes, bytes], name: str | None, version: str | None) -> Target:
        """Return the requested model and protocol; raise BadRequest or UnsupportedMedia on a bad header."""
        protocol, content_type = self._protocol, headers.get(b"content-type", b"")
        if protocol == "mlflow":
            protocol = scoring.protocol_of(content_type)
        elif protocol == "v2" and content_type.startswith(_ARROW):
            protocol = "arrow"
        return Target(name, version, protocol, parse_json_length(headers))

    def submit(self, target: Target, body: bytes, arrived_ns: int, alone: bool = False) -> Call:
        """Decode a request and put it in the queue.

        arrived_ns  by perf_counter_ns
        alone       no other request is waiting: if it can run at once, it has run when this returns
        """
        # All in one turn of the loop: a swap comes before or after, never between.
        served = self._host.find(target.name, target.version)
        codec = served.codec(target.protocol)
        try:
            decoded = codec.decode(body, target.json_length)
            if alone and not decoded.timeout_us:
                outputs = served.batcher.try_inline(decoded.inputs, decoded.outputs)
                if outputs is not None:
                    return Call(served, codec, decoded, Completed(outputs), arrived_ns)
            request = served.batcher.submit(decoded.inputs, decoded.outputs, decoded.timeout_us)
        except DriftlineError as error:
            served.batcher.counters.record_failure(error, perf_counter_ns() - arrived_ns)
            raise
        return Call(served, codec, decoded, request, arrived_ns)


class LoggedInfer(Infer):
    """An endpoint that logs payloads."""

    def __init__(self, *arguments: Any, payloads: PayloadLog) -> None:
        super().__init__(*arguments)
        self._payloads = payloads

    async def _respond(
        self, headers: dict[bytes, bytes], target: Target, body: bytes, arrived_ns: int, receive: Receive
    ) -> tuple[Fields, bytes]:
        request_head = RequestHead.of(target.name, headers, target.json_length)
        try:
            call = self.submit(target, body, arrived_ns)
            await call.wait(receive)
            fields, content = call.response()
        except Exception as error:
            if not isinstance(error, Cancelled):
                status = error.status if isinstance(error, DriftlineError) else 500
                self._payloads.record(request_head, body, status, b"", b"", None)
            raise
        self._payloads.record(request_head, body, 200, header_lines(fields), content, call.served.version)
        return fields, content


class Target(NamedTuple):
    """What the head of a request says about the model and the body.

    name         None for the default model
    version      None for the default version
    protocol     'v1', 'v2', 'grpc', 'arrow', 'mlflow', 'mlflow-csv' or 'mlflow-parquet'
    json_length  bytes of JSON at the start of the body; None if all of it is JSON
    """

    name: str | None
    version: str | None
    protocol: str
    json_length: int | None


@dataclass(slots=True)
class Completed:
    """The result of a request that ran without the queue."""

    outputs: Tensors

    def outcome(self) -> Tensors:
        """Return its outputs."""
        return self.outputs


@dataclass(slots=True)
class Call:
    """A request in progress: its version, what it asked for, its place in the queue, when it arrived."""

    served: Served
    codec: Codec
    decoded: InferRequest
    request: Request | Completed
    arrived_ns: int

    async def wait(self, receive: Receive) -> None:
        """Wait until the request is done; if the client disconnects first, remove it from the queue."""
        # A short batch runs in this turn of the loop; the client of a longer one may disconnect meanwhile.
        await asyncio.sleep(0)
        if isinstance(self.request, Request) and not self.request.done:
            await wait_unless_disconnected(self.request, receive)

    def response(self) -> tuple[Fields, bytes]:
        """Return headers and body of the response once the request is done; raise its error."""
        content, json_length = self.codec.encode(self.decoded, self.request.outcome())
        self.served.latency.observe(perf_counter_ns() - self.arrived_ns)
        return response_fields(content, json_length, self.codec.media_type), content


def response_fields(
    content: bytes, json_length: int | None, media_type: bytes = V2Codec.media_type
) -> Fields:
    """Return a response's headers; `json_length`: bytes of its JSON, None if no binary tensors follow."""
    length = (b"content-length", b"%d" % len(content))
    if json_length is None:
        return [(b"content-type", media_type), length]
    return [_BINARY, length, (_JSON_LENGTH, b"%d" % json_length)]


def compressed_fields(fields: Fields, coding: bytes, compressed: bytes) -> Fields:
    """Return the headers of a response whose body is sent compressed, as `compressed`."""
    length = b"%d" % len(compressed)
    changed = [(name, length if name == b"content-length" else value) for name, value in fields]
    return [*changed, (b"content-encoding", coding), (b"vary", b"accept-encoding")]


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def parse_header_lines(lines: bytes) -> Fields:
    """Parse headers from such lines."""
    parts = (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])
    return [(name, value) for name, _, value in parts]


async def wait_unless_disconnected(request: Request, receive: Receive) -> None:
    """Wait until a request is done; if the client disconnects first, remove it from the queue."""
    watcher = asyncio.create_task(_cancel_on_disconnect(request, receive))
    try:
        await request
    finally:
        watcher.cancel()


async def _cancel_on_disconnect(request: Request, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    request.cancel()


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int) -> bytes:
    """Read the request's body and decompress it if needed.

    Raises TooLarge for more than `max_bytes`, RequestTimeout if it does not arrive in time, BadRequest if its
    Content-Encoding can't be decoded.
    """
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > max_bytes:
        raise TooLarge(f"the body: expected at most {max_bytes} bytes, got {int(length)}")
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await http.read_body(receive, max_bytes, body)
        except TimeoutError:
            raise body_timeout() from None
    encoding = headers.get(b"content-encoding")
    return body if encoding is None else decompress(body, encoding, max_bytes)


def body_timeout() -> RequestTimeout:
    """Return the error of a body that did not arrive in time."""
    return RequestTimeout(f"the body did not come within {BODY_SECONDS:.0f} seconds")


def parse_json_length(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the length of a body's JSON from its header; None without that header."""
    value = headers.get(_JSON_LENGTH)
    if value is None:
        return None
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        raise BadRequest(
            "Inference-Header-Content-Length: expected a whole number from 0, "
            f"got {shorten(value.decode('latin-1'))}"
        )
    return int(value)
