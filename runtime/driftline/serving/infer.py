"""The hot path: one inference request, from its body to its answer, in plain ASGI."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from time import perf_counter_ns

from starlette.types import Receive, Scope, Send

from driftline.batching.batcher import Request
from driftline.errors import BadRequest, Cancelled, DriftlineError, RequestTimeout, TooLarge
from driftline.serving.host import Host
from driftline.tensors import Tensors, shorten

BODY_SECONDS = 60.0
"""How long a client may take to send a body."""

_BINARY = (b"content-type", b"application/octet-stream")
_ARROW = b"application/vnd.apache.arrow.stream"
_JSON_LENGTH = b"inference-header-content-length"
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}
_MOST_DIGITS = 18


class Infer:
    """The endpoint of one inference protocol. Errors are raised: the application answers them.

    host            finds the version that answers
    protocol        'v1' or 'v2', which takes Arrow streams, too
    max_body_bytes  a body of more is refused
    """

    def __init__(self, host: Host, protocol: str, max_body_bytes: int) -> None:
        self._host = host
        self._protocol = protocol
        self._max_body_bytes = max_body_bytes

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, name: str, version: str | None = None
    ) -> None:
        """Answer one request to a model's default version, or to the one named."""
        begin = perf_counter_ns()
        headers = dict(scope["headers"])
        body = await read_body(headers, receive, self._max_body_bytes)
        # From here to the queue in one turn of the loop: a swap comes before or after, never between.
        served = self._host.find(name, version)
        codec = served.codec(self._protocol_of(headers))
        try:
            call = codec.decode(body, json_length(headers))
            request = served.batcher.submit(call.inputs, call.outputs, call.timeout_us)
        except DriftlineError as error:
            served.batcher.counters.fail(error, perf_counter_ns() - begin)
            raise
        # In this turn of the loop a short batch runs; the client of a longer one may leave meanwhile.
        await asyncio.sleep(0)
        outputs = await request if request.done else await unless_gone(request, receive)
        content, text_length = codec.encode(call, outputs)
        fields = [(b"content-type", codec.media_type), (b"content-length", b"%d" % len(content))]
        if text_length is not None:
            fields = [_BINARY, fields[1], (_JSON_LENGTH, b"%d" % text_length)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": content})
        served.latency.observe(perf_counter_ns() - begin)

    def _protocol_of(self, headers: Mapping[bytes, bytes]) -> str:
        if self._protocol == "v2" and headers.get(b"content-type", b"").startswith(_ARROW):
            return "arrow"
        return self._protocol


async def unless_gone(request: Request, receive: Receive) -> Tensors:
    """The request's outputs; if its client goes away first, it leaves the queue."""
    gone = asyncio.create_task(_cancel_when_gone(request, receive))
    try:
        return await request
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
                body = await _read_more(body, receive, most)
        except TimeoutError:
            raise RequestTimeout(f"the body did not come within {BODY_SECONDS:.0f} seconds") from None
    encoding = headers.get(b"content-encoding", b"identity")
    return body if encoding == b"identity" else _decompress(body, encoding, most)


async def _read_more(first: bytes, receive: Receive, most: int) -> bytes:
    chunks, size, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("the client has gone")
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > most:
            raise TooLarge(f"the body: expected at most {most} bytes, came more")
        chunks.append(chunk)
    return b"".join(chunks)


def _decompress(body: bytes, encoding: bytes, most: int) -> bytes:
    if encoding not in _WINDOW_BITS:
        raise BadRequest(
            f"Content-Encoding: expected gzip or deflate, came {shorten(encoding.decode('latin-1'))}"
        )
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = stream.decompress(body, most)
    except zlib.error as error:
        raise BadRequest(f"the body is no valid {encoding.decode()}: {error}") from error
    if stream.unconsumed_tail:
        raise TooLarge(f"the body: expected at most {most} bytes, came more when decompressed")
    if not stream.eof:
        raise BadRequest(f"the body is no valid {encoding.decode()}: it ends too early")
    return plain


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
