"""Rows on which a conversion is checked."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from driftline.convert.source import Source
from driftline.errors import BadRequest, listed
from driftline.mlmodel import Column, MlflowSignature
from driftline.tensors import Array

MAX_ROWS = 10_000
"""Maximum number of rows compared."""

_DTYPES = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}


@dataclass(frozen=True, slots=True)
class Example:
    """Rows in the form that the model's library takes: a DataFrame, an array, or arrays by name."""

    data: Any

    @classmethod
    def read(
        cls, source: Source, data: Path | None, columns: tuple[str, ...], texts: Collection[str] = ()
    ) -> Example:
        """Return the rows of a file, or else the input example of an MLflow model.

        columns  that the model takes, if it knows them; others in the file are left out
        texts    those of them that it knows to be text; MLflow's signature may name more

        Raises BadRequest if there are no rows, or if a column is missing.
        """
        inputs = source.mlflow.signature.inputs if source.mlflow and source.mlflow.signature else ()
        if data is not None:
            declared = {
                str(item.name) for item in inputs if isinstance(item, Column) and item.type.name == "string"
            }
            example = cls(_read_file(data, declared.union(texts)))
        elif source.mlflow is not None and source.folder is not None and source.mlflow.example is not None:
            path = source.folder / source.mlflow.example
            example = cls(_read_mlflow_example(path, source.mlflow.signature))
        else:
            raise BadRequest(
                f"{source.path}: it has no input example; expected rows to compare on: --data FILE"
            )
        columns = columns or tuple(item.name for item in inputs if item.name is not None)
        if example.is_table and columns:
            names, where = example.names, data or source.path
            selected = [_resolve_name(name, names, columns, where) for name in columns]
            example = cls(example.data[selected])
        if not example.rows:
            raise BadRequest(f"{data or source.path}: expected rows, got none")
        return example

    @property
    def is_table(self) -> bool:
        """Whether it is a DataFrame."""
        return hasattr(self.data, "columns")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, if it is a DataFrame."""
        return tuple(map(str, self.data.columns)) if self.is_table else ()

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.data.values()))) if isinstance(self.data, dict) else len(self.data)

    @property
    def arrays(self) -> dict[str, Array]:
        """Columns as (rows, 1), named arrays unchanged, a single array under ''."""
        if self.is_table:
            return {str(name): self.data[name].to_numpy().reshape(-1, 1) for name in self.data.columns}
        return dict(self.data) if isinstance(self.data, dict) else {"": np.asarray(self.data)}

    def matrix(self, dtype: type[np.generic] = np.float32) -> Array:
        """Return all data as one array of numbers; BadRequest, with the column, if it has anything else."""
        arrays = self.arrays
        for name, array in arrays.items():
            if array.dtype == object and not isinstance(array.flat[0], (int, float, type(None))):
                raise BadRequest(f"column {name!r}: expected numbers, got {array.flat[0]!r:.60}")
        numbers = [array.astype(dtype) for array in arrays.values()]
        return numbers[0] if len(numbers) == 1 else np.concatenate(numbers, axis=1)


def _resolve_name(name: str, names: Sequence[str], columns: Collection[str], where: Path | str) -> str:
    """Return the name in the data of a column that the model takes: LightGBM knows spaces as underscores.

    Raises BadRequest if it is missing, or could be one of several that the model does not name.
    """
    candidates = [
        label
        for label in names
        if label == name or (label.replace(" ", "_") == name and label not in columns)
    ]
    if not candidates:
        raise BadRequest(f"{where}: column {name!r}: the model takes it, there is none")
    if len(candidates) > 1:
        raise BadRequest(
            f"{where}: column {name!r}: expected one, got {listed(map(repr, candidates))}, "
            "which LightGBM does not tell apart"
        )
    return candidates[0]


def _read_file(path: Path, texts: Collection[str]) -> Any:
    if path.suffix.lower() in (".npy", ".npz"):
        try:
            loaded = np.load(path, allow_pickle=False)
            return dict(loaded) if path.suffix.lower() == ".npz" else loaded[:MAX_ROWS]
        except (OSError, ValueError) as error:
            raise BadRequest(f"{path}: {error}") from error
    import pyarrow as pa

    from driftline.tables import Source as Table

    table = Table(path)
    batches = list(islice(table.batches(table.schema.names, texts), 1))
    return pa.Table.from_batches(batches, schema=None if batches else table.schema)[:MAX_ROWS].to_pandas()


def _read_mlflow_example(path: Path, signature: MlflowSignature | None) -> Any:
    """Read MLflow's JSON of an example: a table split into columns and data, arrays by name, or one array."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path}: {error}") from error
    if isinstance(document, dict) and "data" in document:
        import pandas as pd

        frame = pd.DataFrame(document["data"], columns=document.get("columns"))
        types = (
            {item.name: item.type.name for item in signature.inputs if isinstance(item, Column)}
            if signature
            else {}
        )
        dtypes = {name: _DTYPES[kind] for name, kind in types.items() if kind in _DTYPES and name in frame}
        return frame.astype(dtypes)
    if isinstance(document, dict):
        return {name: np.asarray(values) for name, values in document.items()}
    dtype = None
    if signature is not None and len(signature.inputs) == 1 and not isinstance(signature.inputs[0], Column):
        dtype = signature.inputs[0].dtype
    return np.asarray(document, dtype)
