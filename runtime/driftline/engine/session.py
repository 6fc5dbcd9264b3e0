"""A model file, loaded by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from driftline.engine.cuda.providers import Provider
from driftline.errors import BadRequest, ConfigError, ModelError
from driftline.tensors import BY_ONNX, DATATYPES, Array, Datatype, Signature, Tensors, TensorSpec

COLUMNS = "driftline.columns"
"""In a model's metadata: what the columns of its only input, a matrix, are called in tables; a JSON list."""

CPU = "CPUExecutionProvider"
UNRECORDED = -1
"""The graph id of runs that must not be recorded as a CUDA graph; recorded ones have ids from 1."""

_ERROR, _FATAL = 3, 4


class Session:
    """A loaded model file. `run` may be called from several threads at once.

    path      the .onnx file; external data lies beside it
    device    'cpu', or the GPU of the providers
    providers of ONNX Runtime for a GPU
    threads   how many threads one run may use
    spinning  whether they spin while they wait for work

    graphs   whether runs of its bindings can be recorded as CUDA graphs
    dtypes   of outputs by name; object for strings and maps of scores
    classes  of outputs that are maps of scores, by name, once a row has been computed

    Raises ModelError if the file can't be loaded, ConfigError if the device is not available.
    """

    def __init__(
        self,
        path: Path,
        device: str = "cpu",
        threads: int = 1,
        spinning: bool = False,
        providers: Sequence[Provider] = (),
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        # Failures are raised; ONNX Runtime would also print them, even a client's bad index.
        options.log_severity_level = _FATAL
        configured = [(name, dict(provider_options)) for name, provider_options in providers] or [(CPU, {})]
        if providers:
            # Since 1.26 it warns, at each load of a provider of its own, that it has none from elsewhere.
            onnxruntime.set_default_logger_severity(_ERROR)
        try:
            # Without its fallback, which would print why a GPU can't be used and load for the CPU.
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=configured, enable_fallback=False
            )
        except Exception as error:
            raise ModelError(f"{path}: {reason(error)}") from error
        # ONNX Runtime would serve from the CPU instead, and say so only in its log.
        for name, _ in providers:
            if name not in self._session.get_providers():
                raise ConfigError(f"device {device!r}: ONNX Runtime can't use {name} here; its log says why")
        # Bypass the Python wrapper: it would check the inputs, which are checked already.
        self._run: Any = getattr(self._session, "_sess", self._session).run
        inputs = [tensor_spec(node.name, node.type, node.shape, path) for node in self._session.get_inputs()]
        names = self._session.get_modelmeta().custom_metadata_map.get(COLUMNS)
        if names is not None:
            inputs = [with_names(inputs, names, path)]
        outputs = [
            tensor_spec(node.name, node.type, node.shape, path) for node in self._session.get_outputs()
        ]
        self.graphs = any(
            provider_options.get("enable_cuda_graph") == "1" for _, provider_options in providers
        )
        self._run_options = run_options(self.graphs)
        self._map_outputs = {
            node.name for node in self._session.get_outputs() if node.type.startswith("seq(map(")
        }
        self.dtypes = {
            spec.name: np.dtype(object) if spec.name in self._map_outputs else spec.datatype.dtype
            for spec in outputs
        }
        self.classes: dict[str, tuple[int | str, ...]] = {}
        self.signature = Signature(tuple(inputs), tuple(outputs), self._has_rows())

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Compute the named outputs.

        Raises BadRequest if the model refuses these inputs, ModelError if it fails or is closed.
        """
        run = self._run
        if run is None:
            raise ModelError("the model is closed")
        try:
            values = run(outputs, inputs, self._run_options)
        except Exception as error:
            if type(error).__name__ == "InvalidArgument":
                raise BadRequest(f"the model refused the inputs: {reason(error)}") from error
            raise ModelError(f"the model failed: {reason(error)}") from error
        if not self._map_outputs:
            return dict(zip(outputs, values, strict=True))
        for name, value in zip(outputs, values, strict=True):
            if name in self._map_outputs and value and name not in self.classes:
                self.classes[name] = tuple(value[0])
        return {
            name: rows_of(value) if name in self._map_outputs else value
            for name, value in zip(outputs, values, strict=True)
        }

    def reads(self, memory: str) -> bool:
        """Return whether the model reads all inputs from a kind of memory, 'cuda' or 'cpu'.

        If an input is bound in another kind, ONNX Runtime copies it once, at binding: every later batch would
        get the outputs of the first. A model reads from the CPU if the GPU's provider leaves its first nodes,
        such as trees, to the CPU.
        """
        return all(info.name.lower() == memory for info in self._session.get_input_memory_infos())

    def close(self) -> None:
        """Free what ONNX Runtime holds, once the last run has ended."""
        self._session = self._run = None

    def bind(self) -> Binding:
        """Return a Binding, to run on arrays in device memory."""
        return Binding(self._session, self.graphs)

    def _has_rows(self) -> bool:
        """Return whether the first dimension of every tensor is free, with one name for all inputs."""
        shapes = [node.shape for node in self._session.get_inputs()]
        names = {shape[0] for shape in shapes if shape and isinstance(shape[0], str)}
        outputs = [node.shape for node in self._session.get_outputs() if node.name not in self._map_outputs]
        if not shapes or len(names) > 1:
            return False
        return all(shape and not isinstance(shape[0], int) for shape in shapes + outputs)


class Binding:
    """Runs batches of one shape, whose inputs and outputs are arrays that stay in place.

    `bind_input` and `bind_output` say where; `run` queues the work on the device's stream.

    graphs  whether the session has CUDA graphs; `record` chooses the one that keeps this shape
    """

    def __init__(self, session: Any, graphs: bool = False) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._graphs = graphs
        self.record(UNRECORDED)

    def bind_input(self, name: str, placement: tuple[str, int], array: Any, address: int) -> None:
        """Read an input from an array at an address of a device, ('cuda', N) or ('cpu', 0)."""
        self._binding.bind_input(name, *placement, array.dtype, array.shape, address)

    def bind_output(self, name: str, placement: tuple[str, int], array: Any, address: int) -> None:
        """Write an output to an array at an address."""
        self._binding.bind_output(name, *placement, array.dtype, array.shape, address)

    def record(self, graph: int) -> None:
        """Record the next run as the graph with this id; later runs by the same thread replay it."""
        self.graph = graph
        self._options = run_options(self._graphs, graph)
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def shapes(self, outputs: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the shapes of outputs: run once, with outputs wherever ONNX Runtime puts them."""
        for name in outputs:
            self._binding.bind_output(name)
        self.run()
        self._binding.synchronize_outputs()
        result = [tuple(value.shape()) for value in self._binding.get_outputs()]
        self._binding.clear_binding_outputs()
        return result

    def run(self) -> None:
        """Queue a run; raise ModelError if it fails, whether the request or the model is at fault."""
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as error:
            raise ModelError(f"the model failed: {reason(error)}") from error

    def close(self) -> None:
        """Drop the references to the session and the arrays."""
        self._session = self._binding = None


