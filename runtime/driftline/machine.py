"""What this process may use of the machine, within the limits of its control group."""

from __future__ import annotations

import os
from pathlib import Path

_CONTROL_GROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Return the number of cores that this process may use, by its affinity and its control group's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (_CONTROL_GROUP / "cpu.max").read_text(encoding="ascii").split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def has_cpu_quota() -> bool:
    """Return whether this process's control group has a CPU quota, and stalls when it is used up."""
    try:
        return (_CONTROL_GROUP / "cpu.max").read_text(encoding="ascii").split()[0] != "max"
    except (OSError, IndexError):
        return False


def available_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its control group's if less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int((_CONTROL_GROUP / "memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return total
