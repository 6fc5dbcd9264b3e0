"""Follows a registry: polls it and yields only changes."""

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
    """See `Registry.watch`; the polling is done in a thread."""
    last: object = None
    is_down = False
    while True:
        try:
            targets = await asyncio.to_thread(_resolve_all, registry, references)
        except (OSError, RegistryError) as error:
            if not is_down:
                log.warning("%s; loaded versions stay, trying again every %g s", error, interval)
            is_down = True
        else:
            if is_down:
                log.info("registry %s can be read again", registry.uri)
            is_down = False
            if (current := _comparable(targets)) != last:
                last = current
                yield targets
        # Processes that follow one registry must not poll it at the same time.
        await asyncio.sleep(interval * random.uniform(0.8, 1.2))  # noqa: S311


def _resolve_all(registry: Registry, references: Sequence[Reference]) -> Targets:
    """Resolve the references; raises OSError or RegistryError if the registry can't be read."""
    targets: dict[Reference, Version | DriftlineError] = {}
    for reference in references or map(Reference, registry.models()):
        try:
            targets[reference] = registry.resolve(reference)
        except DriftlineError as error:
            targets[reference] = error
    if any(isinstance(target, RegistryError) for target in targets.values()):
        # If only one model can't be read, that is its result; if the whole registry can't, this raises.
        registry.models()
    return targets


def _comparable(targets: Targets) -> object:
    """Equal for equal targets; exceptions never compare equal, so they count by their message."""
    return {
        reference: (type(target), str(target)) if isinstance(target, DriftlineError) else target
        for reference, target in targets.items()
    }
