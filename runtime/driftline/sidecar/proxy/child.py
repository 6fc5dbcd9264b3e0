"""The agent as a process beside the proxy: `python -m driftline.sidecar.proxy.child END COUNTS LISTENER`."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from functools import partial

from driftline import child_process, logs
from driftline.child_process import SharedCounts
from driftline.config import Monitoring, Sidecar
from driftline.errors import DriftlineError
from driftline.sidecar.process import make_agent, run, sources
from driftline.sidecar.proxy.tap import COUNTERS, TapSource

log = logging.getLogger("driftline.sidecar")


def main(end: int, shared: int, listener: int) -> int:
    """Watch the proxy's copies until it ends; return the exit code."""
    copies, (settings, monitoring) = child_process.begin(end)
    with copies, socket.socket(fileno=listener) as pages:
        logs.configure(settings.log_format, settings.log_level, access_log=False)
        try:
            asyncio.run(_watch(settings, monitoring, copies, SharedCounts(COUNTERS, shared), pages))
        except DriftlineError as error:
            log.error("%s", error)
            return 2
    return 0


async def _watch(
    settings: Sidecar,
    monitoring: Monitoring,
    copies: socket.socket,
    shared: SharedCounts,
    pages: socket.socket,
) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    tap = TapSource(copies, shared, partial(loop.call_soon_threadsafe, stopping.set))
    agent = make_agent(settings, monitoring)
    await run(agent, [tap, *sources(settings)], settings, pages, stopping)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
