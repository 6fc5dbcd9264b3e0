"""The gRPC port of one process: opening, closing, and the handling of each call."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from driftline.answers import failure
from driftline.config import Server
from driftline.errors import BadRequest, ConfigError, Stopping
from driftline.protocols.grpc import wire
from driftline.protocols.grpc.messages import HEALTH, INFERENCE, POOL, ModelInferRequest, class_of
from driftline.serving.base_host import BaseHost
from driftline.serving.grpc.errors import status_of
from driftline.serving.grpc.health import Health
from driftline.serving.grpc.inference import Inference
from driftline.serving.grpc.logged import LoggedInference
from driftline.serving.http.app import App
from driftline.serving.http.infer import Infer
from driftline.sockets import authority

log = logging.getLogger("uvicorn.access")

Reader = Callable[[Any], Any]

PING_SECONDS = 75
"""A client that has been silent for so long is pinged: if it disappeared without closing, its calls and
streams would stay for hours."""

CANCEL_SECONDS = 1.0
"""Time for calls rejected at the end to send their status."""


class GrpcServer:
    """Serves the same versions as HTTP on the gRPC port, which all workers of a server share.

    app       has the HTTP pages
    host      finds the version to run
    settings  of the server; `grpc_port` is the port number
    """

    def __init__(self, app: App, host: BaseHost, settings: Server) -> None:
        self._settings = settings
        self._ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls: set[asyncio.Task[Any]] = set()
        self._is_past_deadline = False
        self._server = aio.server(
            options=(
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.keepalive_time_ms", PING_SECONDS * 1000),
                ("grpc.http2.max_pings_without_data", 0),
            )
        )
        infer = Infer(host, "grpc", settings.max_body_bytes, failure)
        kind = Inference if app.payloads is None else partial(LoggedInference, payloads=app.payloads)
        inference, health = kind(app, host, infer, self._ending), Health(host, self._ending)
        self._server.add_generic_rpc_handlers(
            (self._handlers(INFERENCE, inference), self._handlers(HEALTH, health))
        )

    async def start(self) -> None:
        """Listen; ConfigError if the address can't be bound."""
        host, port = self._settings.host, self._settings.grpc_port
        assert port is not None
        try:
            self._server.add_insecure_port(authority(host, port))
        except RuntimeError as error:
            raise ConfigError(f"can't listen on {host}:{port}: {error}") from error
        await self._server.start()

    async def stop(self) -> None:
        """Accept no more calls, nor requests on streams, and finish those in progress; reject what takes
        longer than `drain_seconds`."""
        self._ending.set_result(None)
        seconds = self._settings.drain_seconds
        stopping = asyncio.create_task(self._server.stop(seconds + CANCEL_SECONDS))
        await asyncio.wait((stopping,), timeout=seconds)
        self._is_past_deadline = True
        for call in self._calls:
            call.cancel()
        await stopping

    # -- calls --------------------------------------------------------------------------------------

    def _handlers(self, name: str, service: object) -> Any:
        """Return the handlers of a service's methods; ours have its description's names in snake case."""
        handlers = {}
        for method in POOL.FindServiceByName(name).methods:
            path = f"/{name}/{method.name}"
            handle = getattr(service, re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower())
            if method.client_streaming:
                make_handler, wrap = grpc.stream_stream_rpc_method_handler, self._streaming
            elif method.server_streaming:
                make_handler, wrap = grpc.unary_stream_rpc_method_handler, self._streaming
            else:
                make_handler, wrap = grpc.unary_unary_rpc_method_handler, self._unary
            handlers[method.name] = make_handler(
                wrap(path, reader_of(method), handle), response_serializer=serialise
            )
        return grpc.method_handlers_generic_handler(name, handlers)

    def _unary(self, path: str, read: Reader, handle: Callable[..., Any]) -> Callable[..., Any]:
        async def call(data: Any, context: Any) -> Any:
            async with self._call(path, context):
                return await handle(read(data), context)

        return call

    def _streaming(self, path: str, read: Reader, handle: Callable[..., Any]) -> Callable[..., Any]:
        async def call(data: Any, context: Any) -> AsyncIterator[Any]:
            async with self._call(path, context):
                async for message in handle(read(data), context):
                    yield message

        return call

    @asynccontextmanager
    async def _call(self, path: str, context: Any) -> AsyncIterator[None]:
        """Surround a call: turn errors into its status, and log it as HTTP requests are logged."""
        task = asyncio.current_task()
        assert task is not None, "gRPC makes one for each call"
        self._calls.add(task)
        code, message = grpc.StatusCode.OK, ""
        try:
            yield
        except asyncio.CancelledError:
            if not self._is_past_deadline:
                code = grpc.StatusCode.CANCELLED
                raise
            code, message = status_of(Stopping())
        except Exception as error:
            code, message = status_of(error)
        finally:
            self._calls.discard(task)
            if self._settings.access_log:
                log.info('%s - "POST %s HTTP/2" %s', context.peer(), path, code.name)
        # context.abort would leave a reference cycle that holds the request until a garbage collection.
        context.set_code(code)
        context.set_details(message)


def reader_of(method: Any) -> Reader:
    """Return the parser of a method's requests; it raises BadRequest for an invalid message.

    As gRPC's own deserialiser, it would turn a client's fault into a server error with a traceback.
    """
    kind = class_of(method.input_type)
    parse = wire.read if kind is ModelInferRequest else kind.FromString

    def read(data: bytes) -> Any:
        try:
            return parse(data)
        except (ValueError, DecodeError) as error:
            raise BadRequest(f"the message is no {method.input_type.full_name}: {error}") from None

    def read_all(messages: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        return (read(data) async for data in messages)

    return read_all if method.client_streaming else read


def serialise(response: Any) -> bytes:
    """Serialise a response, unless it already is."""
    return response if isinstance(response, bytes) else response.SerializeToString()
