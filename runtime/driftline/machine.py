"""What this process may use of the machine, within the limits of its control group."""

from __future__ import annotations

import os
from pathlib import Path

_CONTROL_GROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """The cores this process may use: its affinity, and the quota of its control group if it has one."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (_CONTROL_GROUP / "cpu.max").read_text(encoding="ascii").split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def limited_cores() -> bool:
    """Whether this process's control group may use up its share of the cores, and then stands still."""
    try:
        return (_CONTROL_GROUP / "cpu.max").read_text(encoding="ascii").split()[0] != "max"
    except (OSError, IndexError):
        return False


def available_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or those of its control group if fewer."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(there, int((_CONTROL_GROUP / "memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return there
