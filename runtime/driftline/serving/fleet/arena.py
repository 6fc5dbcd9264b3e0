"""Memory that a supervisor and its workers share.

It is one unnamed file that all of them have open; the system frees it when the last one ends, in any way.
Regions lie one after the other and are never reused: a freed region is a hole and takes no memory.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import numpy as np

from driftline.tensors import Array


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the memory: its first byte, and its size in bytes."""

    offset: int
    size: int


class Arena:
    """The memory, by its file descriptor.

    descriptor  inherited by this process; a new one if None
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("driftline") if descriptor is None else descriptor
        self._end = 0

    def allocate(self, size: int) -> Region:
        """Allocate a new region, all zeros."""
        region = Region(self._end, size)
        self._end += -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        os.ftruncate(self.descriptor, self._end)
        return region

    def map(self, region: Region) -> Array:
        """Map a region as (size / 8,) int64; it stays mapped as long as the array lives."""
        mapped = mmap.mmap(self.descriptor, region.size, offset=region.offset)
        return np.frombuffer(mapped, np.int64)

    def free(self, region: Region) -> None:
        """Free a region that no process uses any more."""
        with mmap.mmap(self.descriptor, region.size, offset=region.offset) as mapped:
            mapped.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Close the file; mapped regions stay."""
        os.close(self.descriptor)
