"""uvicorn with driftline's graceful stop: first not ready, then no new connections, then the end."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

import uvicorn

from driftline.config import Server
from driftline.http import IncompleteRequests, configuration
from driftline.machine import available_memory
from driftline.serving.base_host import BaseHost
from driftline.serving.http.app import App
from driftline.serving.http.fastlane import fast_lane
from driftline.sockets import BACKLOG

if TYPE_CHECKING:
    from driftline.serving.grpc.server import GrpcServer

log = logging.getLogger("driftline.serving")

KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep idle connections, so that none is closed during a request."""


class GracefulServer(uvicorn.Server):
    """Serves HTTP, and gRPC if configured, until `stop` is called.

    After `stop` it continues for `stop_delay_seconds`, until load balancers have noticed: it is not ready,
    accepts connections, and closes each one after its next response, since a client that kept one might send
    a request on it just as it is closed.

    app        handles requests
    host       holds the versions
    exit_code  of the process
    """

    def __init__(self, app: App, host: BaseHost, settings: Server) -> None:
        self._protocol_class = fast_lane(app)
        IncompleteRequests.limit = max(settings.max_body_bytes, available_memory() // 4 // settings.workers)
        super().__init__(
            configuration(
                app,
                self._protocol_class,
                access_log=settings.access_log,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
            )
        )
        self.exit_code = 0
        self._host = host
        self._stop_delay_seconds = settings.stop_delay_seconds
        self._grpc = grpc_server(app, host, settings)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving."""
        if self._grpc is not None:
            await self._grpc.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Return when all requests in flight are finished, or after `drain_seconds`."""
        if self._grpc is None:
            await super().shutdown(sockets)
        else:
            await asyncio.gather(super().shutdown(sockets), self._grpc.stop())

    def stop(self) -> int:
        """Begin to stop, see GracefulServer; return the number of requests in flight."""
        self._host.stopping = True
        if self._stop_delay_seconds and self._host.ready:
            self._protocol_class.keep_alive = False
            asyncio.get_running_loop().call_later(self._stop_delay_seconds, self._request_exit)
        else:
            self._request_exit()
        return sum(served.batcher.pending for served in self._host.served())

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; also ends, with code 1, when a device is lost."""
        if not self.exit_code and (device_failure := self._host.device_failure):
            log.critical("%s; this process ends, for another to take its place", device_failure)
            self.exit_code = 1
            self._request_exit()
        return await super().on_tick(counter)

    def _request_exit(self) -> None:
        self._host.ready = False
        self.should_exit = True


def grpc_server(app: App, host: BaseHost, settings: Server) -> GrpcServer | None:
    """Return the server of the gRPC port; None if none is set."""
    if settings.grpc_port is None:
        return None
    from driftline.serving.grpc.server import GrpcServer

    return GrpcServer(app, host, settings)
