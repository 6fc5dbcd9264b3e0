"""Follow a registry: look again and again, tell only what has changed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence

from driftline.errors import DriftlineError, RegistryError
from driftline.registry.source import Reference, Registry, Targets, Version

log = logging.getLogger("driftline.registry")


async def watch(
    registry: Registry, references: Sequence[Reference], interval: float
) -> AsyncIterator[Targets]:
    """What `Registry.watch` says; the looking is done in a thread."""
    told: object = None
    away = False
    while True:
        try:
            targets = await asyncio.to_thread(_look, registry, references)
        except (OSError, RegistryError) as error:
            if not away:
                log.warning("%s; what is loaded stays, looking again every %g s", error, interval)
            away = True
        else:
            if away:
                log.info("registry %s can be read again", registry.uri)
            away = False
            if (news := _comparable(targets)) != told:
                told = news
                yield targets
        # Not all that follow one registry look at the same time.
        await asyncio.sleep(interval * random.uniform(0.8, 1.2))  # noqa: S311


def _look(registry: Registry, references: Sequence[Reference]) -> Targets:
    """What the references stand for now; raises OSError or RegistryError if the registry can't tell."""
    targets: dict[Reference, Version | DriftlineError] = {}
    for reference in references or map(Reference, registry.models()):
        try:
            targets[reference] = registry.resolve(reference)
        except DriftlineError as error:
            targets[reference] = error
    if any(isinstance(target, RegistryError) for target in targets.values()):
        # One model that can't be read is news of that model. If all of the registry is away, this raises.
        registry.models()
    return targets


def _comparable(targets: Targets) -> object:
    """Equal for equal targets; an exception itself is equal to no other, so it counts by its message."""
    return {
        reference: (type(target), str(target)) if isinstance(target, DriftlineError) else target
        for reference, target in targets.items()
    }
