"""driftline serves machine-learning models over HTTP and watches the data that flows through them.

The public face; each name is imported when it is first used, so that `import driftline` costs nothing.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["History", "Model", "Monitor", "Profile", "Registry", "Report", "Signal", "__version__"]

if TYPE_CHECKING:
    from driftline.engine.model import Model
    from driftline.monitor.history import History
    from driftline.monitor.monitor import Monitor
    from driftline.monitor.profile import Profile
    from driftline.monitor.report import Report
    from driftline.monitor.signals import Signal
    from driftline.registry.source import Registry

_HOMES = {
    "History": "driftline.monitor.history",
    "Model": "driftline.engine.model",
    "Monitor": "driftline.monitor.monitor",
    "Profile": "driftline.monitor.profile",
    "Registry": "driftline.registry.source",
    "Report": "driftline.monitor.report",
    "Signal": "driftline.monitor.signals",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'driftline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
