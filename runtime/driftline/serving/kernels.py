"""Loading compiled kernels in the background, once a server answers."""

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
"""Objects made and not freed again before the garbage collector looks for cycles among them."""


def warm_in_background(served: Sequence[Served]) -> None:
    """Load kernels in a thread, and then warm up the versions that need them; called when all are loaded."""
    tune_garbage_collector()
    Thread(target=load_until_done, args=(served,), name="driftline-kernels", daemon=True).start()


def load_until_done(served: Sequence[Served]) -> None:
    """Load kernels, and try again for as long as files or memory are missing.

    Until then Python makes the features of these versions, and orjson reads all numbers.
    """
    for failures in count(1):
        try:
            load(served)
            return
        except Exception as error:  # no more files or memory may be had: that passes
            wait = backoff(failures)
            log.error("kernels can't be loaded: %s; requests take longer; next try in %.0f s", error, wait)
            sleep(wait)


def load(served: Sequence[Served]) -> None:
    """Load Numba and the kernels that requests need, and warm up those versions that are not warm."""
    compiling.load()
    for each in served:
        if not each.model.warm:
            each.warm_up()
    numbers.load()
    tune_garbage_collector()  # all of Numba has come since
    memory.leave_compiler()
    memory.give_back()


def tune_garbage_collector() -> None:
    """Keep the garbage collector from searching what stays: modules, models, routes.

    Requests are freed by their reference counts, so it has little to find; by default it looks at all that
    lives every few hundred of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
