"""How each server is asked, and where its answer has the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson

from bench.common import Matrix
from bench.requests import Request, binary_request, json_request
from bench.servers.works import BINARY, Subject

MODEL = "model"
"""What every server that has names calls the one it serves."""


class Form(Protocol):
    """One server's way to be asked."""

    def request(self, subject: Subject, matrix: Matrix, form: str) -> Request:
        """What to send for these rows, as JSON or with a binary tensor."""

    def read(self, body: bytes, form: str) -> Matrix:
        """The numbers of an answer, in any shape."""


@dataclass(frozen=True, slots=True)
class V2:
    """The Open Inference Protocol, with Triton's binary tensors."""

    def request(self, subject: Subject, matrix: Matrix, form: str) -> Request:
        """A tensor `input`."""
        make = binary_request if form == BINARY else json_request
        return make(MODEL, matrix, subject.output)

    def read(self, body: bytes, form: str) -> Matrix:
        """The first output, which is the only one that was asked for."""
        if form == BINARY:
            document, end = _leading_json(body)
            size = document["outputs"][0]["parameters"]["binary_data_size"]
            return np.frombuffer(body, np.float32, size // 4, end)
        return np.array(orjson.loads(body)["outputs"][0]["data"], np.float32)


@dataclass(frozen=True, slots=True)
class Rows:
    """`{"rows": [[...]]}`, what one writes where there is no protocol; the same or a bare list comes back."""

    path: str

    def request(self, subject: Subject, matrix: Matrix, form: str) -> Request:
        """Rows as lists."""
        return _json(self.path, {"rows": matrix})

    def read(self, body: bytes, form: str) -> Matrix:
        """Rows of numbers."""
        document = orjson.loads(body)
        return np.array(document["rows"] if isinstance(document, dict) else document, np.float32)


@dataclass(frozen=True, slots=True)
class Invocations:
    """MLflow's own: `inputs`, and all outputs as predictions."""

    def request(self, subject: Subject, matrix: Matrix, form: str) -> Request:
        """A tensor by name."""
        return _json("/invocations", {"inputs": {"input": matrix}})

    def read(self, body: bytes, form: str) -> Matrix:
        """The probabilities, or the only output there is."""
        predictions = orjson.loads(body)["predictions"]
        wanted = predictions.get("probabilities", predictions.get("output"))
        return np.array(wanted, np.float32)


@dataclass(frozen=True, slots=True)
class Records:
    """KServe's v1: each row a JSON object of raw columns `x0`, `x1`, ..., for a model with a transform."""

    def request(self, subject: Subject, matrix: Matrix, form: str) -> Request:
        """Rows as objects."""
        instances = [{f"x{place}": value for place, value in enumerate(row)} for row in matrix]
        return _json(f"/v1/models/{MODEL}:predict", {"instances": instances})

    def read(self, body: bytes, form: str) -> Matrix:
        """The probabilities of each row."""
        return np.array([one["probabilities"] for one in orjson.loads(body)["predictions"]], np.float32)


@dataclass(frozen=True, slots=True)
class Static:
    """Any of these to an nginx that has one answer for each shape of the input."""

    def request(self, subject: Subject, matrix: Matrix, form: str) -> Request:
        """What V2 sends, to the path of its answer."""
        return Request(static_path(matrix), json_request(MODEL, matrix, subject.output).body)

    def read(self, body: bytes, form: str) -> Matrix:
        """What V2 reads."""
        return V2().read(body, form)


def static_path(matrix: Matrix) -> str:
    """Where the answer to these rows is."""
    return f"/{len(matrix)}x{matrix.shape[1]}"


def static_answer(subject: Subject, matrix: Matrix) -> str:
    """What an Open Inference server answers, as text."""
    rows = subject.predict(matrix)
    output = {"name": subject.output, "datatype": "FP32", "shape": rows.shape, "data": rows.ravel()}
    answer = {"model_name": subject.name, "model_version": "1", "outputs": [output]}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _json(path: str, document: Any) -> Request:
    return Request(path, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))


def _leading_json(body: bytes) -> tuple[Any, int]:
    """The JSON that a body begins with, and where it ends: the first `}` after which it is complete."""
    end = 0
    while True:
        end = body.index(b"}", end) + 1
        try:
            return orjson.loads(body[:end]), end
        except orjson.JSONDecodeError:
            continue
