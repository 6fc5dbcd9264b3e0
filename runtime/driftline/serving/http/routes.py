"""The server's routes, except inference."""

from __future__ import annotations

import asyncio
import logging

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from driftline import __version__
from driftline.answers import json
from driftline.config import Server
from driftline.errors import (
    BadRequest,
    DriftlineError,
    Forbidden,
    NotFound,
    RegistryError,
    Unavailable,
    shown,
)
from driftline.protocols.mlflow import scoring
from driftline.registry.source import Version
from driftline.serving.host import Host
from driftline.serving.http import hooks, openapi, triton
from driftline.serving.http.infer import read_body
from driftline.serving.monitoring import drift

log = logging.getLogger("driftline.serving")

INDEX_SECONDS = 10.0
"""Time limit for the registry to list its versions."""


def routes(host: Host, settings: Server) -> list[Route]:
    """Return all routes except inference."""
    pages = Pages(host, settings)
    model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    described = [
        Route("/", pages.alive),
        Route("/v2", pages.server),
        Route("/v2/", pages.server),  # so the OpenAPI file of the protocol has it
        Route("/v2/health/live", pages.live),
        Route("/v2/health/ready", pages.ready),
        Route("/v2/models/stats", pages.statistics),
        Route(model, pages.metadata),
        Route(version, pages.metadata),
        Route(f"{model}/ready", pages.model_ready),
        Route(f"{version}/ready", pages.model_ready),
        Route(f"{model}/stats", pages.statistics),
        Route(f"{version}/stats", pages.statistics),
        Route(f"{model}/config", pages.config),
        Route(f"{version}/config", pages.config),
        Route("/v2/repository/index", pages.index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", pages.load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", pages.unload, methods=["POST"]),
        Route("/v1/models", pages.v1_models),
        Route("/v1/models/{name}", pages.v1_model),
        Route("/metrics", pages.metrics),
        Route("/ping", pages.ping),
        Route("/health", pages.ping),
        Route("/version", pages.mlflow_version),
        *drift.routes(host),
        *hooks.routes(host),
    ]
    return [*described, openapi.route_of(described)]


class Pages:
    """The pages that are requested rarely: health, metadata, statistics, the repository."""

    def __init__(self, host: Host, settings: Server) -> None:
        self._host = host
        self._settings = settings

    async def alive(self, request: Request) -> Response:
        """Whether the process responds at all, in KServe's v1 format."""
        return json({"status": "alive"})

    async def server(self, request: Request) -> Response:
        """Server metadata."""
        return json({"name": "driftline", "version": __version__, "extensions": triton.EXTENSIONS})

    async def live(self, request: Request) -> Response:
        """Whether the process responds at all."""
        return json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether every configured model is ready."""
        ready = self._host.ready_for_more
        return json({"live": True, "ready": ready}, 200 if ready else 503)

    async def metadata(self, request: Request) -> Response:
        """A model's inputs and outputs."""
        served = self._host.find(**request.path_params)
        return json(triton.metadata(served, self._host.entries[served.version.name].versions))

    async def model_ready(self, request: Request) -> Response:
        """Whether a model is ready."""
        try:
            served = self._host.find(**request.path_params)
        except Unavailable:
            return json({"name": request.path_params["name"], "ready": False}, 503)
        ready = not self._host.stopping
        return json({"name": served.version.name, "ready": ready}, 200 if ready else 503)

    async def statistics(self, request: Request) -> Response:
        """Inference statistics of one version, of all versions of a model, or of all models."""
        if "version" in request.path_params:
            return json(triton.statistics([self._host.find(**request.path_params)]))
        if "name" in request.path_params:
            served = self._host.find(**request.path_params)
            return json(triton.statistics(self._host.entries[served.version.name].versions.values()))
        return json(triton.statistics(self._host.served()))

    async def config(self, request: Request) -> Response:
        """A model's configuration in Triton's format."""
        return json(triton.config(self._host.find(**request.path_params)))

    async def index(self, request: Request) -> Response:
        """The versions in the repository and their states."""
        only_ready = (await self._json(request)).get("ready", False)
        if type(only_ready) is not bool:
            raise BadRequest(f"'ready': expected true or false, got {shown(only_ready)}")
        try:
            async with asyncio.timeout(INDEX_SECONDS):
                registered, broken = await self._host.read(self._registered_versions)
        except TimeoutError:
            raise Unavailable(f"the registry has not answered in {INDEX_SECONDS:g} s") from None
        return json(triton.index(self._host, registered, broken, only_ready))

    def _registered_versions(self) -> tuple[list[Version], dict[str, str]]:
        """Return the registry's versions, and why those of other models can't be read."""
        registry = self._host.registry
        registered: list[Version] = []
        broken: dict[str, str] = {}
        try:
            names = registry.models()
        except RegistryError as error:
            log.warning("%s; the index lists only loaded versions", error)
            return registered, broken
        for name in names:
            try:
                registered += registry.versions(name)
            except NotFound:  # none of its versions is ready, or it was just removed
                continue
            except RegistryError as error:
                log.warning("%s; the index lists only its loaded versions", error)
                broken[name] = str(error)
        return registered, broken

    async def load(self, request: Request) -> Response:
        """Load a model in the version that the registry names now."""
        self._check_control()
        parameters = (await self._json(request)).get("parameters") or {}
        if parameters:
            raise BadRequest(f"'parameters': expected none, got {shown(parameters)}")
        try:
            await self._host.load(request.path_params["name"])
        except DriftlineError as error:
            raise BadRequest(f"failed to load '{request.path_params['name']}': {error}") from error
        return Response()

    async def unload(self, request: Request) -> Response:
        """Unload a model."""
        self._check_control()
        await self._json(request)
        await self._host.unload(request.path_params["name"])
        return Response()

    def _check_control(self) -> None:
        if self._settings.model_control != "explicit":
            raise Forbidden(
                "explicit model load / unload is not allowed: the server's --model-control "
                f"(DRIFTLINE_MODEL_CONTROL) is {self._settings.model_control}, not explicit"
            )

    async def v1_models(self, request: Request) -> Response:
        """The names of the models that are ready."""
        return json({"models": [entry.name for entry in self._host.entries.values() if entry.default]})

    async def v1_model(self, request: Request) -> Response:
        """Whether a model is ready, in KServe's v1 format."""
        return await self.model_ready(request)

    async def ping(self, request: Request) -> Response:
        """Whether every model is ready, in MLflow's format."""
        return Response("\n", 200 if self._host.ready_for_more else 503, media_type="application/json")

    async def mlflow_version(self, request: Request) -> Response:
        """The version of MLflow whose protocol is supported."""
        return Response(scoring.VERSION, media_type="application/json")

    async def metrics(self, request: Request) -> Response:
        """Metrics in Prometheus' format."""
        from driftline.serving.metrics import exposition  # 0.1 s to import, and the first scrape can wait

        for served in self._host.served():
            if served.watch is not None:
                await served.watch.catch_up_everywhere()
        reports = await asyncio.to_thread(drift.reports, list(self._host.served()))
        content, content_type = exposition(self._host, reports)
        return Response(content, headers={"content-type": content_type})

    async def _json(self, request: Request) -> dict[str, object]:
        """Parse the body as a JSON object; an empty body is an empty object."""
        body = await read_body(dict(request.headers.raw), request.receive, self._settings.max_body_bytes)
        try:
            document = orjson.loads(body or b"{}")
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"the request is not valid JSON: {error}") from error
        if type(document) is not dict:
            raise BadRequest(f"the request: expected an object, got {shown(document)}")
        return document
