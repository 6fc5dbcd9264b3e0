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

_PLACE = re.compile(r"\[\d+:\d+:\d+\] \S+:\d+: ")


class Native(Protocol):
    """A model as its own library has it."""

    kind: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that it takes, in order; none if it does not know."""

    @property
    def texts(self) -> Collection[str]:
        """Which of the columns it knows to be text, whatever the values in a CSV file look like."""

    @property
    def classes(self) -> Array | None:
        """Of a classifier that says labels and then their scores: the labels in the order of the scores."""

    def export(self, example: Example, path: Path) -> None:
        """Write it as ONNX; whatever its library raises, if it can't."""

    def predict(self, example: Example) -> list[Array]:
        """What it says itself, in the order of the ONNX model's outputs; further ones aren't compared."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A library.

    name     for people
    extra    of driftline, that installs what conversion needs
    modules  that it needs
    home     our module that does it, with a function `native`
    """

    name: str
    extra: str
    modules: tuple[str, ...]
    home: str


KINDS = {
    "sklearn": Kind("scikit-learn", "sklearn", ("sklearn", "skl2onnx"), "sklearn"),
    "xgboost": Kind("XGBoost", "xgboost", ("xgboost", "onnxmltools"), "xgboost"),
    "lightgbm": Kind("LightGBM", "lightgbm", ("lightgbm", "onnxmltools"), "lightgbm"),
    "torch": Kind("PyTorch", "torch", ("torch", "onnxscript"), "torch"),
    "keras": Kind("Keras", "keras", ("tensorflow", "keras", "tf2onnx"), "keras"),
    "spark": Kind("Spark ML", "spark", ("pyspark", "onnxmltools"), "spark"),
    "pickle": Kind("pickle", "sklearn", ("joblib",), ""),
}
"""By the names that `Source` finds; a pickle turns out to be one of the others."""


def load(source: Source, trust: bool) -> Native:
    """Load a model by its library.

    Raises BadRequest if that is not installed, if it is a pickle and nobody vouches for it, or if it can't be
    loaded.
    """
    kind = source.kind
    if source.pickled and not trust:
        raise BadRequest(
            f"{source.path}: a pickle, which runs whatever code is in it when it is loaded; "
            "if you know where it comes from, --trust"
        )
    require(kind)
    found: Any = source.path
    try:
        if source.pickled and kind != "torch":
            found = unpickle(source.path)
            kind = kind_of(found, source)
            require(kind)
        native: Native = import_module(f"driftline.convert.{KINDS[kind].home}").native(found, source)
    except BadRequest:
        raise
    except Exception as error:  # whatever a file that is none of theirs makes these libraries raise
        raise BadRequest(f"{source.path}: can't be loaded: {reason(error)}") from error
    return native


def reason(error: Exception) -> str:
    """What a library says is wrong, in a line; of XGBoost's C++, not where in its code that was."""
    text = str(error)
    if "Stack trace:" in text:
        text = _PLACE.sub("", text.partition("Stack trace:")[0].strip()).partition("\n")[0]
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
    """What a pickle holds; joblib reads its own and plain ones."""
    import joblib

    return joblib.load(path)


def kind_of(model: Any, source: Source) -> str:
    """Whose model an object is."""
    homes = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    for kind in ("xgboost", "lightgbm", "torch", "keras", "sklearn"):
        if kind in homes:
            return kind
    names = ", ".join(one.name for one in KINDS.values() if one.home)
    came = f"{type(model).__module__}.{type(model).__qualname__}"
    raise BadRequest(
        f"{source.path}: expected a model of {names}, came {came}; "
        f"an MLflow model is served as it is by {TRUST}"
    )
