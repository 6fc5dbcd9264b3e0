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
    held: Any = object()
    host = WorkerHost(ServerFile(), 1, 2, arena, nobody, None)  # type: ignore[arg-type]
    host._held[7] = held
    region = arena.take(2 * 4096)
    arena.map(region)[:] = 1
    host.slabs(7, region)
    own = host._slab_of(7).result()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as raised:
            own()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert raised.value.errno == errno.EMFILE
    assert own().tolist() == [1] * 512
    arena.close()
