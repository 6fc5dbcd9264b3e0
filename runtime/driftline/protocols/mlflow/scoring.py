"""MLflow's scoring protocol, `/invocations`, as `mlflow models serve` implements it for the ONNX flavor.

Requests are those of mlflow/pyfunc/scoring_server, responses those of mlflow/onnx: an object for each row of
a table, a list for each output of tensors. For a model that is Python code, the type of its predictions
decides: a table becomes objects, a mapping lists by name, an array a list. More is accepted than by MLflow:
integers for floats where nothing is declared, tables for a model whose inputs are (rows, 1), dates in CSV.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import orjson

from driftline.errors import BadRequest, UnsupportedMedia, shown
from driftline.mlmodel import MlflowSignature, Predictions
from driftline.protocols import numbers
from driftline.protocols.codec import InferRequest, python_loads
from driftline.protocols.forms import NumberForm
from driftline.protocols.mlflow.enforcing import check_parameters, intake_of
from driftline.protocols.mlflow.frames import from_records, from_rows, parse_split, uniform_records
from driftline.protocols.mlflow.matrix import Matrix
from driftline.protocols.objects import Objects
from driftline.protocols.rows import END, RowForm
from driftline.tensors import Array, Signature, Tensors, TensorSpec

VERSION = "3.17.2"
"""The version of MLflow whose protocol this is."""

MEDIA_TYPES = {
    "application/json": "mlflow",
    "text/csv": "mlflow-csv",
    "application/vnd.apache.parquet": "mlflow-parquet",
}
"""The content types of a body, and the protocol that reads each."""

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")

Answer = list[Any] | dict[str, list[Any]]
"""A list of predictions, one for each row, or such lists by name."""

_RECORDS = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"dataframe_records"[ \t\n\r]*:[ \t\n\r]*\[')
_MAX_FORMS = 64
_MAX_HEAD = 65_536


def protocol_of(content_type: bytes) -> str:
    """Return the protocol of a body of this content type; UnsupportedMedia if there is none."""
    media_type, *parameters = content_type.decode("latin-1").split(";")
    for parameter in parameters:
        key, _, value = parameter.strip().partition("=")
        if key != "charset" or value.lower() != "utf-8":
            raise UnsupportedMedia(
                f"Content-Type: expected no more than charset=utf-8, got {shown(parameter)}"
            )
    protocol = MEDIA_TYPES.get(media_type.strip())
    if protocol is None:
        raise UnsupportedMedia(
            f"Content-Type: expected one of {', '.join(MEDIA_TYPES)}, got {shown(media_type)}"
        )
    return protocol


@dataclass(frozen=True, slots=True)
class Form:
    """The text around the rows of numbers of requests that differ in those only.

    by_row  whether their responses are row by row
    count   the number of rows of each, which an index in that text fixes; None without an index
    """

    prefix: bytes
    suffix: bytes
    rows: numbers.Rows
    by_row: bool
    count: int | None

    def array(self, body: bytes) -> numbers.Numbers:
        """Return where the rows of a request are; Unread if it is of another form."""
        if not (body.startswith(self.prefix) and body.endswith(self.suffix)):
            raise numbers.Unread
        array = numbers.Numbers(body, len(self.prefix), len(body) - len(self.suffix))
        if self.count is not None and self.rows.layout(array).shape[0] != self.count:
            raise numbers.Unread
        return array


class MlflowCodec:
    """Reads requests in JSON to one version of a model and writes its responses.

    declared     the signature that the model was logged with in MLflow, if any
    classes      of outputs that are a map of scores for each row, once they are known
    predictions  returns the form in which a model that is Python code predicted; None before, or for others
    """

    media_type: ClassVar[bytes] = b"application/json"

    def __init__(
        self,
        signature: Signature,
        declared: MlflowSignature | None = None,
        classes: Mapping[str, Sequence[object]] | None = None,
        predictions: Callable[[], Predictions | None] = lambda: None,
    ) -> None:
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._classes = {} if classes is None else classes
        self._predictions = predictions
        self._declared = declared or MlflowSignature()
        self._intake = intake_of(signature, declared)
        self._matrix = Matrix.of(signature, self._declared)
        # Integers have to be checked one by one; columns without names are told apart by position.
        matrix = self._matrix
        floats = matrix is not None and not matrix.integers and matrix.spec.datatype.dtype.kind == "f"
        self._objects = Objects(matrix.names) if matrix and matrix.names and floats else None
        self._forms: dict[bytes, Form] = {}

    def decode(self, body: bytes, json_length: int | None = None) -> InferRequest:
        """Read a request's body; BadRequest if it does not fit the protocol or the signature."""
        form = self._forms.get(_head(body))
        if form is not None and numbers.ready(body):
            try:
                array = form.rows.read(form.array(body))
                return InferRequest({form.rows.name: array}, self._outputs, by_row=form.by_row)
            except numbers.Unread:
                pass  # the error is reported for the original text
        elif self._objects is not None and (opening := _RECORDS.match(body)) is not None:
            stop = body.rfind(b"]")
            if END.match(body, stop + 1) is not None:
                try:
                    return self._request_of_records(self._objects.read(body, opening.end(), stop))
                except numbers.Unread:
                    pass
        document = _loads(body)
        keys = [key for key in FORMATS if type(document) is dict and key in document]
        if len(keys) != 1:
            raise BadRequest(
                f"the request: expected an object with exactly one of {', '.join(FORMATS)}, "
                f"got {shown(document)}"
            )
        inputs, by_row = self._read(keys[0], document[keys[0]])
        check_parameters(document.get("params"), self._declared.params)
        if (
            form is None
            and self._matrix is not None
            and self._matrix.is_unchanged(keys[0], document[keys[0]])
        ):
            self._remember(body, self._matrix.spec, document, keys[0], by_row)
        return InferRequest(inputs, self._outputs, by_row=by_row)

    def _read(self, key: str, value: Any) -> tuple[Tensors, bool]:
        if key == "inputs":
            return self._intake.tensors(value)
        if key == "instances":
            return self._intake.instances(value)
        if key == "dataframe_split":
            names, rows = parse_split(value)
        elif (records := uniform_records(value)) is not None:
            names, rows = records
        else:
            return self._intake.table(from_records(value, key))
        inputs = self._matrix.read(names, rows) if self._matrix is not None else None
        return (inputs, True) if inputs is not None else self._intake.table(from_rows(names, rows))

    def _request_of_records(self, matrix: Array) -> InferRequest:
        """Return the request whose input is this matrix of records; Unread if it does not fit."""
        assert self._matrix is not None
        spec = self._matrix.spec
        if not spec.accepts(matrix.shape):
            raise numbers.Unread
        with np.errstate(over="ignore"):
            values = matrix.astype(spec.datatype.dtype)
        return InferRequest({spec.name: values}, self._outputs, by_row=True)

    def _remember(
        self, body: bytes, spec: TensorSpec, document: dict[str, Any], key: str, by_row: bool
    ) -> None:
        """Keep the text around the rows of a request, the value of `key`, if nothing else may differ."""
        value = document[key]
        is_table = type(value) is dict
        emptied = {**document, key: {**value, "data": None} if is_table else None}
        prefix, suffix = _head(body), body[body.rfind(b"]]") + 2 :]
        try:
            if len(prefix) > _MAX_HEAD or orjson.loads(prefix + b"null" + suffix) != emptied:
                return
        except orjson.JSONDecodeError:
            return
        index = value.get("index") if is_table else None
        if len(self._forms) == _MAX_FORMS:
            self._forms.clear()
        self._forms[prefix] = Form(
            prefix, suffix, numbers.Rows(spec), by_row, None if index is None else len(index)
        )

    # -- responses ---------------------------------------------------------------------------------

    def encode(self, request: InferRequest, outputs: Tensors) -> tuple[bytes, int | None]:
        """Return the body of the response. Like Python's, MLflow's JSON has NaN, Infinity and -Infinity."""
        return _dumps(self._answer(request, outputs)), None

    def _answer(self, request: InferRequest, outputs: Tensors) -> Answer:
        predictions = self._predictions()
        if predictions is None:
            return self._answer_of_onnx(request, outputs)
        return _answer_of_python(predictions, outputs)

    def _answer_of_onnx(self, request: InferRequest, outputs: Tensors) -> Answer:
        names = request.outputs
        if request.by_row:
            return self._by_row(names, [outputs[name] for name in names])
        return {name: self._values(name, outputs[name]) for name in names}

    def _by_row(self, names: Sequence[str], arrays: list[Array]) -> list[dict[str, Any]]:
        """Return an object for each row. MLflow flattens outputs, and fails if their sizes differ; here, rows
        stay rows."""
        maps = self._classes
        sizes = {
            len(array) if name in maps else array.size for name, array in zip(names, arrays, strict=True)
        }
        if len(sizes) == 1:
            arrays = [
                array if name in maps else array.ravel() for name, array in zip(names, arrays, strict=True)
            ]
        columns = [self._values(name, array) for name, array in zip(names, arrays, strict=True)]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _values(self, name: str, array: Array) -> list[Any]:
        values: list[Any] = array.tolist()
        if name in self._classes:
            classes = [str(label) for label in self._classes[name]]
            return [dict(zip(classes, row, strict=True)) for row in values]
        return values

    # -- several requests together --------------------------------------------------------------

    def form(self, body: bytes, json_length: int | None) -> RowForm | NumberForm | None:
        """Return the text around rows of numbers, once a request like this was read, or around a record."""
        form = self._forms.get(_head(body))
        if form is None:
            opening = _RECORDS.match(body) if self._objects is not None else None
            return RowForm.of(self, body, opening.end()) if opening is not None else None
        try:
            array = form.array(body)
        except numbers.Unread:
            return None
        return NumberForm.of_rows(array, form.rows, InferRequest({}, self._outputs, by_row=form.by_row))

    def read_rows(self, rows: Sequence[bytes]) -> InferRequest:
        """See RowReader."""
        if self._objects is None:
            raise numbers.Unread
        return self._request_of_records(self._objects.read_rows(rows))

    def encode_all(
        self, request: InferRequest, outputs: Tensors, count: int
    ) -> list[tuple[bytes, int | None]]:
        """Return what `encode` does for each of `count` requests of equally many rows that ran as one."""
        answer = self._answer(request, outputs)
        if isinstance(answer, list):
            return [(_dumps(part), None) for part in _split(answer, count)]
        parts = zip(*(_split(column, count) for column in answer.values()), strict=True)
        return [(_dumps(dict(zip(answer, part, strict=True))), None) for part in parts]


def _split(values: list[Any], count: int) -> list[list[Any]]:
    """Split values into `count` equal parts."""
    size = len(values) // count
    return [values[first : first + size] for first in range(0, len(values), size)]


def _head(body: bytes) -> bytes:
    """Return the text before the first nested list, which identifies a form."""
    return body[: max(0, body.find(b"[["))]


def _answer_of_python(predictions: Predictions, outputs: Tensors) -> Answer:
    """Return predictions in the form and under the names that the model gave, not those of the signature."""
    columns: list[list[Any]] = [array.tolist() for array in outputs.values()]
    if predictions.form == "array":
        return columns[0]
    names = predictions.names if len(predictions.names) == len(columns) else tuple(outputs)
    if predictions.form == "mapping":
        return dict(zip(names, columns, strict=True))
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _dumps(answer: Answer) -> bytes:
    document = {"predictions": answer}
    text = orjson.dumps(document)
    if b"null" in text:  # NaN or infinity, which JSON lacks; or only a word in a text, which just costs time
        text = json.dumps(document, ensure_ascii=False).encode()
    return text


def _loads(body: bytes) -> Any:
    """Parse JSON as Python does, in every encoding that it knows; BadRequest if it is invalid."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return python_loads(body)
