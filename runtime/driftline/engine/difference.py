"""What clients and the monitor would notice if one version replaced another."""

from __future__ import annotations

from collections.abc import Iterator

from driftline.engine.bundle import Bundle
from driftline.engine.verify import loaded_signature
from driftline.errors import listed
from driftline.tensors import Signature

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
            if changes := signature_changes(before, now):
                yield f"may break clients of {called}: {changes}"


def signature_changes(old: Signature, new: Signature) -> str:
    """Return what clients of `old` would notice of `new`: tensors added, removed or changed; "" if none."""
    old_specs, new_specs = (
        {("input", spec.name): spec for spec in signature.inputs}
        | {("output", spec.name): spec for spec in signature.outputs}
        for signature in (old, new)
    )
    changes = [f"no {kind} {name!r}" for kind, name in old_specs if (kind, name) not in new_specs]
    for (kind, name), spec in new_specs.items():
        before = old_specs.get((kind, name))
        if before is None:
            changes.append(f"new {kind} {name!r} {spec.form}")
        elif before.form != spec.form:
            changes.append(f"{kind} {name!r} is {spec.form}, was {before.form}")
        elif before.column_names and not spec.column_names:
            changes.append(f"{kind} {name!r} no longer knows its columns by name")
        elif spec.column_names and not before.column_names:
            changes.append(f"{kind} {name!r} now takes columns by name")
        elif before.column_names != spec.column_names:
            changes.append(f"{kind} {name!r} has other columns, or in another order")
    return listed(changes, 6) if changes else ""
