"""What clients and the monitor would notice if one version replaced another."""

from __future__ import annotations

from collections.abc import Iterator

from driftline.engine.bundle import Bundle
from driftline.engine.verify import loaded_signature
from driftline.tensors import difference

MAX_BYTES = 2**28
"""Largest model file loaded to compare signatures; loading a larger one takes too long."""


def differences(new: Bundle, old: Bundle, called: str, load: bool = True) -> Iterator[str]:
    """Yield warnings about a version that follows another, one line each.

    called  name of the former version, such as 'version 1'
    load    whether to load both, to compare their inputs and outputs

    Raises whatever error loading either one raises.
    """
    if old.profile is not None and new.profile is None:
        yield f"has no profile: it will not be monitored; {called} has one"
    if load and max(new.model.stat().st_size, old.model.stat().st_size) <= MAX_BYTES:
        now, before = loaded_signature(new), loaded_signature(old)
        if now is not None and before is not None:
            if changes := difference(before, now):
                yield f"may break clients of {called}: {changes}"
