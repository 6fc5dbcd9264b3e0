"""driftline serves machine-learning models over HTTP and watches the data that flows through them.

The public face; each name is imported when it is first used, so that `import driftline` costs nothing.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Model", "Profile", "Registry", "__version__"]

if TYPE_CHECKING:
    from driftline.engine.model import Model
    from driftline.monitor.profile import Profile
    from driftline.registry.source import Registry

_HOMES = {
    "Model": "driftline.engine.model",
    "Profile": "driftline.monitor.profile",
    "Registry": "driftline.registry.source",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'driftline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
