"""Loads compiled kernels in the background, once a server is ready."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from itertools import count
from threading import Thread
from time import sleep

from driftline.backoff import backoff
from driftline.protocols import numbers
from driftline.serving import memory
from driftline.serving.served import Served
from driftline_kernels import compiling

log = logging.getLogger("driftline.serving")

GC_THRESHOLD = 20_000
"""Objects allocated and not freed before the garbage collector runs."""


def warm_in_background(versions: Sequence[Served]) -> None:
    """Load kernels in a thread, then warm up the versions that need them; called once all are loaded."""
    tune_garbage_collector()
    Thread(target=load_until_done, args=(versions,), name="driftline-kernels", daemon=True).start()


def load_until_done(versions: Sequence[Served]) -> None:
    """Load kernels, and retry while files or memory are short.

    Until then Python computes the features of these versions, and orjson parses all numbers.
    """
    for failures in count(1):
        try:
            load(versions)
            return
        except Exception as error:  # a temporary shortage of files or memory
            wait = backoff(failures)
            log.error("kernels can't be loaded: %s; requests take longer; next try in %.0f s", error, wait)
            sleep(wait)


def load(versions: Sequence[Served]) -> None:
    """Load Numba and the kernels that requests need, and warm up the versions that are not warm."""
    compiling.load()
    for served in versions:
        if not served.model.warm:
            served.warm_up()
    numbers.load()
    tune_garbage_collector()  # Numba's modules were imported since
    memory.release_compiler_code()
    memory.release_free_pages()


def tune_garbage_collector() -> None:
    """Keep the garbage collector from scanning permanent objects: modules, models, routes.

    Reference counting frees requests, so it has little to find; by default it scans all live objects every
    few hundred requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
