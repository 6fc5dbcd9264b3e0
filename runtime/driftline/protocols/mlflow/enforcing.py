"""Enforces an MLmodel's signature: what clients of MLflow may send, and what it is converted to.

As in MLflow, columns that are not declared are ignored, and a table is required where columns are declared,
tensors where tensors are.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Protocol

from driftline.errors import BadRequest, SignatureViolation, shown
from driftline.mlmodel import Column, MlflowSignature, Parameter, Tensor
from driftline.protocols.mlflow import casting
from driftline.protocols.mlflow.frames import Frame, from_records, from_rows, select, tensors_of, wanted
from driftline.protocols.v1 import columns_of, inputs_of_rows
from driftline.tensors import Signature, Tensors


class Intake(Protocol):
    """Converts a request's data. Methods raise BadRequest, or SignatureViolation for declared types.

    by_row  whether the response has an object for each row, rather than a list for each output
    """

    def wanted(self, names: Sequence[str]) -> Container[str]:
        """Return which of a table's columns are taken."""
        ...

    def table(self, frame: Frame, typed: bool = False) -> tuple[Tensors, bool]:
        """Return a model's inputs from a table, and by_row; `typed`: its columns have types of their own."""
        ...

    def tensors(self, value: object) -> tuple[Tensors, bool]:
        """Do the same for `inputs`."""
        ...

    def instances(self, value: object) -> tuple[Tensors, bool]:
        """Do the same for `instances`."""
        ...


def intake_of(signature: Signature, declared: MlflowSignature | None) -> Intake:
    """Return the intake of a model, with the signature that was logged with it, if any."""
    schema = declared.inputs if declared is not None else ()
    columns = tuple(item for item in schema if isinstance(item, Column))
    if columns:
        return Columns(signature, columns)
    tensors = tuple(item for item in schema if isinstance(item, Tensor))
    return DeclaredTensors(signature, tensors) if tensors else Undeclared(signature)


class Undeclared:
    """Without a declaration: everything that the model itself can take is accepted."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature

    def wanted(self, names: Sequence[str]) -> Container[str]:
        """See Intake."""
        return wanted(self._signature, names)

    def table(self, frame: Frame, typed: bool = False) -> tuple[Tensors, bool]:
        """Return the columns unchanged."""
        return tensors_of(frame, self._signature), True

    def tensors(self, value: object) -> tuple[Tensors, bool]:
        """Read the only input's values, or values by input name."""
        return self._signature.inputs_of(value), False

    def instances(self, value: object) -> tuple[Tensors, bool]:
        """Do the same row by row."""
        return inputs_of_rows(self._signature, value), False


class Columns:
    """With declared columns: all data is read as a table of them."""

    def __init__(self, signature: Signature, schema: tuple[Column, ...]) -> None:
        self._signature = signature
        self._schema = schema
        self._has_names = schema[0].name is not None
        self._names = frozenset(str(column.name) for column in schema)

    def wanted(self, names: Sequence[str]) -> Container[str]:
        """See Intake."""
        return self._names if self._has_names else names

    def table(self, frame: Frame, typed: bool = False) -> tuple[Tensors, bool]:
        """Convert the declared columns to their declared types."""
        return self._table(frame, casting.convert_typed if typed else casting.convert_framed)

    def _table(self, frame: Frame, convert: Callable[[object, Any, str], Any]) -> tuple[Tensors, bool]:
        names_sent = tuple(map(str, frame.names))  # MLflow declares pandas' own names, 0, 1, ..., as numbers
        names = tuple(str(column.name) for column in self._schema) if self._has_names else names_sent
        declared = dict(zip(names, self._schema, strict=False))
        sent = Frame(names_sent, frame.columns).by_name()
        columns = {
            name: convert(name, sent[name], column.type.name)
            for name, column in declared.items()
            if name in sent
        }
        missing = [name for name, column in declared.items() if column.required and name not in columns]
        if missing or len(declared) < len(self._schema):
            raise SignatureViolation(
                f"missing columns: {', '.join(map(repr, missing)) or 'some'}; "
                f"expected {'; '.join(map(str, self._schema))}; got {shown(list(sent))}"
            )
        if not columns:
            raise BadRequest(f"expected any of {'; '.join(map(str, self._schema))}; got {shown(list(sent))}")
        absent = [None] * frame.rows
        table = Frame(tuple(declared), [columns.get(name, absent) for name in declared])
        return tensors_of(table, self._signature), True

    def tensors(self, value: object) -> tuple[Tensors, bool]:
        """Read values by column name, rows of them, or the values of the only column."""
        if type(value) is dict:
            return self._by_name(value)
        if type(value) is list and value and type(value[0]) is dict:
            return self._table(from_records(value, "inputs"), casting.convert)
        if not self._has_names and type(value) is list:
            return self._table(from_rows(None, value), casting.convert)
        if self._has_names and len(self._schema) == 1 and type(value) is list:
            return self._by_name({str(self._schema[0].name): value})
        raise SignatureViolation(
            f"expected values by column name: {'; '.join(map(str, self._schema))}; got {shown(value)}"
        )

    def instances(self, value: object) -> tuple[Tensors, bool]:
        """Do the same; all rows must have the same names."""
        columns = columns_of(value) if type(value) is list and value else value
        return self.tensors(columns)

    def _by_name(self, values: Mapping[str, Any]) -> tuple[Tensors, bool]:
        if not self._has_names:
            raise BadRequest(f"expected a list of rows, as columns have no names, got {shown(values)}")
        columns = {name: value if type(value) is list else [value] for name, value in values.items()}
        lengths = set(map(len, columns.values()))
        if len(lengths) != 1:
            sizes = {name: len(column) for name, column in columns.items()}
            raise SignatureViolation(f"expected columns of one length, got {shown(sizes)}")
        for column in self._schema:
            values_sent = columns.get(str(column.name), [])
            if column.type.name in casting.DTYPES and values_sent and type(values_sent[0]) is list:
                raise SignatureViolation(f"column {column.name!r}: expected {column.type}, got lists")
        return self._table(Frame(tuple(columns), list(columns.values())), casting.convert)


