"""Whether a version's files are what a server can load and watch, before one is asked to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from driftline.config import Engine
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.engine.providers import check
from driftline.engine.python_signature import logged_in, signature_of
from driftline.errors import BadRequest
from driftline.mlmodel import MLMODEL
from driftline.tensors import Signature


def verify(files: Path | Bundle) -> bool:
    """Open a version's files as a server does, with the model on the CPU; whether the model was loaded.

    It is not if it is Python code that nobody vouches for. `registry.register(files, name, check=verify)`
    refuses what can't be served.

    Raises whatever is wrong with the model, the transform, the profile or the settings, and where they don't
    fit each other.
    """
    bundle = Bundle.open(files) if isinstance(files, Path) else files
    engine = bundle.settings.engine
    if bundle.model.name == MLMODEL and not engine.trust:
        logged = logged_in(bundle.model.parent)
        if logged.outputs:
            check_profile(bundle, signature_of(logged, None, bundle.model))
        return False
    # Of cards, only what would be wrong on any machine.
    check(replace(engine, device="cpu" if engine.device == "cpu" else "auto"))
    own = Engine(trust=engine.trust, python=engine.python, memory_bytes=engine.memory_bytes, threads=1)
    model = Model(replace(bundle, settings=replace(bundle.settings, engine=own)))
    try:
        check_profile(bundle, model.signature)
    finally:
        model.close()
    return True


def check_profile(bundle: Bundle, signature: Signature) -> None:
    """BadRequest if a bundle's profile can't be read, or is one of another model's data."""
    from driftline.monitor.profile import Profile  # Arrow and Numba take a while to import

    if bundle.profile is None:
        return
    profile = Profile.load(bundle.profile)
    try:
        profile.validate(signature)
    except BadRequest as error:
        raise BadRequest(f"{bundle.profile}: {error}") from error
