"""What a worker does about what its supervisor says."""

from __future__ import annotations

import os
from typing import Any

from driftline.config import ServerFile
from driftline.serving.fleet.arena import Arena, Region
from driftline.serving.fleet.worker_host import WorkerHost


def test_memory_that_cannot_be_mapped_costs_the_monitor_and_not_the_worker() -> None:
    arena, nobody = Arena(), Any
    os.close(arena.descriptor)
    held: Any = object()
    host = WorkerHost(ServerFile(), 0, 1, arena, nobody, None)  # type: ignore[arg-type]
    host._held[7] = held
    host.slabs(7, Region(0, 4096))
    assert isinstance(host._slab_of(7).exception(), OSError)
