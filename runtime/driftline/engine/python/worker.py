"""The process that runs an MLflow model's own Python code, and the memory it shares with ours.

Run by its path, by an interpreter that may have none of our packages: nothing is imported from them here.
It needs mlflow and pyarrow, and whatever the model needs. Messages are JSON, one per line. A request is the
number of bytes of input in the shared memory; a response is `{"size": bytes of output, "form": of those}` or
`{"error": text, "refused": whether the inputs are to blame}`. Its first line, `{"size": 0}`, says that it is
ready.
"""

from __future__ import annotations

import base64
import fcntl
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
import traceback

if __name__ == "__main__":  # keep the model from importing the modules beside this file
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

REFUSED = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
"""MLflow's codes of errors that are the inputs' fault."""

_MAX_ERROR_CHARS = 2_000


class Memory:
    """Shared memory of two processes: one writes tensors, the other reads them, as Arrow IPC.

    It grows to the largest message. A tensor is one cell: a list of all its values, with `dtype` and `shape`
    in the field's metadata.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mapped: Any = b""

    def write(self, tensors: Mapping[str, Any]) -> int:
        """Replace the content by tensors; return the bytes that they take."""
        cells = {name: _cell(np.asarray(array)) for name, array in tensors.items()}
        fields = [pa.field(name, cell.type, metadata=metadata) for name, (cell, metadata) in cells.items()]
        batch = pa.record_batch([cell for cell, _ in cells.values()], schema=pa.schema(fields))
        counter = pa.MockOutputStream()
        _stream(counter, batch)
        size = int(counter.size())
        if size > len(self._mapped):
            os.ftruncate(self._descriptor, 1 << (size - 1).bit_length())
            self._map()
        _stream(pa.FixedSizeBufferWriter(pa.py_buffer(self._mapped)), batch)
        return size

    def read(self, size: int) -> dict[str, Any]:
        """Return the tensors in it; numbers are not copied, and valid until the other side writes again."""
        if size > len(self._mapped):
            self._map()
        with pa.ipc.open_stream(pa.py_buffer(self._mapped)[:size]) as reader:
            batch = reader.read_next_batch()
        return {field.name: _array(field, batch.column(index)) for index, field in enumerate(batch.schema)}

    def _map(self) -> None:
        self._mapped = mmap.mmap(self._descriptor, os.fstat(self._descriptor).st_size)


def _stream(sink: Any, batch: Any) -> None:
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _cell(array: Any) -> tuple[Any, dict[str, str]]:
    """Return an array as a list of one row, and its dtype and shape.

    Made from buffers, since `pa.array` would import pandas, for a second.
    """
    metadata = {"dtype": array.dtype.str, "shape": json.dumps(array.shape)}
    if array.dtype == object:
        values = _text_array(array.ravel().tolist())
    else:
        flat = np.ascontiguousarray(array).reshape(-1)
        stored = flat.view(np.uint8) if flat.dtype == bool else flat
        kind = pa.from_numpy_dtype(stored.dtype)
        values = pa.Array.from_buffers(kind, stored.size, [None, pa.py_buffer(stored)])
    bounds = pa.py_buffer(np.array([0, array.size]))
    return pa.Array.from_buffers(pa.large_list(values.type), 1, [None, bounds], children=[values]), metadata


def _text_array(values: list[str | None]) -> Any:
    encoded = [b"" if value is None else value.encode() for value in values]
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    valid = np.packbits(np.array([value is not None for value in values], bool), bitorder="little")
    buffers = [pa.py_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(values), buffers)


def _array(field: Any, cell: Any) -> Any:
    dtype, shape = np.dtype(field.metadata[b"dtype"].decode()), json.loads(field.metadata[b"shape"])
    values = cell.values
    if dtype == object:
        array = np.empty(len(values), object)
        array[:] = values.to_pylist()
        return array.reshape(shape)
    if not len(values):
        return np.empty(shape, dtype)
    return np.frombuffer(values.buffers()[1], dtype, len(values)).reshape(shape)


class Refused(Exception):
    """The inputs are to blame."""


class Pyfunc:
    """A model's folder, loaded by MLflow."""

    def __init__(self, folder: str) -> None:
        import mlflow.pyfunc

        self._model = mlflow.pyfunc.load_model(folder)
        self._schema = self._model.metadata.get_input_schema()

    def predict(self, tensors: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the form of its predictions, and these by name; see `arrays_of`.

        Raises Refused if the inputs are to blame, and whatever the model raises.
        """
        from mlflow.exceptions import MlflowException

        inputs = self._inputs(tensors)
        try:
            return arrays_of(self._model.predict(inputs))
        except MlflowException as error:
            if error.error_code in REFUSED:
                raise Refused(error.message) from error
            raise

    def _inputs(self, tensors: dict[str, Any]) -> Any:
        """Return the inputs for MLflow: a DataFrame if the schema is of columns, else arrays."""
        # Copied, since a model may keep its inputs.
        if self._schema.is_tensor_spec():
            arrays = {name: np.array(array) for name, array in tensors.items()}
            return arrays if self._schema.has_input_names() else next(iter(arrays.values()))
        import pandas as pd

        only = next(iter(tensors)) if len(tensors) == 1 else None
        columns = {
            index if spec.name is None else spec.name: to_column(
                spec, tensors[only or spec.name or str(index)]
            )
            for index, spec in enumerate(self._schema.inputs)
        }
        return pd.DataFrame(columns)


def to_column(spec: Any, values: Any) -> Any:
    """Convert a column to its type in MLflow's schema: numbers, text, or what the text encodes."""
    kind = getattr(spec.type, "name", None)
    if values.dtype != object:
        return np.array(values)
    if kind == "string":
        return values
    try:
        if kind == "datetime":
            import pandas as pd

            return pd.to_datetime(pd.Series(values).replace("", None))
        read = base64.b64decode if kind == "binary" else json.loads
        return [None if value in (None, "") else read(value) for value in values]
    except ValueError as error:
        raise Refused(f"column {spec.name!r}: expected {kind or 'JSON'} as text: {error}") from error


def arrays_of(result: Any) -> tuple[str, dict[str, Any]]:
    """Return the form of a model's predictions, and arrays by name.

    The form is 'table', of columns, 'mapping', or 'array', whose name is ''.
    """
    import pandas as pd

    if isinstance(result, pd.Series) or (isinstance(result, list) and result and isinstance(result[0], dict)):
        result = pd.DataFrame(result)  # a series without a name is column 0, as in MLflow
    if isinstance(result, pd.DataFrame):
        return "table", {str(name): to_array(result[name].to_numpy()) for name in result.columns}
    if isinstance(result, dict):
        return "mapping", {str(name): to_array(values) for name, values in result.items()}
    if hasattr(result, "toarray"):
        result = result.toarray()
    return "array", {"": to_array(result)}


def to_array(values: Any) -> Any:
    """Convert values to an array of numbers, booleans or text."""
    array = np.asarray(values)
    if array.dtype.kind == "M":
        return np.datetime_as_string(array).astype(object)
    if array.dtype.kind in "US":
        return array.astype(np.str_).astype(object)
    if array.dtype != object:
        return array
    texts = np.empty(array.size, object)
    texts[:] = [to_text(value) for value in array.ravel()]
    numbers = (bool, int, float, np.generic, type(None))
    if array.size and all(isinstance(value, numbers) for value in array.ravel()):
        return array.astype(float)
    return texts.reshape(array.shape)


def to_text(value: Any) -> str | None:
    """Convert a value to text, in an array that is not all numbers."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value.isoformat()) if hasattr(value, "isoformat") else json.dumps(value, default=str)


def limit_memory(memory_bytes: int) -> None:
    """Limit this process's private memory.

    RLIMIT_DATA, not RLIMIT_AS: memory that libraries only reserve, and shared memory, does not count.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def die_with(lifeline: int) -> None:
    """Have the kernel kill this process when the other end of a pipe is closed.

    That happens when the parent ends, however it ends, and whatever this process is doing.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    set_signal = getattr(fcntl, "F_SETSIG", 10)  # Linux's number; Python names it from 3.13 on
    fcntl.fcntl(lifeline, set_signal, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(lifeline, 0)
    if poll.poll(0):  # it is closed already
        os._exit(1)


def error_response(error: BaseException) -> bytes:
    """Return the response that says what went wrong."""
    refused = isinstance(error, Refused)
    message = str(error) if refused else f"{type(error).__name__}: {error}"
    return json.dumps({"error": " ".join(message.split())[:_MAX_ERROR_CHARS], "refused": refused}).encode()


def main(folder: str, control: int, lifeline: int, requests: int, answers: int, memory_bytes: int) -> None:
    """Load the model and answer requests until the connection is closed."""
    for descriptor in (control, lifeline, requests, answers):
        os.set_inheritable(descriptor, False)
    die_with(lifeline)
    os.dup2(2, 1)  # what the model prints goes to the log
    limit_memory(memory_bytes)
    with socket.socket(fileno=control) as connection, connection.makefile("rwb", 0) as stream:
        try:
            model = Pyfunc(folder)
        except BaseException as error:
            traceback.print_exc()
            stream.write(error_response(error) + b"\n")
            raise SystemExit(1) from error
        stream.write(b'{"size": 0}\n')
        inputs, outputs = Memory(requests), Memory(answers)
        for line in stream:
            try:
                form, predictions = model.predict(inputs.read(int(line)))
                answer = json.dumps({"size": outputs.write(predictions), "form": form}).encode()
            except Exception as error:
                if not isinstance(error, Refused):
                    traceback.print_exc()
                answer = error_response(error)
            stream.write(answer + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
