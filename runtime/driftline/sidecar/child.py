"""The agent as a process beside the proxy: `python -m driftline.sidecar.child END TALLY LISTENER`.

The settings come over the socket first, then copies. Signals are the proxy's: this one ends when that does.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
import socket
import sys
from functools import partial

from driftline import logs
from driftline.config import Monitoring, Sidecar
from driftline.errors import DriftlineError
from driftline.sidecar.process import make, run, sources
from driftline.sidecar.tally import Tally
from driftline.sidecar.tap import LENGTH, TapSource, lower_priority

log = logging.getLogger("driftline.sidecar")


def main(end: int, tally: int, listener: int) -> int:
    """Watch what comes until the proxy goes; the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    lower_priority()
    with socket.socket(fileno=end) as copies, socket.socket(fileno=listener) as pages:
        (length,) = LENGTH.unpack(copies.recv(LENGTH.size, socket.MSG_WAITALL))
        settings, monitoring = pickle.loads(copies.recv(length, socket.MSG_WAITALL))  # noqa: S301 - our own
        logs.configure(settings.log_format, settings.log_level, access_log=False)
        try:
            asyncio.run(_watch(settings, monitoring, copies, Tally(tally), pages))
        except DriftlineError as error:
            log.error("%s", error)
            return 2
    return 0


async def _watch(
    settings: Sidecar, monitoring: Monitoring, copies: socket.socket, tally: Tally, pages: socket.socket
) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    tap = TapSource(copies, tally, partial(loop.call_soon_threadsafe, stopping.set))
    agent = make(settings, monitoring)
    await run(agent, [tap, *sources(settings)], settings, pages, stopping)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
