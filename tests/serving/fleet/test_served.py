"""A version whose rows workers count, in the supervisor."""

from __future__ import annotations

import os

import numpy as np
import pytest

from driftline.config import Monitoring
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.registry.source import Version
from driftline.serving.fleet.arena import Arena, Region
from driftline.serving.fleet.served import FleetWatch, RemoteModel
from driftline.serving.monitoring.notifier import Notifier
from driftline.tensors import DATATYPES, Signature, TensorSpec

SPEC = TensorSpec("x", DATATYPES["FP32"], (-1, 2))


async def test_workers_are_told_if_there_is_no_memory_to_count_in(caplog: pytest.LogCaptureFixture) -> None:
    regions: list[Region | None] = []
    arena, remote = Arena(), RemoteModel(Signature((SPEC,), (), True), {0, 1})
    os.close(arena.descriptor)
    watch = FleetWatch(
        Version("m", 3), remote, None, Monitoring(), Notifier(), arena, 2, regions.append, lambda rows: None
    )
    watch._set_up_slabs(Monitor(Profile.fit({"x": np.ones((200, 2), np.float32)})))
    assert (regions, watch.failed, watch.slabs) == ([None], True, None)
    assert "m 3 is not monitored: [Errno 9] Bad file descriptor" in caplog.text
    watch.collect()
    watch.close()
