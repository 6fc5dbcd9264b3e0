"""MLflow's scoring protocol, `/invocations`, as `mlflow models serve` answers it for the ONNX flavor.

The form is that of mlflow/pyfunc/scoring_server, the answers are those of mlflow/onnx: a table is answered
with an object for each row, tensors with a list for each output. More is taken than there: whole numbers for
fractions where nothing is declared, tables for a model whose inputs are (rows, 1), dates in CSV.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import orjson

from driftline.errors import BadRequest, UnsupportedMedia
from driftline.mlmodel import MlflowSignature, Tensor
from driftline.protocols import numbers
from driftline.protocols.codec import InferRequest
from driftline.protocols.enforcing import check_parameters, intake
from driftline.protocols.frames import from_records, from_rows, split_of
from driftline.protocols.v1 import read_numbers, read_rows
from driftline.tensors import Array, Signature, Tensors, coerce, shorten

VERSION = "3.17.2"
"""The version of MLflow whose protocol this is."""

MEDIA_TYPES = {
    "application/json": "mlflow",
    "text/csv": "mlflow-csv",
    "application/vnd.apache.parquet": "mlflow-parquet",
}
"""What a body may be, and the protocol that reads it."""

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")

_DATA = numbers.key("data")
_SHORT = 2_000
"""Characters below which cutting a text costs more than the kernel saves."""


def protocol_of(content_type: bytes) -> str:
    """The protocol of a body of this content type; UnsupportedMedia if there is none."""
    media_type, *parameters = content_type.decode("latin-1").split(";")
    for parameter in parameters:
        key, _, value = parameter.strip().partition("=")
        if key != "charset" or value.lower() != "utf-8":
            raise UnsupportedMedia(
                f"Content-Type: expected no more than charset=utf-8, came {shorten(parameter)}"
            )
    protocol = MEDIA_TYPES.get(media_type.strip())
    if protocol is None:
        raise UnsupportedMedia(
            f"Content-Type: expected one of {', '.join(MEDIA_TYPES)}, came {shorten(media_type)}"
        )
    return protocol


class MlflowCodec:
    """Reads requests in JSON to one version of a model and writes its answers.

    declared  the signature that the model was logged with in MLflow, if any
    classes   of outputs that are a map of scores for each row, once they are known
    """

    media_type: ClassVar[bytes] = b"application/json"

    def __init__(
        self,
        signature: Signature,
        declared: MlflowSignature | None = None,
        classes: Mapping[str, Sequence[object]] | None = None,
    ) -> None:
        self._signature = signature
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._classes = {} if classes is None else classes
        self._declared = declared
        self._parameters = declared.params if declared is not None else ()
        self._intake = intake(signature, declared)
        self._columns = _columns_of_numbers(signature, declared)
        self._of_numbers = _of_numbers(signature, declared)

    def decode(self, body: bytes, json_length: int | None = None) -> InferRequest:
        """Read a request's body; BadRequest for whatever fits neither protocol nor signature."""
        if numbers.ready(body):
            try:
                return self._read_numbers(body)
            except (numbers.Unread, BadRequest):
                pass  # what is wrong is said of the text as it came
        document = _loads(body)
        given = [key for key in FORMATS if type(document) is dict and key in document]
        if len(given) != 1:
            raise BadRequest(
                f"the request: expected an object with exactly one of {', '.join(FORMATS)}, "
                f"came {shorten(document)}"
            )
        inputs, by_row = self._read(given[0], document[given[0]])
        check_parameters(document.get("params"), self._parameters)
        return InferRequest(inputs, self._outputs, by_row=by_row)

    def _read(self, key: str, value: Any) -> tuple[Tensors, bool]:
        if key == "inputs":
            return self._intake.tensors(value)
        if key == "instances":
            return self._intake.instances(value)
        if key == "dataframe_records":
            return self._intake.table(from_records(value, key))
        names, rows = split_of(value)
        if (inputs := self._read_matrix(names, rows)) is not None:
            return inputs, True
        return self._intake.table(from_rows(names, rows))

    # -- tables of numbers -------------------------------------------------------------------------

    def _read_matrix(self, names: tuple[Any, ...] | None, rows: Any) -> Tensors | None:
        """Rows of numbers as a model's only input, without columns in between; None if they are not that."""
        if self._columns is None or self._columns not in ((), names):
            return None
        spec = self._signature.inputs[0]
        try:
            array = coerce(spec, rows)
        except BadRequest:
            return None
        fits = array.ndim == 2 and spec.accepts(array.shape) and len(array) > 0
        return {spec.name: array} if fits and (names is None or len(names) == array.shape[1]) else None

    def _read_numbers(self, body: bytes) -> InferRequest:
        """A request that the kernel can read; Unread or BadRequest if this is none."""
        if self._of_numbers and not self._parameters:
            try:
                return InferRequest(read_numbers(body, self._signature.inputs[0]), self._outputs)
            except numbers.Unread:
                pass
        if self._columns is None or len(body) < _SHORT or self._parameters:
            raise numbers.Unread
        document, arrays = numbers.cut(body, _DATA)
        split = document.get("dataframe_split") if type(document) is dict else None
        # Nothing but a table, so that the one array that was cut out is the table's.
        if (
            len(arrays) != 1
            or len(document) != 1
            or type(split) is not dict
            or split.get("data", 0) is not None
        ):
            raise numbers.Unread
        inputs = read_rows(arrays[0], self._signature.inputs[0])
        (array,) = inputs.values()
        names, _ = split_of(split | {"data": [None] * len(array)})
        if self._columns not in ((), names) or (names is not None and len(names) != array.shape[1]):
            raise numbers.Unread
        return InferRequest(inputs, self._outputs, by_row=True)

    # -- answers -----------------------------------------------------------------------------------

    def encode(self, request: InferRequest, outputs: Tensors) -> tuple[bytes, int | None]:
        """The body of the answer. Like Python's, MLflow's JSON has NaN, Infinity and -Infinity."""
        columns = {name: self._values(name, outputs[name]) for name in request.outputs}
        answer = {"predictions": _rows(columns, outputs) if request.by_row else columns}
        text = orjson.dumps(answer)
        if b"null" in text:  # what JSON has not; or a word in a text, which costs time only
            text = json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return text, None

    def _values(self, name: str, array: Array) -> list[Any]:
        values: list[Any] = array.tolist()
        if name in self._classes:
            classes = [str(one) for one in self._classes[name]]
            return [dict(zip(classes, row, strict=True)) for row in values]
        return values