class DeclaredTensors:
    """With declared tensors: a table is read as tensors, too."""

    def __init__(self, signature: Signature, schema: tuple[Tensor, ...]) -> None:
        self._signature = signature
        self._has_names = schema[0].name is not None
        input_name = signature.inputs[0].name
        self._schema = {input_name if tensor.name is None else tensor.name: tensor for tensor in schema}

    def wanted(self, names: Sequence[str]) -> Container[str]:
        """See Intake."""
        return self._schema if self._has_names else wanted(self._signature, names)

    def table(self, frame: Frame, typed: bool = False) -> tuple[Tensors, bool]:
        """Read the columns with the tensors' names; without names, all of them side by side."""
        if self._has_names:
            columns = {str(name): column for name, column in frame.by_name().items()}
        else:
            (name,) = self._schema
            frame = select(self._signature.inputs[0], frame)
            is_single = len(frame.columns) == 1
            columns = {
                name: frame.columns[0]
                if is_single
                else [list(row) for row in zip(*frame.columns, strict=True)]
            }
        return self._read(
            {name: self._column(name, columns[name]) for name in self._schema if name in columns}
        )

    def _column(self, name: str, column: Any) -> Any:
        """Return a column's values in the shape of its tensor: (rows, 1) if it is declared so."""
        values = column.tolist() if hasattr(column, "tolist") else column
        single = self._schema[name].shape[1:] == (1,) and values and type(values[0]) is not list
        return [[value] for value in values] if single else values

    def tensors(self, value: object) -> tuple[Tensors, bool]:
        """Read values by tensor name, or the values of the only one."""
        if not self._has_names and (type(value) is dict or value is None):
            raise BadRequest(f"expected a list, as the model's input has no name, got {shown(value)}")
        if type(value) is dict:
            return self._read(value)
        if len(self._schema) > 1:
            raise SignatureViolation(
                f"expected values by input name: {'; '.join(map(str, self._schema.values()))}; "
                f"got {shown(value)}"
            )
        return self._read(dict.fromkeys(self._schema, value))

    def instances(self, value: object) -> tuple[Tensors, bool]:
        """Do the same row by row."""
        columns = columns_of(value) if type(value) is list and value else value
        if type(columns) is dict and not self._has_names:
            raise SignatureViolation(
                f"expected a list a row, as the model's input has no name, got {shown(value)}"
            )
        return self.tensors(columns)

    def _read(self, values: Mapping[str, Any]) -> tuple[Tensors, bool]:
        missing = [name for name in self._schema if name not in values]
        if missing:
            raise SignatureViolation(
                f"missing inputs: {', '.join(map(repr, missing))}; "
                f"expected {'; '.join(map(str, self._schema.values()))}; got {shown(list(values))}"
            )
        arrays = {name: casting.tensor(tensor, name, values[name]) for name, tensor in self._schema.items()}
        is_single = len(arrays) == len(self._signature.inputs) == 1
        return self._signature.inputs_of(arrays.popitem()[1] if is_single else arrays), False


def check_parameters(parameters: object, declared: tuple[Parameter, ...]) -> None:
    """Raise SignatureViolation if parameters do not have their declared types; others are ignored.

    An ONNX model has no use for them, so they are only checked.
    """
    if not declared or parameters is None:
        return
    if type(parameters) is not dict:
        raise SignatureViolation(f"'params': expected an object, got {shown(parameters)}")
    for parameter in declared:
        value = parameters.get(parameter.name)
        values = [value] if parameter.shape is None else value
        if value is not None and (
            type(values) is not list or not all(_has_type(parameter, item) for item in values)
        ):
            list_of = "" if parameter.shape is None else "a list of "
            raise SignatureViolation(
                f"parameter {parameter.name!r}: expected {list_of}{parameter.type}, got {shown(value)}"
            )


_PARAMETERS: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "string": (str,),
    "datetime": (str,),
    "binary": (str,),
    "object": (dict,),
}


def _has_type(parameter: Parameter, value: object) -> bool:
    return type(value) in _PARAMETERS.get(parameter.type.name, (type(value),))
