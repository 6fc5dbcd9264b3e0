"""What a worker does about what its supervisor says."""

from __future__ import annotations

import errno
import resource
from typing import Any

import pytest

from driftline.config import ServerFile
from driftline.serving.fleet.arena import Arena
from driftline.serving.fleet.worker_host import WorkerHost


def test_a_slab_that_cannot_be_mapped_now_is_mapped_when_files_may_be_had() -> None:
    """It costs neither the worker nor, for good, the monitor: its thread tries again."""
    arena, nobody = Arena(), Any
    served: Any = object()
    host = WorkerHost(ServerFile(), 1, 2, arena, nobody, None)  # type: ignore[arg-type]
    host._served_by_key[7] = served
    region = arena.allocate(2 * 4096)
    arena.map(region)[:] = 1
    host.set_slabs(7, region)
    map_slab = host._slab_future(7).result()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as raised:
            map_slab()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert raised.value.errno == errno.EMFILE
    assert map_slab().tolist() == [1] * 512
    arena.close()
