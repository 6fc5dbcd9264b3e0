"""gRPC's health-checking protocol, used by probes and load balancers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from driftline.errors import NotFound, Stopping, Unavailable
from driftline.protocols.grpc.messages import HEALTH, INFERENCE, HealthCheckResponse
from driftline.serving.base_host import BaseHost

WATCH_SECONDS = 0.25
"""Seconds between two checks for `watch`."""


class Health:
    """The methods of the service Health: about one model if the request names it, else about all.

    ending  done when streams are to end
    """

    def __init__(self, host: BaseHost, ending: asyncio.Future[None]) -> None:
        self._host = host
        self._ending = ending

    async def check(self, request: Any, context: Any) -> Any:
        """Return whether requests may be sent here; NotFound for a model that is not served."""
        return HealthCheckResponse(status=self._status(request.service))

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Yield the same now, and again whenever it changes."""
        last_status = None
        while not self._ending.done():
            try:
                status = self._status(request.service)
            except NotFound:
                status = HealthCheckResponse.SERVICE_UNKNOWN
            if status != last_status:
                yield HealthCheckResponse(status=status)
                last_status = status
            await asyncio.wait((self._ending,), timeout=WATCH_SECONDS)
        raise Stopping()

    def _status(self, service: str) -> Any:
        ready = self._host.ready_for_more
        if service not in ("", INFERENCE, HEALTH):
            try:
                self._host.find(service)
                ready = not self._host.stopping
            except Unavailable:
                ready = False
        return HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
