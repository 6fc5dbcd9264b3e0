"""What clients and the monitor would notice if one version took the place of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from driftline.engine.bundle import Bundle
from driftline.engine.verify import loaded_signature
from driftline.errors import listed
from driftline.tensors import TensorSpec

MAX_BYTES = 2**28
"""Of a model file that is loaded to see what it takes: a larger one takes too long."""

MAX_SHOWN = 6


def differences(new: Bundle, old: Bundle, called: str, load: bool = True) -> Iterator[str]:
    """What is to be said of a version that follows another, in a line each; nothing if they are alike.

    called  the former one: 'version 1', say
    load    whether to load both, which tells what they take and give

    Raises whatever is wrong with either.
    """
    if old.profile is not None and new.profile is None:
        yield f"has no profile: it will not be monitored; {called} has one"
    if load and max(new.model.stat().st_size, old.model.stat().st_size) <= MAX_BYTES:
        now, before = loaded_signature(new), loaded_signature(old)
        if now is not None and before is not None:
            inputs = _changes("input", now.inputs, before.inputs)
            outputs = _changes("output", now.outputs, before.outputs)
            if changes := [*inputs, *outputs]:
                yield f"may break clients of {called}: {listed(changes, MAX_SHOWN)}"


def _changes(what: str, new: Sequence[TensorSpec], old: Sequence[TensorSpec]) -> Iterator[str]:
    now, before = ({spec.name: spec for spec in specs} for specs in (new, old))
    for name in dict.fromkeys(chain(before, now)):
        if name not in now:
            yield f"no {what} {name!r}"
        elif name not in before:
            yield f"new {what} {name!r} {_told(now[name])}"
        elif _told(now[name]) != _told(before[name]):
            yield f"{what} {name!r} is {_told(now[name])}, was {_told(before[name])}"
        elif (columns := now[name].column_names) and before[name].column_names not in ((), columns):
            yield f"{what} {name!r} has other columns, or in another order"


def _told(spec: TensorSpec) -> str:
    return f"{spec.datatype.name} {list(spec.shape)}"
