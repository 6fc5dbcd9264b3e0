"""The inference service. Everything but inference comes from the HTTP pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from time import perf_counter_ns
from typing import Any, TypeVar

import orjson
from google.protobuf import json_format

from driftline.batching.request import Request
from driftline.errors import NotFound, Stopping, Unavailable
from driftline.http import call_app
from driftline.protocols.grpc.codec import end_within, values_of
from driftline.protocols.grpc.messages import ModelStreamInferResponse, message
from driftline.registry.source import check_name
from driftline.serving.base_host import BaseHost
from driftline.serving.grpc.errors import page_error, status_of
from driftline.serving.http.app import App
from driftline.serving.http.infer import Call, Infer, Target

Item = TypeVar("Item")


class Inference:
    """The methods of GRPCInferenceService; errors are raised.

    app     has the HTTP pages
    host    finds the version to run
    infer   runs requests for inference
    ending  done when streams are to end
    """

    def __init__(self, app: App, host: BaseHost, infer: Infer, ending: asyncio.Future[None]) -> None:
        self._app = app
        self._host = host
        self._infer = infer
        self._ending = ending
        self._in_flight = 0

    # -- inference --------------------------------------------------------------------------------

    async def model_infer(self, request: Any, context: Any) -> bytes:
        """Return the response to a request, serialised."""
        return (await self._run(request, context)).response()[1]

    async def _run(self, request: Any, context: Any) -> Call:
        """Run a request and return it when it is done."""
        arrived_ns = perf_counter_ns()
        remaining = context.time_remaining()
        if remaining is not None:
            end_within(request.message, remaining)
        name, version = request.message.model_name, request.message.model_version
        target = Target(name, version or None, "grpc", None)
        self._in_flight += 1
        try:
            call = self._infer.submit(target, request, arrived_ns, alone=self._in_flight == 1)
            if isinstance(call.request, Request):
                await call.request  # cancelled if the client disconnects
            return call
        finally:
            self._in_flight -= 1

    async def model_stream_infer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Yield one response for each request, in order; an error ends its own request only."""
        while (request := await self._wait_unless_ending(anext(requests, None))) is not None:
            response = ModelStreamInferResponse()
            try:
                response.infer_response.MergeFromString(await self.model_infer(request, context))
            except Exception as error:
                response.error_message = status_of(error)[1]
                response.infer_response.id = request.message.id
            response.infer_response.parameters["triton_final_response"].bool_param = True
            yield response

    async def _wait_unless_ending(self, awaitable: Awaitable[Item]) -> Item:
        task = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait((task, self._ending), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopping()
            return task.result()
        finally:
            task.cancel()

    # -- health and metadata ----------------------------------------------------------------------

    async def server_live(self, request: Any, context: Any) -> Any:
        """Whether the process responds at all."""
        return message_from("inference.ServerLiveResponse", await self._page("/v2/health/live"))

    async def server_ready(self, request: Any, context: Any) -> Any:
        """Whether every configured model is ready."""
        return message_from("inference.ServerReadyResponse", await self._page("/v2/health/ready"))

    async def model_ready(self, request: Any, context: Any) -> Any:
        """Whether a model is ready; as for Triton, one that is unknown or still loading is not."""
        try:
            page = await self._page(f"{self._model_path(request)}/ready")
        except (NotFound, Unavailable):
            page = {"ready": False}
        return message_from("inference.ModelReadyResponse", page)

    async def server_metadata(self, request: Any, context: Any) -> Any:
        """Server metadata."""
        return message_from("inference.ServerMetadataResponse", await self._page("/v2"))

    async def model_metadata(self, request: Any, context: Any) -> Any:
        """A model's inputs and outputs."""
        return message_from("inference.ModelMetadataResponse", await self._page(self._model_path(request)))

    async def model_config(self, request: Any, context: Any) -> Any:
        """A model's configuration in Triton's format."""
        page = await self._page(f"{self._model_path(request)}/config")
        return message_from("inference.ModelConfigResponse", {"config": page})

    async def model_statistics(self, request: Any, context: Any) -> Any:
        """Inference statistics of one version, of all versions of a model, or of all models."""
        path = f"{self._model_path(request)}/stats" if request.name else "/v2/models/stats"
        return message_from("inference.ModelStatisticsResponse", await self._page(path))

    # -- repository -------------------------------------------------------------------------------

    async def repository_index(self, request: Any, context: Any) -> Any:
        """The versions in the repository and their states."""
        page = await self._page("/v2/repository/index", {"ready": request.ready})
        return message_from("inference.RepositoryIndexResponse", {"models": page})

    async def repository_model_load(self, request: Any, context: Any) -> Any:
        """Load a model in the version that the registry names now."""
        name = await self._change(request, "load")
        return message_from("inference.RepositoryModelLoadResponse", {"model_name": name, "isLoaded": True})

    async def repository_model_unload(self, request: Any, context: Any) -> Any:
        """Unload a model."""
        name = await self._change(request, "unload")
        return message_from(
            "inference.RepositoryModelUnloadResponse", {"model_name": name, "isUnloaded": True}
        )

    async def _change(self, request: Any, action: str) -> str:
        name = check_name(request.model_name or request.repository_name)  # KServe has no repositories
        # Bytes, which JSON lacks, are a model's files: refused, as all parameters are.
        parameters = {name: str(value) for name, value in values_of(request.parameters).items()}
        await self._page(f"/v2/repository/models/{name}/{action}", {"parameters": parameters})
        return name

    # -- pages ------------------------------------------------------------------------------------

    def _model_path(self, request: Any) -> str:
        """Return the path of a model or of one of its versions; NotFound or Unavailable if there is none."""
        name = self._host.find(request.name, request.version or None).version.name
        return f"/v2/models/{name}" + (f"/versions/{request.version}" if request.version else "")

    async def _page(self, path: str, body: object = None) -> Any:
        """Return the document of a page, by POST if there is a body, else GET; raise its error."""
        method, content = ("GET", b"") if body is None else ("POST", orjson.dumps(body))
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
        status, _, content = await call_app(self._app, scope, content)
        document = orjson.loads(content or b"{}")
        if status >= 400 and "error" in document:  # without one, a health page says no
            raise page_error(status, document["error"])
        return document


def message_from(name: str, document: object) -> Any:
    """Return a message with those of its fields that a document has."""
    return json_format.ParseDict(document, message(name)(), ignore_unknown_fields=True)
