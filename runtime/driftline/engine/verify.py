"""Checks at registration that a server can load and monitor a version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from driftline.config import Engine
from driftline.engine.bundle import Bundle
from driftline.engine.cuda.providers import check
from driftline.engine.model import Model
from driftline.engine.python.signature import logged_signature, signature_of
from driftline.errors import BadRequest
from driftline.mlmodel import MLMODEL
from driftline.tensors import Signature


def verify(files: Path | Bundle) -> bool:
    """Load a version as a server does, on the CPU; return whether the model was loaded.

    A model that is Python code is loaded only with the setting `trust`. To refuse versions that can't be
    served: `registry.register(files, name, check=verify)`.

    Raises an error if the model, the transform, the profile or the settings are wrong, or don't fit together.
    """
    bundle = Bundle.open(files) if isinstance(files, Path) else files
    signature = loaded_signature(bundle)
    if signature is not None:
        check_profile(bundle, signature)
    return not _is_untrusted(bundle)


def loaded_signature(bundle: Bundle) -> Signature | None:
    """What a version takes and gives; it is loaded on the CPU for that, and closed again.

    Of Python code that is not trusted it is what was logged with it; None if that does not say all.
    """
    engine = bundle.settings.engine
    if _is_untrusted(bundle):
        logged = logged_signature(bundle.model.parent)
        return signature_of(logged, None, bundle.model) if logged.outputs else None
    # Check GPU settings only for what is wrong on any machine.
    check(replace(engine, device="cpu" if engine.device == "cpu" else "auto"))
    cpu_engine = Engine(trust=engine.trust, python=engine.python, memory_bytes=engine.memory_bytes, threads=1)
    model = Model(replace(bundle, settings=replace(bundle.settings, engine=cpu_engine)))
    model.close()
    return model.signature


def _is_untrusted(bundle: Bundle) -> bool:
    return bundle.model.name == MLMODEL and not bundle.settings.engine.trust


def check_profile(bundle: Bundle, signature: Signature) -> None:
    """Raise BadRequest if a bundle's profile can't be read, or does not fit the model's signature."""
    from driftline.monitor.reference.profile import Profile  # Arrow and Numba take a while to import

    if bundle.profile is None:
        return
    profile = Profile.load(bundle.profile)
    try:
        profile.validate(signature)
    except BadRequest as error:
        raise BadRequest(f"{bundle.profile}: {error}") from error
