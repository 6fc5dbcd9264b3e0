"""Convert another library's model to a bundle: find, load, export, compare, and only then publish."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driftline.convert.example import Example
from driftline.convert.kinds import KINDS, TRUST, load, reason
from driftline.convert.parity import Difference, largest_difference
from driftline.convert.source import Source, describe
from driftline.engine.bundle import MODEL, Bundle
from driftline.engine.model import Model
from driftline.engine.session import COLUMNS
from driftline.errors import BadRequest, DriftlineError
from driftline.files import unfinished


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a conversion.

    kind        the model's library
    rows        that were compared
    difference  the largest one
    """

    kind: str
    rows: int
    difference: Difference


def convert(
    source: Path,
    output: Path,
    data: Path | None,
    tolerance: float,
    trust: bool,
    progress: Callable[[str], None],
) -> Report:
    """Convert a model to ONNX and write a version's folder, ready to be registered.

    source     an MLflow model's folder, or a file of a library
    output     the folder to make
    data       a file of rows to compare on; the input example of the MLflow model if None
    tolerance  the largest difference from the library's own predictions: absolute below 1, relative above
    trust      whether a pickle may be loaded, which runs whatever code is in it
    progress   called with a description of each step

    Raises BadRequest if anything is missing, if the library can't convert the model, and if the result
    predicts differently: then nothing is left behind.
    """
    if output.exists():
        raise BadRequest(f"{output}: expected a folder that does not exist yet")
    origin = Source.open(source)
    progress(f"loading with {KINDS[origin.kind].name}")
    native = load(origin, trust)
    example = Example.read(origin, data, native.columns, native.texts)
    with _new_folder(output) as folder:
        progress("converting")
        try:
            native.export(example, folder / MODEL)
            if native.columns:
                _keep_names(example.names or native.columns, folder / MODEL)
        except (DriftlineError, OSError):  # a full disk is not the model's fault
            raise
        except Exception as error:  # whatever these libraries raise
            raise BadRequest(
                f"{source}: can't be converted to ONNX: {reason(error)}; "
                f"an MLflow model is served as it is by {TRUST}"
            ) from error
        progress(f"comparing {example.rows} rows")
        model = Model(Bundle.open(folder))
        difference = largest_difference(model, native, example)
        if not difference.value <= tolerance:
            raise BadRequest(
                f"{source}: the ONNX model predicts differently: {difference}, at most {tolerance:g}"
            )
        describe(origin, folder)
    return Report(KINDS[native.kind].name, example.rows, difference)


def _keep_names(columns: tuple[str, ...], path: Path) -> None:
    """Write the column names into a model with one input, so that it takes tables by name."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    if len(model.graph.input) == 1:
        model.metadata_props.add(key=COLUMNS, value=json.dumps(columns))
        path.write_bytes(model.SerializeToString())


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """Yield a folder to work in, which becomes `output` on success, and is removed on failure."""
    folder = unfinished(output)
    try:
        folder.mkdir()
    except OSError as error:
        raise BadRequest(f"{output}: can't be made: {error.strerror}") from error
    try:
        yield folder
        folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
