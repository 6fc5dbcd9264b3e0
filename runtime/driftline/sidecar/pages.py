"""The agent's HTTP pages: drift, metrics, health, and the paths of its sources."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from driftline import __version__
from driftline.answers import HANDLERS, json
from driftline.errors import NotFound
from driftline.monitor.reporting import pages
from driftline.sidecar.agent import Agent, Source

VERSION = ""
"""The model version in pages: an agent does not know which one responds."""


class Pages:
    """The agent's ASGI application: the endpoints of its sources, by their path, and its own pages."""

    def __init__(self, agent: Agent, sources: Sequence[Source]) -> None:
        self._agent = agent
        self._sources = sources
        self._endpoints = {path: app for source in sources for path, app in source.endpoints.items()}
        self._pages = Starlette(routes=list(self._routes()), exception_handlers=HANDLERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        app: ASGIApp = self._endpoints.get(scope["path"], self._pages)
        if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):  # events are posted there
            app = RedirectResponse("drift")
        await app(scope, receive, send)

    def _routes(self) -> Iterator[Route]:
        for base in ("", "/v2/models/{name}"):
            yield Route(f"{base}/drift", self._report)
            yield Route(f"{base}/drift/acknowledge", self._acknowledge, methods=["POST"])
            yield Route(f"{base}/drift/window", self._window)
            yield Route(f"{base}/drift/reference", self._reference)
            yield Route(f"{base}/profile", self._profile)
        yield Route("/metrics", self._metrics)
        yield Route("/v2/health/live", self._live)
        yield Route("/v2/health/ready", self._ready)
        yield Route("/v2/repository/index", self._index, methods=["POST"])

    def _agent_for(self, request: Request) -> Agent:
        name = request.path_params.get("name", self._agent.model)
        if name != self._agent.model:
            raise NotFound(f"model {name!r} is not watched here; {quote(self._agent.model)} is")
        return self._agent

    async def _report(self, request: Request) -> Response:
        return await pages.report(request, self._agent_for(request), self._agent.model, VERSION)

    async def _acknowledge(self, request: Request) -> Response:
        return await pages.acknowledge(self._agent_for(request))

    async def _window(self, request: Request) -> Response:
        return await pages.window(self._agent_for(request), self._agent.model, VERSION)

    async def _reference(self, request: Request) -> Response:
        return await pages.reference(self._agent_for(request))

    async def _profile(self, request: Request) -> Response:
        return await pages.profile(request, self._agent_for(request))

    async def _live(self, request: Request) -> Response:
        return json({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = self._agent.observer.monitor is not None
        return json({"live": True, "ready": ready}, 200 if ready else 503)

    async def _index(self, request: Request) -> Response:
        """Return the watched model, in the format of a server's repository index."""
        return json([{"name": self._agent.model, "version": VERSION, "state": "READY", "reason": ""}])

    async def _metrics(self, request: Request) -> Response:
        from driftline.sidecar.metrics import exposition  # 0.1 s to import, and the first scrape can wait

        content, content_type = await asyncio.to_thread(exposition, self._agent, self._sources, __version__)
        return Response(content, headers={"content-type": content_type})
