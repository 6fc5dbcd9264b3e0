"""MLflow's description of a model, the file `MLmodel`: flavors, origin, inputs and outputs.

A signature is JSON in YAML: `signature.inputs`, `.outputs` and `.params` are each a text that holds a list.
The format is that of mlflow/types/schema.py.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from driftline.errors import ModelError

MLMODEL = "MLmodel"

SCALARS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
"""The types of values, as MLflow names them: `integer` and `float` have 32 bits, `long` and `double` 64."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The type of a column's values.

    name    one of SCALARS, or `array`, `map`, `object`, `any`, `sparkml_vector`
    items   the type of an array's elements or a map's values
    fields  an object's properties
    """

    name: str
    items: ColumnType | None = None
    fields: tuple[Column, ...] = ()

    def __str__(self) -> str:
        if self.items is not None:
            return f"{self.name}<{self.items}>"
        properties = ", ".join(map(str, self.fields))
        return f"{self.name}{{{properties}}}" if properties else self.name


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, by name or, in a schema without names, by position."""

    name: str | None
    type: ColumnType
    required: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.type}" + ("" if self.required else " (optional)")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor; -1 is a dimension that may vary. A dtype `str` or `object` is of text."""

    name: str | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a request may set; a shape of (-1,) is a list, None a single value."""

    name: str
    type: ColumnType
    default: object
    shape: tuple[int, ...] | None = None


Schema = tuple[Column, ...] | tuple[Tensor, ...]
"""Columns or tensors, never both; either all have names or none."""


@dataclass(frozen=True, slots=True)
class MlflowSignature:
    """A model's inputs, outputs and parameters, as it was logged; an empty schema declares nothing."""

    inputs: Schema = ()
    outputs: Schema = ()
    params: tuple[Parameter, ...] = ()

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str) -> MlflowSignature:
        """Read the value of `signature` in an MLmodel; ModelError, beginning with `where`, if it is wrong."""
        keys = ("inputs", "outputs", "params")
        inputs, outputs, params = (
            _parse_list(document.get(key), f"{where}: signature.{key}") for key in keys
        )
        return cls(
            _schema(inputs, f"{where}: signature.inputs"),
            _schema(outputs, f"{where}: signature.outputs"),
            tuple(_parameter(item, f"{where}: signature.params") for item in params),
        )


@dataclass(frozen=True, slots=True)
class Predictions:
    """The form of a Python model's predictions, on which MLflow's responses depend.

    form   'table', of rows and columns; 'mapping', of lists; or 'array', without names
    names  of its columns or lists, in their order
    """

    form: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MlModel:
    """The content of an MLmodel.

    flavors   how the model can be loaded: {"onnx": {"data": "model.onnx", ...}, "python_function": ...}
    run_id    the run that logged it, if any
    model_id  its logged model, of MLflow 3
    example   the file with an input example, if any
    metadata  added when it was logged
    """

    flavors: Mapping[str, Mapping[str, Any]]
    signature: MlflowSignature | None = None
    run_id: str | None = None
    model_id: str | None = None
    example: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> MlModel:
        """Read an MLmodel file; ModelError, with its path and the place, if it is invalid."""
        document = read_yaml(path)
        flavors = document.get("flavors")
        if not isinstance(flavors, dict) or not all(isinstance(value, dict) for value in flavors.values()):
            raise ModelError(f"{path}: flavors: expected mappings by flavor, got {reprlib.repr(flavors)}")
        signature, example = document.get("signature"), document.get("saved_input_example_info")
        if signature is not None and not isinstance(signature, dict):
            raise ModelError(f"{path}: signature: expected a mapping, got {reprlib.repr(signature)}")
        return cls(
            flavors,
            MlflowSignature.parse(signature, str(path)) if signature else None,
            _text_or_none(document.get("run_id")),
            _text_or_none(document.get("model_id")),
            _text_or_none(example.get("artifact_path")) if isinstance(example, dict) else None,
            metadata if isinstance(metadata := document.get("metadata"), dict) else {},
        )


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in an MLmodel file; ModelError, with its path, if there is none."""
    import yaml  # most models have no MLmodel

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: expected a mapping, got {type(document).__name__}")
    return document


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _parse_list(text: object, where: str) -> list[dict[str, Any]]:
    """Return the list in a schema's JSON."""
    if text is None:
        return []
    try:
        items = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ModelError(f"{where}: expected the JSON of a list of objects, got {text!r:.200}")
    return items


def _schema(items: list[dict[str, Any]], where: str) -> Schema:
    tensors = [item for item in items if item.get("type") == "tensor"]
    if tensors and len(tensors) < len(items):
        raise ModelError(f"{where}: expected tensors or columns, got both")
    schema: Schema = (
        tuple(_tensor(item, where) for item in items)
        if tensors
        else tuple(_column(item, where) for item in items)
    )
    names = [item.name for item in schema if item.name is not None]
    if len(set(names)) < len(names) or 0 < len(names) < len(schema):
        raise ModelError(f"{where}: expected different names, or none at all, got {names!r:.200}")
    return schema


def _tensor(item: dict[str, Any], where: str) -> Tensor:
    spec = item.get("tensor-spec")
    try:
        assert isinstance(spec, dict)
        dtype, shape = np.dtype(spec["dtype"]), tuple(spec["shape"])
        assert all(type(size) is int and size >= -1 for size in shape)
    except (AssertionError, KeyError, TypeError, ValueError):
        raise ModelError(f"{where}: tensor-spec: expected dtype and shape, got {spec!r:.200}") from None
    return Tensor(_name(item), dtype, shape)


def _column(item: dict[str, Any], where: str) -> Column:
    return Column(_name(item), _type(item, where), bool(item.get("required", True)))


def _name(item: dict[str, Any]) -> str | None:
    name = item.get("name")
    return None if name is None else str(name)


def _parameter(item: dict[str, Any], where: str) -> Parameter:
    # Before MLflow 2.7, the type was under `dtype`.
    column_type = _type({"type": item.get("dtype"), **item}, where)
    shape = item.get("shape")
    return Parameter(
        str(item.get("name")), column_type, item.get("default"), None if shape is None else tuple(shape)
    )


def _type(item: dict[str, Any], where: str) -> ColumnType:
    match item:
        case {"type": str(name)} if name in SCALARS or name in ("any", "sparkml_vector"):
            return ColumnType(name)
        case {"type": "array", "items": dict(items)}:
            return ColumnType("array", _type(items, where))
        case {"type": "map", "values": dict(items)}:
            return ColumnType("map", _type(items, where))
        case {"type": "object", "properties": dict(properties)}:
            fields = (
                Column(name, _type(value, where), bool(value.get("required", True)))
                for name, value in properties.items()
                if isinstance(value, dict)
            )
            return ColumnType("object", fields=tuple(fields))
    raise ModelError(f"{where}: expected a type such as {', '.join(SCALARS)}, got {item!r:.200}")
