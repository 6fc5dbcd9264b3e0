"""One version of a model, ready to predict."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from driftline.batching.cost import Cost
from driftline.columns import as_table, batch_of, columns_of, names_in
from driftline.config import TRUST, Engine, ModelSettings
from driftline.engine.bundle import Bundle
from driftline.engine.cuda.device import Device, find, names
from driftline.engine.cuda.features import stagings_of
from driftline.engine.cuda.load_balancer import LoadBalancer
from driftline.engine.cuda.providers import Provider, check, cuda, engine_options, tensorrt
from driftline.engine.cuda.session import DeviceSession, OnComputed, Times, bucket_of
from driftline.engine.cuda.tensorrt_cache import cache_folder
from driftline.engine.features import Features
from driftline.engine.load_errors import in_plain_words
from driftline.engine.schema import merge_mlflow
from driftline.engine.session import Session
from driftline.errors import BadRequest, ConfigError, DriftlineError, ModelError, listed
from driftline.machine import available_cores
from driftline.mlmodel import MLMODEL, Predictions
from driftline.registry.files import locked
from driftline.tensors import Array, Signature, Tensors, TensorSpec, shorten
from driftline_kernels import compiling

if TYPE_CHECKING:
    from driftline.engine.python.session import PythonSession

log = logging.getLogger("driftline.device")

NO_PROFILE = "no associated shape profiles"
"""In ONNX Runtime's error if TensorRT runs only parts of a model, whose inputs have no shape profiles."""

WARM_UP_NS = 1_000_000_000
"""Warming up stops before a batch that would take longer."""

MAX_NAMES = 6
"""The most inputs, or outputs, that a repr names."""