def run_options(graphs: bool, graph: int = UNRECORDED) -> Any:
    """Return options of a run: no messages and, for a session with CUDA graphs, the id of the graph."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = _FATAL
    if graphs:
        options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def tensor_spec(name: str, onnx_type: str, shape: Sequence[Any] | None, path: Path) -> TensorSpec:
    """Return the spec of an ONNX input or output; ModelError if the protocol has no such datatype."""
    if onnx_type in ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))"):
        return TensorSpec(name, DATATYPES["FP32"], (-1, -1))
    datatype: Datatype | None = BY_ONNX.get(onnx_type.removeprefix("tensor(").removesuffix(")"))
    if datatype is None:
        raise ModelError(f"{path}: tensor {name!r}: expected one of {', '.join(DATATYPES)}, got {onnx_type}")
    return TensorSpec(name, datatype, tuple(size if isinstance(size, int) else -1 for size in shape or ()))


def with_names(inputs: Sequence[TensorSpec], text: str, path: Path) -> TensorSpec:
    """A model's only input, with the names of its columns; ModelError if they don't fit it."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    is_list = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    is_distinct = is_list and len(set(names)) == len(names)
    if not is_distinct or len(inputs) != 1 or inputs[0].shape[1:] not in ((-1,), (len(names),)):
        expected = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs)
        raise ModelError(
            f"{path}: metadata {COLUMNS!r}: expected a different name for each column of {expected}, "
            f"got {text:.200}"
        )
    return replace(inputs[0], column_names=tuple(names))


def rows_of(maps: Sequence[dict[Any, float]]) -> Array:
    """Convert a classifier's list of {class: score} to a matrix, classes in ascending order."""
    scores = [list(row.values()) for row in maps]
    return np.array(scores, np.float32).reshape(len(scores), len(scores[0]) if scores else 0)


def reason(error: Exception) -> str:
    """Return ONNX Runtime's message, in one line and without its prefix."""
    text = " ".join(str(error).split())
    return (
        text.rpartition("Status Message: ")[2] if "Status Message: " in text else text.rpartition("] : ")[2]
    )
