"""driftline serves machine-learning models over HTTP and monitors the data that flows through them.

The public API; each name is imported when it is first used, so that `import driftline` costs nothing.
"""

import os
from typing import TYPE_CHECKING

# From 1.29 on, ONNX Runtime reports every model that is loaded to its maker, unless this is set before it is
# imported. Set it to 0 to allow that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = [
    "Arithmetic",
    "Bucketise",
    "Clip",
    "Cross",
    "Cyclic",
    "DatePart",
    "Drop",
    "Equals",
    "Frequency",
    "Hash",
    "History",
    "Impute",
    "Linear",
    "Log1p",
    "MinMax",
    "Missing",
    "Model",
    "Monitor",
    "OneHot",
    "Ordinal",
    "Pass",
    "Piecewise",
    "Power",
    "Profile",
    "Quantile",
    "Read",
    "Registry",
    "Report",
    "Robust",
    "Signal",
    "Standardise",
    "TargetMean",
    "Transform",
    "__version__",
    "compare",
]

if TYPE_CHECKING:
    from driftline.engine.model import Model
    from driftline.features.spec import (
        Arithmetic,
        Bucketise,
        Clip,
        Cross,
        Cyclic,
        DatePart,
        Drop,
        Equals,
        Frequency,
        Hash,
        Impute,
        Linear,
        Log1p,
        MinMax,
        Missing,
        OneHot,
        Ordinal,
        Pass,
        Piecewise,
        Power,
        Quantile,
        Read,
        Robust,
        Standardise,
        TargetMean,
    )
    from driftline.features.transform import Transform
    from driftline.monitor.compare import compare
    from driftline.monitor.detection.signals import Signal
    from driftline.monitor.monitor import Monitor
    from driftline.monitor.reference.profile import Profile
    from driftline.monitor.reporting.history import History
    from driftline.monitor.reporting.report import Report
    from driftline.registry.source import Registry

_MODULES = dict.fromkeys(__all__, "driftline.features.spec") | {
    "Model": "driftline.engine.model",
    "Transform": "driftline.features.transform",
    "compare": "driftline.monitor.compare",
    "History": "driftline.monitor.reporting.history",
    "Monitor": "driftline.monitor.monitor",
    "Profile": "driftline.monitor.reference.profile",
    "Report": "driftline.monitor.reporting.report",
    "Signal": "driftline.monitor.detection.signals",
    "Registry": "driftline.registry.source",
}
"""The module of each name; all names but these are steps of a transform."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'driftline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
