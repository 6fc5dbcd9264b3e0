"""The hot path: one inference request, from its body to its answer."""

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
from driftline.protocols.encoding import SHORT, answer_coding, compress, decompress
from driftline.protocols.mlflow import scoring
from driftline.protocols.v2 import V2Codec
from driftline.serving.base_host import BaseHost
from driftline.serving.payloads.exchange import Asked
from driftline.serving.payloads.log import PayloadLog
from driftline.serving.served import Served
from driftline.tensors import Tensors, shorten

BODY_SECONDS = 60.0
"""How long a client may take to send a body."""

_BINARY = (b"content-type", b"application/octet-stream")
_ARROW = b"application/vnd.apache.arrow.stream"
_JSON_LENGTH = b"inference-header-content-length"
_MOST_DIGITS = 18


Fields = list[tuple[bytes, bytes]]
"""The headers of an answer."""


class Infer:
    """The endpoint of one inference protocol. Errors are raised: the application answers them.

    host            finds the version that answers
    protocol        'v1', 'v2', which takes Arrow streams, too, or 'mlflow', which takes CSV and Parquet
    max_body_bytes  a body of more is refused
    failure         what a client of this protocol sees of an error
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
        """The headers and the body of the answer of a model's default version, or of the one named."""
        begin = perf_counter_ns()
        headers = dict(scope["headers"])
        body = await read_body(headers, receive, self.max_body_bytes)
        target = self.target(headers, name, version)
        fields, content = await self._answer(headers, target, body, begin, receive)
        coding = answer_coding(scope["headers"])
        if coding is None or len(content) < SHORT:
            return fields, content
        packed = await asyncio.to_thread(compress, content, coding)
        return coded(fields, coding, packed), packed

    async def _answer(
        self, headers: dict[bytes, bytes], target: Target, body: bytes, begin: int, receive: Receive
    ) -> tuple[Fields, bytes]:
        """The headers and the body of the answer to a request that has come whole."""
        call = self.call(target, body, begin)
        await call.ended(receive)
        return call.answer()

    def target(self, headers: Mapping[bytes, bytes], name: str | None, version: str | None) -> Target:
        """Who is asked, and how; BadRequest or UnsupportedMedia if a header is wrong."""
        protocol, content_type = self._protocol, headers.get(b"content-type", b"")
        if protocol == "mlflow":
            protocol = scoring.protocol_of(content_type)
        elif protocol == "v2" and content_type.startswith(_ARROW):
            protocol = "arrow"
        return Target(name, version, protocol, json_length(headers))

    def call(self, target: Target, body: bytes, begin: int, alone: bool = False) -> Call:
        """A request, read and in the queue.

        begin  when it came, by perf_counter_ns
        alone  nothing else has come: if it can run at once, it has when this returns
        """
        # All in one turn of the loop: a swap comes before or after, never between.
        served = self._host.find(target.name, target.version)
        codec = served.codec(target.protocol)
        try:
            decoded = codec.decode(body, target.json_length)
            if alone and not decoded.timeout_us:
                outputs = served.batcher.try_inline(decoded.inputs, decoded.outputs)
                if outputs is not None:
                    return Call(served, codec, decoded, Ran(outputs), begin)
            request = served.batcher.submit(decoded.inputs, decoded.outputs, decoded.timeout_us)
        except DriftlineError as error:
            served.batcher.counters.fail(error, perf_counter_ns() - begin)
            raise
        return Call(served, codec, decoded, request, begin)


class LoggedInfer(Infer):
    """One whose payloads are logged."""

    def __init__(self, *arguments: Any, payloads: PayloadLog) -> None:
        super().__init__(*arguments)
        self._payloads = payloads

    async def _answer(
        self, headers: dict[bytes, bytes], target: Target, body: bytes, begin: int, receive: Receive
    ) -> tuple[Fields, bytes]:
        asked = Asked.of(target.name, headers, target.json_length)
        try:
            call = self.call(target, body, begin)
            await call.ended(receive)
            fields, content = call.answer()
        except Exception as error:
            if not isinstance(error, Cancelled):
                status = error.status if isinstance(error, DriftlineError) else 500
                self._payloads.record(asked, body, status, b"", b"", None)
            raise
        self._payloads.record(asked, body, 200, lines(fields), content, call.served.version)
        return fields, content


