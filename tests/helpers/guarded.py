"""Texts past whose end nothing may be read: the next byte is on a page whose access ends the process."""

from __future__ import annotations

import ctypes
import mmap

HEAD = bytes.__basicsize__ - 1
"""Bytes of a `bytes` object before its content: reference count, type, length, hash."""

_kept: list[object] = []


def guarded(text: bytes) -> bytes:
    """Return the text as a `bytes` object whose final zero is the last byte of a page; it is never freed."""
    used = HEAD + len(text) + 1
    size = -(-used // mmap.PAGESIZE) * mmap.PAGESIZE
    held = ctypes.c_char.from_buffer(mmap.mmap(-1, size + mmap.PAGESIZE))
    end = ctypes.addressof(held) + size
    ctypes.memmove(end - used, id(text), used)
    _kept.append(held)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, 0) == 0
    found: bytes = ctypes.cast(end - used, ctypes.py_object).value
    _kept.append(found)
    return found
