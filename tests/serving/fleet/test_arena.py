"""Memory that processes share, and that nobody has to clear away."""

from __future__ import annotations

import os
import subprocess
import sys

from driftline.serving.fleet.arena import Arena

CHILD = """
import sys
from driftline.serving.fleet.arena import Arena, Region
Arena(int(sys.argv[1])).map(Region(*map(int, sys.argv[2:])))[:] += 1
"""


def test_what_one_process_writes_another_reads() -> None:
    arena = Arena()
    regions = [arena.allocate(size) for size in (64, 100_000, 8)]
    arrays = [arena.map(region) for region in regions]
    for number, array in enumerate(arrays):
        assert not array.any()
        array[:] = number
    region = regions[1]
    command = [sys.executable, "-c", CHILD, str(arena.descriptor), str(region.offset), str(region.size)]
    subprocess.run(command, check=True, pass_fds=[arena.descriptor])
    assert [set(array.tolist()) for array in arrays] == [{0}, {2}, {2}]
    arena.close()


def test_a_region_that_is_given_back_takes_no_memory() -> None:
    arena = Arena()
    for _ in range(50):
        region = arena.allocate(2**20)
        array = arena.map(region)
        array[:] = 1
        del array
        arena.free(region)
    assert os.fstat(arena.descriptor).st_blocks == 0
    arena.close()