class Target(NamedTuple):
    """What the head of a request says of the model that is asked and of the body.

    name         None for the default model
    version      None for the model's default
    protocol     'v1', 'v2', 'grpc', 'arrow', 'mlflow', 'mlflow-csv' or 'mlflow-parquet'
    json_length  where the body's JSON ends; None if it is all JSON
    """

    name: str | None
    version: str | None
    protocol: str
    json_length: int | None


@dataclass(slots=True)
class Ran:
    """In place of a request that needed no queue."""

    outputs: Tensors

    def outcome(self) -> Tensors:
        """Its outputs."""
        return self.outputs


@dataclass(slots=True)
class Call:
    """A request on its way: who answers it, what it asked for, its place in the queue, when it came."""

    served: Served
    codec: Codec
    decoded: InferRequest
    request: Request | Ran
    begin: int

    async def ended(self, receive: Receive) -> None:
        """Wait until the request is done; if its client goes away first, it leaves the queue."""
        # In this turn of the loop a short batch runs; the client of a longer one may leave meanwhile.
        await asyncio.sleep(0)
        if isinstance(self.request, Request) and not self.request.done:
            await unless_gone(self.request, receive)

    def answer(self) -> tuple[Fields, bytes]:
        """The headers and the body of the answer, once the request is done; its error is raised."""
        content, text_length = self.codec.encode(self.decoded, self.request.outcome())
        self.served.latency.observe(perf_counter_ns() - self.begin)
        return fields_of(content, text_length, self.codec.media_type), content


def fields_of(content: bytes, text_length: int | None, media_type: bytes = V2Codec.media_type) -> Fields:
    """The headers of an answer; where its JSON ends, None if no bytes of tensors follow it."""
    length = (b"content-length", b"%d" % len(content))
    if text_length is None:
        return [(b"content-type", media_type), length]
    return [_BINARY, length, (_JSON_LENGTH, b"%d" % text_length)]


def coded(fields: Fields, coding: bytes, packed: bytes) -> Fields:
    """The headers of an answer whose body is sent compressed, as `packed`."""
    length = b"%d" % len(packed)
    changed = [(name, length if name == b"content-length" else value) for name, value in fields]
    return [*changed, (b"content-encoding", coding), (b"vary", b"accept-encoding")]


def lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def fields_in(sent: bytes) -> Fields:
    """The headers that were made such lines."""
    parts = (line.partition(b": ") for line in sent.split(b"\r\n")[:-1])
    return [(name, value) for name, _, value in parts]


async def unless_gone(request: Request, receive: Receive) -> None:
    """Wait until a request is done; if its client goes away first, it leaves the queue."""
    gone = asyncio.create_task(_cancel_when_gone(request, receive))
    try:
        await request
    finally:
        gone.cancel()


async def _cancel_when_gone(request: Request, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    request.cancel()


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, most: int) -> bytes:
    """The request's body, decompressed if need be.

    Raises TooLarge for more than `most` bytes, RequestTimeout if it does not come, BadRequest if its
    Content-Encoding can't be read.
    """
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > most:
        raise TooLarge(f"the body: expected at most {most} bytes, came {int(length)}")
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await http.read_body(receive, most, body)
        except TimeoutError:
            raise body_late() from None
    encoding = headers.get(b"content-encoding")
    return body if encoding is None else decompress(body, encoding, most)


def body_late() -> RequestTimeout:
    """The error of a body that does not come."""
    return RequestTimeout(f"the body did not come within {BODY_SECONDS:.0f} seconds")


def json_length(headers: Mapping[bytes, bytes]) -> int | None:
    """Where a body's JSON ends, by its header; None if there is none."""
    value = headers.get(_JSON_LENGTH)
    if value is None:
        return None
    if not value.isdigit() or len(value) > _MOST_DIGITS:
        raise BadRequest(
            "Inference-Header-Content-Length: expected a whole number from 0, "
            f"came {shorten(value.decode('latin-1'))}"
        )
    return int(value)