class Model:
    """A bundle, loaded. `Model.load(path).predict(columns)` is serving without a server.

    signature        its inputs and outputs; with a transform, raw columns are its inputs
    settings         of batching, engine and monitor
    mlflow           the signature that MLflow has of it, if there is one
    warm             whether `warm_up` is complete
    runs_elsewhere   whether a run waits for another process or a GPU instead of computing
    device_sessions  one for each GPU that it runs on
    copies_inputs    whether its inputs are copied to GPUs: not if the CPU makes its features
    """

    def __init__(self, bundle: Bundle) -> None:
        self.settings: ModelSettings = bundle.settings
        self.warm = False
        engine = bundle.settings.engine
        by_rows = bundle.settings.batching.max_batch_rows > 0
        check(engine)
        is_python = bundle.model.name == MLMODEL
        devices = [] if is_python else [gpu for name in names(engine.device) if (gpu := find(name))]
        max_rows = bucket_of(bundle.settings.batching.max_batch_rows, engine.buckets) if by_rows else 0
        sessions = [session_of(bundle.model, engine, gpu, max_rows) for gpu in devices]
        self._session: Session | PythonSession
        if is_python:
            self._session = _python_session(bundle.model.parent, engine)
        else:
            self._session = sessions[0] if sessions else session_of(bundle.model, engine, None)
        self.signature: Signature = self._session.signature
        self.mlflow = bundle.mlmodel.signature if bundle.mlmodel else None
        if self.mlflow is not None and bundle.transform is None:
            self.signature = merge_mlflow(self.signature, self.mlflow, str(bundle.model.parent / MLMODEL))
        self._features = Features.of(bundle.transform, self.signature) if bundle.transform else None
        if self._features is not None:
            self.signature = self._features.signature
        if not by_rows:
            self.signature = replace(self.signature, batched=False)
        features = self._features if devices and by_rows else None
        stagings = stagings_of(features, devices) if features else [None] * len(devices)
        self.device_sessions = tuple(
            DeviceSession(gpu, session, by_rows, engine.buckets, staging)
            for gpu, session, staging in zip(devices, sessions, stagings, strict=True)
        )
        self.copies_inputs = self.device_sessions != () and (self._features is None or None not in stagings)
        self._balancer = LoadBalancer(self.device_sessions)
        self.runs_elsewhere = is_python or self.device_sessions != ()

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Load a version's folder such as `models/flights/3`, or a lone .onnx file.

        Raises ModelError if the files can't be loaded, ConfigError if the settings are wrong.
        """
        return cls(Bundle.open(Path(path)))

    def __repr__(self) -> str:
        return f"Model({_names(self.signature.inputs)} -> {_names(self.signature.outputs)})"

    def predict(self, columns: object, outputs: Sequence[str] | str | None = None) -> Tensors:
        """Compute outputs for any number of rows, in batches of the model's `max_batch_rows`.

        columns  arrays or nested lists by input name; for a model of one input, it alone will do; a table or
                 a DataFrame, whose columns are matched as those of a file that is scored; for a model with
                 a transform, raw columns in any of these forms
        outputs  the names of the outputs wanted, or one name; all if None

        Raises BadRequest if the columns don't fit the signature, or it has no such output.
        """
        inputs = self._inputs_of(columns)
        available = tuple(spec.name for spec in self.signature.outputs)
        wanted = (outputs,) if isinstance(outputs, str) else tuple(outputs or available)
        for name in wanted:
            if name not in available:
                raise BadRequest(
                    f"output {shorten(name)}: the model has no such output; it has: {', '.join(available)}"
                )
        rows = len(next(iter(inputs.values()))) if self.signature.batched else 1
        step = self.settings.batching.max_batch_rows
        if not self.signature.batched or rows <= step:
            return self.run(inputs, wanted)
        parts = [
            self.run({name: array[start : start + step] for name, array in inputs.items()}, wanted)
            for start in range(0, rows, step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in wanted}

    def _example(self, rows: int) -> Tensors:
        if self._features is not None:
            return self._features.example(rows)
        return {spec.name: zeros(spec, rows) for spec in self.signature.inputs}

    def _tensors_of(self, columns: object) -> Tensors:
        """Return the inputs from arrays by name, or from a table."""
        if isinstance(columns, Mapping):
            columns = {name: self._as_matrix(name, values) for name, values in columns.items()}
        if isinstance(columns, (Mapping, np.ndarray, list)) or (batch := batch_of(columns)) is None:
            return self.signature.inputs_of(columns)
        from driftline.protocols.arrow import Columns

        return Columns(self.signature.inputs, batch.schema).tensors(batch)

    def _as_matrix(self, name: object, values: Any) -> Any:
        """Reshape a 1-D array to (rows, 1) if the input has that shape, as in converted pipelines."""
        is_vector = getattr(values, "ndim", 0) == 1 and any(
            spec.name == name and spec.shape == (-1, 1) for spec in self.signature.inputs
        )
        return np.asarray(values)[:, np.newaxis] if is_vector else values

    def _inputs_of(self, columns: object) -> Tensors:
        if self._features is None:
            inputs = self._tensors_of(columns)
            self.signature.rows(inputs)
            return inputs
        names = [spec.name for spec in self.signature.inputs]
        columns = as_table(columns)  # a stream is read once
        named = columns_of(columns, {*names, *(name.rpartition("_")[0] for name in names)})
        for name in names:
            if name not in named:
                expected, actual = ", ".join(names), listed(names_in(columns))
                raise BadRequest(f"column {name!r}: the model takes the columns {expected}; got {actual}")
        return {name: named[name] for name in names}

    def run(self, inputs: Tensors, outputs: Sequence[str], on_computed: OnComputed | None = None) -> Tensors:
        """Compute the named outputs of one batch that fits the signature; thread safe.

        on_computed  see DeviceSession.run

        Raises BadRequest if the model refuses these inputs, ModelError if it fails.
        """
        model_inputs = self._transformed(inputs)
        if self.device_sessions:
            return self._balancer.run(model_inputs, outputs, on_computed)
        return self._session.run(model_inputs, outputs)

    def _run_everywhere(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run on every GPU and return the outputs of the first."""
        if not self.device_sessions:
            return self.run(inputs, outputs)
        first, *_ = [session.run(self._transformed(inputs), outputs) for session in self.device_sessions]
        return first

    def _transformed(self, inputs: Tensors) -> Tensors:
        """Return the inputs that the session takes, or that are copied to a GPU."""
        return inputs if self._features is None or self.copies_inputs else self._features.apply(inputs)

    def close(self) -> None:
        """Wait for batches in flight on GPUs, and free device memory; end the Python processes of the model.

        A later run raises ModelError. CPU memory is freed with the model object.
        """
        for session in self.device_sessions:
            session.close()
        if not isinstance(self._session, Session):
            self._session.close()

    @property
    def classes(self) -> Mapping[str, tuple[int | str, ...]]:
        """The classes of outputs that are maps of scores, by name, once a row has been computed."""
        return self._session.classes

    @property
    def predictions(self) -> Predictions | None:
        """The form of the last predictions of a model that is Python code; None before, or for others."""
        return None if isinstance(self._session, Session) else self._session.predictions

    @property
    def unreadable(self) -> dict[str, int]:
        """The number of raw values that could not be read and were treated as missing, by column."""
        return self._features.unreadable if self._features is not None else {}

    def warm_up(self) -> Cost:
        """Run batches of 1, 2, 4 ... rows up to the maximum, or of every bucket on every GPU, so that no
        client is the first with its size.

        Returns the service times learnt. A model whose outputs turn out not to have a row for each row of
        input is not batched from here on. Dimensions that may vary are taken as 1; a model that can't
        compute that (a convolution, say) is cold for its first real batch.

        While its transform's kernels are interpreted, one and two rows are enough, and nothing is learnt: the
        model is not `warm`, and has to be warmed up again when they are compiled.
        """
        cost = Cost()
        self.warm = self._features is None or not compiling.interpreted()
        wanted = tuple(spec.name for spec in self.signature.outputs)
        # Two rows at least: one row cannot show whether a model gives a row for each.
        max_rows = max(2, self.settings.batching.max_batch_rows if self.warm else 0)
        max_rows = max_rows if self.signature.batched else 1
        clock = perf_counter_ns if self.runs_elsewhere else thread_time_ns
        buckets = self.settings.engine.buckets if self.device_sessions else ()
        rows, elapsed = 1, 0
        while 2 * elapsed < WARM_UP_NS:
            inputs = self._example(rows)
            try:
                outputs = self._run_everywhere(inputs, wanted)
                begin = clock()
                self.run(inputs, wanted)
            except DriftlineError:
                break
            elapsed = clock() - begin
            if any(array.shape[:1] != (rows,) for array in outputs.values()):
                self.signature = replace(self.signature, batched=False)
                max_rows = 1
            cost.learn(sum(array.size for array in inputs.values()), elapsed)
            if rows >= max_rows:
                break
            rows = min(bucket_of(rows + 1, buckets), max_rows)
        for session in self.device_sessions:
            session.times = Times()  # from here on, those of clients
        return cost if self.warm else Cost()