def _rows(columns: dict[str, list[Any]], outputs: Tensors) -> list[dict[str, Any]]:
    """Outputs as rows: MLflow makes each flat, which it can only if all are of the same size then."""
    maps = {name for name, values in columns.items() if values and type(values[0]) is dict}
    if len({len(values) if name in maps else outputs[name].size for name, values in columns.items()}) == 1:
        columns = {
            name: values if name in maps else outputs[name].ravel().tolist()
            for name, values in columns.items()
        }
    names = tuple(columns)
    if len(names) == 1:
        return [{names[0]: value} for value in columns[names[0]]]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _loads(body: bytes) -> Any:
    """JSON as Python reads it, with NaN and Infinity; BadRequest if it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the request is no valid JSON: {error}") from None


def _columns_of_numbers(signature: Signature, declared: MlflowSignature | None) -> tuple[str, ...] | None:
    """What the columns of a table have to be named to be the model's only input as they stand.

    () if they may have any names, None if there is more to it.
    """
    spec = signature.inputs[0]
    if len(signature.inputs) > 1 or not numbers.readable(spec) or len(spec.shape) != 2:
        return None
    schema = declared.inputs if declared is not None else ()
    if not schema:
        return ()
    exact = {"double"} if spec.datatype.name == "FP64" else {"double", "float"}
    if spec.datatype.dtype.kind != "f" or any(
        isinstance(one, Tensor) or one.type.name not in exact for one in schema
    ):
        return None
    names = tuple(one.name for one in schema if one.name is not None)
    return names or None


def _of_numbers(signature: Signature, declared: MlflowSignature | None) -> bool:
    """Whether `inputs` and `instances` of numbers are the model's only input as they stand."""
    spec = signature.inputs[0]
    if len(signature.inputs) > 1 or not numbers.readable(spec):
        return False
    schema = declared.inputs if declared is not None else ()
    return not schema or (
        len(schema) == 1
        and isinstance(schema[0], Tensor)
        and (schema[0].dtype, schema[0].shape) == (spec.datatype.dtype, spec.shape)
    )
