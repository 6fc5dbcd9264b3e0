"""Arrow IPC streams: input columns in, output columns out, without copies where the datatypes allow."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from driftline.columns import decode_dictionary, is_lists, items_of, names_of
from driftline.config import Batching
from driftline.errors import BadRequest
from driftline.protocols import matching, sizes
from driftline.protocols.codec import InferRequest, check_limit, row_limit
from driftline.tensors import Array, Signature, Tensors, TensorSpec, check_range

BLOCK_ROWS = 1_024


class ArrowCodec:
    """Reads a stream of record batches as one request to a version of a model, and answers with a stream.

    `Columns` maps columns to the model's inputs. The response has a column for each output, or NAME_0,
    NAME_1, ... for an output of several, and the metadata model_name and model_version.

    limits  a request with more rows, more bytes when decompressed or more bytes of values than may wait is
            refused before all of it is in memory
    """

    media_type: ClassVar[bytes] = b"application/vnd.apache.arrow.stream"

    def __init__(self, signature: Signature, name: str, version: int, limits: Batching | None = None) -> None:
        limits = limits or Batching()
        self._max_bytes = limits.max_queue_bytes
        self._max_rows = row_limit(signature, limits)
        self._signature = signature
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._metadata = {"model_name": name, "model_version": str(version)}

    def decode(self, body: bytes, json_length: int | None = None) -> InferRequest:
        """Read a request's body.

        Raises BadRequest if it is no stream or does not fit the signature, TooLarge if it exceeds the limits.
        """
        try:
            check_limit(sizes.size_of(body), self._max_bytes, "bytes when decompressed")
            with pa.ipc.open_stream(body) as reader:
                rows = reader.read_all()
            check_limit(rows.num_rows, self._max_rows, "rows")
            rows = rows.combine_chunks()
            rows.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, struct.error) as error:
            reason = " ".join(str(error).split())
            raise BadRequest(f"the request is not a valid Arrow stream: {reason}") from error
        for field in rows.schema:
            if not _has_arrays(field.type):
                raise BadRequest(f"column {field.name!r}: came {field.type}, of which pyarrow has no arrays")
        batches = rows.to_batches()
        if not batches:
            raise BadRequest("the request: expected rows in the Arrow stream, got none")
        columns = Columns(self._signature.inputs, rows.schema)
        # The other columns do not grow, and checking them would cost a noticeable microsecond each.
        expanding = {field.name for field in rows.schema if sizes.may_expand(field.type)} & {*columns.names}
        size = sum(sizes.decoded_bytes(batches[0].column(name)) for name in expanding)
        check_limit(size, self._max_bytes, "bytes of values")
        return InferRequest(columns.tensors(batches[0]), self._outputs)

    def encode(self, request: InferRequest, outputs: Tensors) -> tuple[bytes, int | None]:
        """Return the body of the response."""
        rows = len(next(iter(request.inputs.values())))
        response = table({}, {name: outputs[name] for name in request.outputs}, rows)
        response = response.replace_schema_metadata(self._metadata)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, response.schema) as writer:
            writer.write_table(response)
        return sink.getvalue().to_pybytes(), None


def _has_arrays(kind: Any) -> bool:
    """Return whether pyarrow has arrays of a type; it reads and checks columns of some without."""
    if kind.id in (pa.lib.Type_INTERVAL_MONTHS, pa.lib.Type_INTERVAL_DAY_TIME):
        return False
    return all(_has_arrays(kind.field(index).type) for index in range(kind.num_fields))


class Columns:
    """Maps the columns of a file to the inputs of a model.

    An input takes the columns that it knows by name, else the column of its own name. An input of several
    columns takes the list column of its name, else NAME_0, NAME_1, ..., else, if it is the model's only one
    and `matching.by_position`, all columns in order: without the kept ones (an id, say) if that leaves as
    many as it needs, else with them.

    keep   columns to read as well, whether they are inputs or not
    extra  columns to read as well, which are inputs only by their names

    names    of all columns to read
    renamed  the columns of each input whose columns have other names than its own
    texts    the columns that inputs take as text
    """

    def __init__(
        self, inputs: Sequence[TensorSpec], schema: Any, keep: Sequence[str] = (), extra: Sequence[str] = ()
    ) -> None:
        for name in keep:
            if name not in schema.names:
                raise BadRequest(f"column {name!r}: there is none; the data has: {', '.join(schema.names)}")
        self._inputs = inputs
        self._sources = {spec.name: self._source(spec, schema.names, keep, extra) for spec in inputs}
        self.texts = frozenset(
            name for spec in inputs if spec.datatype.name == "BYTES" for name in self._sources[spec.name]
        )
        source_names = (name for source in self._sources.values() for name in source)
        self.names = tuple(dict.fromkeys((*keep, *extra, *source_names)))
        for name in self.names:
            if schema.names.count(name) > 1:
                raise BadRequest(f"column {name!r}: expected it once, got {schema.names.count(name)} times")
        self.renamed = {
            name: source
            for name, source in self._sources.items()
            if source != names_of(name, len(source)) and not is_lists(schema.field(source[0]).type)
        }

    def _source(
        self, spec: TensorSpec, names: Sequence[str], keep: Sequence[str], extra: Sequence[str]
    ) -> tuple[str, ...]:
        if columns := matching.columns_of(spec, names):
            return columns
        candidates = tuple(name for name in names if name not in extra)
        if len(self._inputs) == 1 and len(spec.shape) == 2:
            for columns in (tuple(name for name in candidates if name not in keep), candidates):
                if columns and spec.shape[1] in (-1, len(columns)) and matching.by_position(spec, columns):
                    return columns
        raise matching.missing(spec, candidates)

    def tensors(self, batch: Any, first: int = 0) -> Tensors:
        """Convert a record batch, whose first row has the number `first`, to input tensors.

        BadRequest names a column of the wrong type, and the row of a list of the wrong length.
        """
        tensors = {spec.name: self._tensor(spec, batch, first) for spec in self._inputs}
        for spec in self._inputs:
            shape = tensors[spec.name].shape
            if not spec.accepts(shape):
                raise BadRequest(f"input {spec.name!r}: expected shape {list(spec.shape)}, got {list(shape)}")
        return tensors

    def _tensor(self, spec: TensorSpec, batch: Any, first: int) -> Array:
        source = self._sources[spec.name]
        column = batch.column(source[0])
        if len(source) == 1 and len(spec.shape) == 1:
            return values(column, spec, source[0])
        if len(source) == 1 and is_lists(column.type):
            return rows_of_lists(column, spec, source[0], first)
        columns = [values(batch.column(name), spec, name) for name in source]
        matrix = np.empty((batch.num_rows, len(columns)), spec.datatype.dtype)
        # The only copy, in blocks of rows that stay in the cache from column to column.
        for start in range(0, batch.num_rows, BLOCK_ROWS):
            block = matrix[start : start + BLOCK_ROWS]
            for index, column in enumerate(columns):
                block[:, index] = column[start : start + BLOCK_ROWS]
        return matrix


def rows_of_lists(lists: Any, spec: TensorSpec, name: str, first: int = 0) -> Array:
    """Convert a column of lists, one for each row, flat or nested like the dimensions of `spec`, to a tensor.

    BadRequest names the row, counted from `first` on, whose list does not have the length that `spec` says,
    or, where any will do, the length of the first row's.
    """
    where, shape = f"input {spec.name!r}", spec.shape[1:]
    kind, depth = lists.type, 0
    while is_lists(kind):
        kind, depth = kind.value_type, depth + 1
    items = lists
    tensor_shape: tuple[int, ...] = (len(lists),)
    if depth == 1:
        items, width = items_of(lists, where, -1 if -1 in shape else prod(shape), first)
        tensor_shape += _row_shape(shape, width)
    else:
        for size in shape if depth == len(shape) else ():
            items, width = items_of(items, where, size, first, prod(tensor_shape[1:]))
            tensor_shape += (width,)
    if len(tensor_shape) != len(spec.shape):
        raise BadRequest(f"{where}: expected lists that make shape {list(spec.shape)}, got {lists.type}")
    return values(items, spec, name).reshape(tensor_shape)


def _row_shape(shape: tuple[int, ...], width: int) -> tuple[int, ...]:
    """Return a row's dimensions if `width` values fill them; () if they are ambiguous or impossible."""
    fixed = prod(size for size in shape if size != -1)
    if shape.count(-1) > 1 or (-1 in shape and (fixed == 0 or width % fixed)):
        return ()
    return tuple(width // fixed if size == -1 else size for size in shape)


def values(column: Any, spec: TensorSpec, name: str) -> Array:
    """Convert an Arrow column to an array of `spec`'s datatype; nulls become NaN, in raw strings None."""
    dtype = spec.datatype.dtype
    try:
        column = _to_plain(column, spec) if spec.raw else column
        column = _to_text(column, name) if dtype == object else column
        if dtype.kind == "f" and pa.types.is_null(column.type):
            column = column.cast(pa.float64())
        array = _to_array(column)
    except pa.ArrowException:  # there are no arrays of unions, say, or of dictionaries of lists
        raise _mismatch(column, spec, name) from None
    allowed = {"f": "fiub", "i": "iub", "u": "ub", "b": "b", "O": "OU"}[dtype.kind]
    if array.dtype.kind not in allowed or (array.dtype.kind == "O" and not _is_text(column, spec.raw)):
        raise _mismatch(column, spec, name)
    if dtype.kind in "iu" and array.size and not np.can_cast(array.dtype, dtype):
        check_range(spec, array.min(), array.max())
    with np.errstate(over="ignore"):
        return array.astype(dtype, copy=False)


def _to_array(column: Any) -> Array:
    array: Array
    if (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) and not column.null_count:
        array = np.from_dlpack(column)  # pyarrow's own conversion would import pandas, for a second
    else:
        array = column.to_numpy(zero_copy_only=False)
    return array


def _mismatch(column: Any, spec: TensorSpec, name: str) -> BadRequest:
    nulls = f" with {column.null_count} nulls" if column.null_count else ""
    return BadRequest(f"column {name!r}: expected {spec.datatype.name}, got {column.type}{nulls}")


def _to_text(column: Any, name: str) -> Any:
    """Convert categories, and bytes in UTF-8, to strings; leave any other column alone."""
    if pa.types.is_dictionary(column.type):
        column = decode_dictionary(column)
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return column
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        raise BadRequest(f"column {name!r}: expected UTF-8 strings, got other bytes") from None


def _is_text(column: Any, raw: bool) -> bool:
    """Return whether a column is of strings; only a raw one may have nulls."""
    kind, types = column.type, pa.types
    if not raw and column.null_count:
        return False
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(text or types.is_null(kind))


def _to_plain(column: Any, spec: TensorSpec) -> Any:
    """Convert the other types that a raw column may have: categories, booleans, dates and times."""
    if pa.types.is_dictionary(column.type):
        column = decode_dictionary(column)
    if spec.datatype.name == "BYTES":
        return column.cast(pa.string()) if pa.types.is_temporal(column.type) else column
    kind, types = column.type, pa.types
    with_nulls = column.null_count and (
        types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind)
    )
    return column.cast(pa.float64()) if types.is_boolean(kind) or with_nulls else column


def table(keep: Mapping[str, Any], outputs: Tensors, rows: int) -> Any:
    """Return a table of kept columns and outputs; an output of several columns is NAME_0, NAME_1, ..."""
    columns = list(keep.items())
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise BadRequest(f"output {name!r}: expected {rows} rows, got shape {list(array.shape)}")
        if array.ndim == 1:
            columns.append((name, pa.array(array)))
        else:
            flat = array.reshape(len(array), -1).T
            columns += [(f"{name}_{index}", pa.array(column)) for index, column in enumerate(flat)]
    names = [name for name, _ in columns]
    for name in keep:
        if names.count(name) > 1:
            raise BadRequest(f"column {name!r}: can't be kept, an output of the model has the same name")
    return pa.table([column for _, column in columns], names)