def _names(specs: Sequence[TensorSpec]) -> str:
    """Return the names of tensors for a repr, the first ones if there are many."""
    names = [spec.name for spec in specs[:MAX_NAMES]]
    return ", ".join(names + ["..."] * (len(specs) > MAX_NAMES))


def session_of(path: Path, engine: Engine, device: Device | None, max_rows: int = 0) -> Session:
    """Load a model file for a device: to run on a GPU's stream, or on the CPU if `device` is None.

    max_rows  rows of the largest batch, 0 if not known
    """
    if device is None or device.memory == "cpu":
        return _load(path, engine, "cpu")
    if engine.tensorrt:
        return _tensorrt_session(path, engine, device, max_rows)
    provider = cuda(device, engine.tf32)
    with device.loading():
        if not engine.cuda_graphs:
            session = _load(path, engine, device.name, provider)
            if session.reads(device.memory):
                return session
            session.close()  # ONNX Runtime copies its batches, and several may be in flight at once
            return _load(path, engine, device.name, cuda(device, engine.tf32, shared=False))
        try:
            return _load(path, engine, device.name, cuda(device, engine.tf32, graphs=True))
        except ModelError as error:
            session = _load(path, engine, device.name, provider)
            log.warning("%s runs without CUDA graphs: %s", path, error)
            return session


def _tensorrt_session(path: Path, engine: Engine, device: Device, max_rows: int) -> Session:
    """Load with engines that are built once for all numbers of rows; if that is impossible, per shape."""
    inputs = Session(path, threads=engine.threads_on(available_cores())).signature.inputs
    options = engine_options(inputs, max_rows, engine.tensorrt_fp16)
    fallback = cuda(device, engine.tf32)
    cache = cache_folder(path, options)
    # One process builds the engines, and others find them built.
    lock: AbstractContextManager[Any] = nullcontext() if cache is None else locked(cache)
    with lock, device.loading():
        try:
            return _load(path, engine, device.name, tensorrt(device, options, cache), fallback)
        except ModelError as error:
            if NO_PROFILE not in str(error):
                raise
            log.info("%s: TensorRT runs only parts of it: an engine is built for each new shape", path)
            unprofiled = {name: value for name, value in options.items() if "_profile_" not in name}
            return _load(path, engine, device.name, tensorrt(device, unprofiled, cache), fallback)


def _load(path: Path, engine: Engine, device: str, *providers: Provider) -> Session:
    threads = engine.threads_on(available_cores())
    with in_plain_words(path):
        return Session(path, device, threads, engine.spinning, providers)


def _python_session(folder: Path, engine: Engine) -> PythonSession:
    if not engine.trust:
        raise ConfigError(f"{folder}: this model is Python code, which runs once somebody allows it: {TRUST}")
    from driftline.engine.python.session import PythonSession  # Arrow takes 0.3 s to import

    return PythonSession(folder, engine)


def zeros(spec: TensorSpec, rows: int) -> Array:
    """Return zeros, or empty strings, in the shape of `spec`, with `rows` rows; other -1s become 1."""
    shape = [1 if size == -1 else size for size in spec.shape]
    if spec.shape[:1] == (-1,):
        shape[0] = rows
    return np.full(shape, "" if spec.datatype.dtype == object else 0, spec.datatype.dtype)
