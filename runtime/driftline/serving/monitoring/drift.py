"""The server's pages about drift, for each model and each of its versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from driftline.errors import NotFound
from driftline.monitor.reporting import pages
from driftline.serving.host import Host
from driftline.serving.monitoring.watch import Watch
from driftline.serving.served import Served

if TYPE_CHECKING:
    from driftline.monitor.reporting.report import Report


def routes(host: Host) -> list[Route]:
    """Return the routes of each model and of each of its versions."""
    drift = Pages(host)
    result = []
    for base in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        result += [
            Route(f"{base}/drift", drift.report),
            Route(f"{base}/drift/acknowledge", drift.acknowledge, methods=["POST"]),
            Route(f"{base}/drift/window", drift.window),
            Route(f"{base}/drift/reference", drift.reference),
            Route(f"{base}/profile", drift.profile),
        ]
    return result


class Pages:
    """The pages of a monitor, chosen by the request's model and version."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def report(self, request: Request) -> Response:
        """How the last windows differ from the reference."""
        served = self._host.find(**request.path_params)
        return await pages.report(request, await up_to_date_watch(served), *served.name_and_version)

    async def acknowledge(self, request: Request) -> Response:
        """Acknowledge the signals that are held."""
        return await pages.acknowledge(await self._watch(request))

    async def window(self, request: Request) -> Response:
        """The current window."""
        served = self._host.find(**request.path_params)
        return await pages.window(await up_to_date_watch(served), *served.name_and_version)

    async def reference(self, request: Request) -> Response:
        """The profile."""
        return await pages.reference(await self._watch(request))

    async def profile(self, request: Request) -> Response:
        """A profile of the rows that arrive from now on."""
        return await pages.profile(request, await self._watch(request))

    async def _watch(self, request: Request) -> Watch:
        return await up_to_date_watch(self._host.find(**request.path_params))


async def up_to_date_watch(served: Served) -> Watch:
    """Return a version's Watch once it has observed all finished batches; NotFound if there is none."""
    if served.watch is None:
        raise NotFound(f"model '{served.version.name}' is not monitored: its settings say so")
    await served.watch.catch_up_everywhere()
    return served.watch


def reports(versions: Sequence[Served]) -> dict[Served, Report]:
    """Return the report of the current window of each version whose monitor is loaded."""
    watches = ((served, served.watch.observer.monitor) for served in versions if served.watch is not None)
    return {served: monitor.report() for served, monitor in watches if monitor is not None}
