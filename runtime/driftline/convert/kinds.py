"""The libraries whose models can be converted, and what each needs."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from driftline.convert.example import Example
from driftline.convert.source import Source
from driftline.errors import BadRequest
from driftline.tensors import Array

TRUST = "`driftline serve --trust`"

_SOURCE_LOCATION = re.compile(r"\[\d+:\d+:\d+\] \S+:\d+: ")


class Native(Protocol):
    """A model in its own library."""

    kind: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that it takes, in order; none if it does not know them."""

    @property
    def texts(self) -> Collection[str]:
        """Which of the columns it knows to be text, whatever the values in a CSV file look like."""

    @property
    def classes(self) -> Array | None:
        """The labels in the order of the scores, for a classifier whose outputs are labels and scores."""

    def export(self, example: Example, path: Path) -> None:
        """Write it as ONNX; raises whatever its library raises, if it can't."""

    def predict(self, example: Example) -> list[Array]:
        """Return its own outputs, in the order of the ONNX model's, of which further ones aren't compared."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A library.

    name     for messages
    extra    of driftline, which installs what the conversion needs
    modules  that it needs
    loader   our module for it, with a function `native`
    """

    name: str
    extra: str
    modules: tuple[str, ...]
    loader: str


KINDS = {
    "sklearn": Kind("scikit-learn", "sklearn", ("sklearn", "skl2onnx"), "sklearn"),
    "xgboost": Kind("XGBoost", "xgboost", ("xgboost", "onnxmltools"), "xgboost"),
    "lightgbm": Kind("LightGBM", "lightgbm", ("lightgbm", "onnxmltools"), "lightgbm"),
    "torch": Kind("PyTorch", "torch", ("torch", "onnxscript"), "torch"),
    "keras": Kind("Keras", "keras", ("tensorflow", "keras", "tf2onnx"), "keras"),
    "spark": Kind("Spark ML", "spark", ("pyspark", "onnxmltools"), "spark"),
    "pickle": Kind("pickle", "sklearn", ("joblib",), ""),
}
"""Libraries by the names that `Source` finds; a pickle turns out to be one of the others."""


def load(source: Source, trust: bool) -> Native:
    """Load a model with its library.

    Raises BadRequest if that is not installed, if it is a pickle without `trust`, or if it can't be loaded.
    """
    kind = source.kind
    if source.pickled and not trust:
        raise BadRequest(
            f"{source.path}: a pickle, which runs whatever code is in it when it is loaded; "
            "if you know where it comes from, --trust"
        )
    require(kind)
    model: Any = source.path
    try:
        if source.pickled and kind != "torch":
            model = unpickle(source.path)
            kind = kind_of(model, source)
            require(kind)
        native: Native = import_module(f"driftline.convert.{KINDS[kind].loader}").native(model, source)
    except BadRequest:
        raise
    except Exception as error:  # these libraries may raise anything for a file that is not theirs
        raise BadRequest(f"{source.path}: can't be loaded: {reason(error)}") from error
    return native


def reason(error: Exception) -> str:
    """Return a library's error message in one line; of XGBoost's C++, without the place in its code."""
    text = str(error)
    if "Stack trace:" in text:
        text = _SOURCE_LOCATION.sub("", text.partition("Stack trace:")[0].strip()).partition("\n")[0]
    return f"{type(error).__name__}: {' '.join(text.split())[:500]}"


def require(kind: str) -> None:
    """Raise BadRequest, with the extra that installs it, if a library is missing."""
    for module in KINDS[kind].modules:
        try:
            import_module(module)
        except ImportError as error:
            raise BadRequest(
                f"{KINDS[kind].name} models are converted with {module}, which can't be imported ({error}); "
                f"pip install 'driftline[{KINDS[kind].extra}]'"
            ) from error


def unpickle(path: Path) -> Any:
    """Return the content of a pickle; joblib reads its own and plain ones."""
    import joblib

    return joblib.load(path)


def kind_of(model: Any, source: Source) -> str:
    """Return the library of a model."""
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    for kind in ("xgboost", "lightgbm", "torch", "keras", "sklearn"):
        if kind in packages:
            return kind
    names = ", ".join(library.name for library in KINDS.values() if library.loader)
    actual = f"{type(model).__module__}.{type(model).__qualname__}"
    raise BadRequest(
        f"{source.path}: expected a model of {names}, got {actual}; "
        f"an MLflow model is served as it is by {TRUST}"
    )
