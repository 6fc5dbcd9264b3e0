"""What glibc's allocator must be told, so that the memory of a model goes when the model goes."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8


def one_arena() -> None:
    """Let all threads share one heap; to be called before there are any.

    Models are loaded and freed in whatever thread is at hand, and each thread's own heap would keep holes as
    large as a model. Measured over swaps of a 10 MB model: 93 to 112 MB without, 92 to 94 MB with this.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return free pages to the system."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
