"""The process that logs payloads: `python -m driftline.serving.payloads.child END COUNTS`."""

from __future__ import annotations

import logging
import pickle
import sys
from time import monotonic

from driftline import child_process, logs
from driftline.child_process import SharedCounts
from driftline.errors import DriftlineError
from driftline.serving.payloads.exchange import Exchange
from driftline.serving.payloads.log import COUNT_NAMES, LENGTH
from driftline.serving.payloads.queue import Queue
from driftline.serving.payloads.sink import open_sink

log = logging.getLogger("driftline.payloads")


def main(end: int, shared: int) -> int:
    """Log exchanges until the server closes the connection; return the exit code.

    end     file descriptor of the socket to the server
    shared  file descriptor of the shared counts
    """
    connection, (settings, close_seconds) = child_process.begin(end, idle=True)
    logs.configure(settings.log_format, settings.log_level, access_log=False)
    queue = Queue(SharedCounts(COUNT_NAMES, shared))
    try:
        threads = open_sink(settings).threads(queue)
    except DriftlineError as error:
        log.error("%s", error)
        return 2
    for thread in threads:
        thread.start()
    with connection, connection.makefile("rb", buffering=2**18) as file:
        while len(head := file.read(LENGTH.size)) == LENGTH.size:
            (length,) = LENGTH.unpack(head)
            if not length:
                queue.end(close_seconds)
                continue
            if len(content := file.read(length)) < length:
                break
            queue.put(Exchange(*record) for record in pickle.loads(content))  # noqa: S301 - our own
    queue.close(close_seconds)
    deadline = monotonic() + close_seconds
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
