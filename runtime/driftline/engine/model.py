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
from driftline.columns import batch_of, columns_of, names_in, tabled
from driftline.config import TRUST, Engine, ModelSettings
from driftline.engine.bundle import Bundle
from driftline.engine.cards import Cards
from driftline.engine.device import Device, find, names
from driftline.engine.engines import folder_of
from driftline.engine.features import Features
from driftline.engine.features_card import stages_of
from driftline.engine.lane import Behind, Lane, Times, bucket_of
from driftline.engine.providers import Provider, building, check, cuda, tensorrt
from driftline.engine.schema import agreed
from driftline.engine.session import Session
from driftline.engine.unloadable import in_plain_words
from driftline.errors import BadRequest, ConfigError, DriftlineError, ModelError, listed
from driftline.machine import available_cores
from driftline.mlmodel import MLMODEL, Predictions
from driftline.registry.files import locked
from driftline.tensors import Array, Signature, Tensors, TensorSpec, shorten
from driftline_kernels import compiling

if TYPE_CHECKING:
    from driftline.engine.python import PythonSession

log = logging.getLogger("driftline.device")

NO_PROFILE = "no associated shape profiles"
"""What ONNX Runtime says where TensorRT does not take all of a model: the inputs of its parts have none."""

WARM_UP_NS = 1_000_000_000
"""Warming stops before a batch size that would take longer than this."""

NAMED = 6
"""Inputs and outputs that a repr names."""


class Model:
    """A bundle, loaded. `Model.load(path).predict(columns)` is serving without a server.

    signature  what it takes and gives
    settings   how it wants to be batched and run
    mlflow     what MLflow's description says it takes and gives, if it has one
    warm       whether `warm_up` has done all there is to do
    waits      whether a run waits for another process or a card instead of computing
    lanes      its ways over cards, one for each that it runs on
    crosses    whether its inputs cross to them: they don't if features are made here
    """

    def __init__(self, bundle: Bundle) -> None:
        self.settings: ModelSettings = bundle.settings
        self.warm = False
        engine = bundle.settings.engine
        by_rows = bundle.settings.batching.max_batch_rows > 0
        check(engine)
        python = bundle.model.name == MLMODEL
        devices = [] if python else [card for name in names(engine.device) if (card := find(name))]
        most = bucket_of(bundle.settings.batching.max_batch_rows, engine.buckets) if by_rows else 0
        sessions = [session_of(bundle.model, engine, card, most) for card in devices]
        self._session: Session | PythonSession
        if python:
            self._session = _python(bundle.model.parent, engine)
        else:
            self._session = sessions[0] if sessions else session_of(bundle.model, engine, None)
        self.signature: Signature = self._session.signature
        self.mlflow = bundle.mlmodel.signature if bundle.mlmodel else None
        if self.mlflow is not None and bundle.transform is None:
            self.signature = agreed(self.signature, self.mlflow, str(bundle.model.parent / MLMODEL))
        self._features = Features.of(bundle.transform, self.signature) if bundle.transform else None
        if self._features is not None:
            self.signature = self._features.signature
        if not by_rows:
            self.signature = replace(self.signature, batched=False)
        behind = self._features if devices and by_rows else None
        stages = stages_of(behind, devices) if behind else [None] * len(devices)
        self.lanes = tuple(
            Lane(card, session, by_rows, engine.buckets, stage)
            for card, session, stage in zip(devices, sessions, stages, strict=True)
        )
        self.crosses = self.lanes != () and (self._features is None or None not in stages)
        self._cards = Cards(self.lanes)
        self.waits = python or self.lanes != ()

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Load a version's folder such as `models/flights/3`, or a lone .onnx file.

        Raises ModelError if the files can't be loaded, ConfigError if the settings are wrong.
        """
        return cls(Bundle.open(Path(path)))

    def __repr__(self) -> str:
        return f"Model({_few(self.signature.inputs)} -> {_few(self.signature.outputs)})"

    def predict(self, columns: object, outputs: Sequence[str] | str | None = None) -> Tensors:
        """Compute outputs for rows of any number, in batches of the model's `max_batch_rows`.

        columns  arrays or nested lists by input name; for a model of one input, it alone will do; a table or
                 a DataFrame, whose columns are matched as those of a file that is scored; for a model with a
                 transform, raw columns in any of these forms
        outputs  the names of those wanted, or one; all if None

        Raises BadRequest if the columns don't fit the signature, or it has no such output.
        """
        inputs = self._inputs_of(columns)
        known = tuple(spec.name for spec in self.signature.outputs)
        wanted = (outputs,) if isinstance(outputs, str) else tuple(outputs or known)
        for name in wanted:
            if name not in known:
                raise BadRequest(
                    f"output {shorten(name)}: the model has no such output; it has: {', '.join(known)}"
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

    def _by_column(self, columns: object) -> Tensors:
        """Inputs of arrays by name, or of a table."""
        if isinstance(columns, Mapping):
            columns = {name: self._upright(name, values) for name, values in columns.items()}
        if isinstance(columns, (Mapping, np.ndarray, list)) or (batch := batch_of(columns)) is None:
            return self.signature.inputs_of(columns)
        from driftline.protocols.arrow import Columns

        return Columns(self.signature.inputs, batch.schema).tensors(batch)

    def _upright(self, name: object, values: Any) -> Any:
        """An array of one dimension for an input of one column, as converted pipelines have them, as that."""
        upright = getattr(values, "ndim", 0) == 1 and any(
            spec.name == name and spec.shape == (-1, 1) for spec in self.signature.inputs
        )
        return np.asarray(values)[:, np.newaxis] if upright else values

    def _inputs_of(self, columns: object) -> Tensors:
        if self._features is None:
            inputs = self._by_column(columns)
            self.signature.rows(inputs)
            return inputs
        names = [spec.name for spec in self.signature.inputs]
        columns = tabled(columns)  # a stream is read once
        named = columns_of(columns, {*names, *(name.rpartition("_")[0] for name in names)})
        for name in names:
            if name not in named:
                takes, came = ", ".join(names), listed(names_in(columns))
                raise BadRequest(f"column {name!r}: the model takes the columns {takes}; came {came}")
        return {name: named[name] for name in names}

    def run(self, inputs: Tensors, outputs: Sequence[str], behind: Behind | None = None) -> Tensors:
        """Compute the named outputs of one batch that fits the signature; thread safe.

        behind  told of a batch that has crossed to a card, see Lane.run

        Raises BadRequest if the model refuses these inputs, ModelError if it fails.
        """
        made = self._made(inputs)
        if self.lanes:
            return self._cards.run(made, outputs, behind)
        return self._session.run(made, outputs)

    def _run_everywhere(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """As `run`, but on every card; the outputs of the first."""
        if not self.lanes:
            return self.run(inputs, outputs)
        first, *_ = [lane.run(self._made(inputs), outputs) for lane in self.lanes]
        return first

    def _made(self, inputs: Tensors) -> Tensors:
        """What crosses, or what the session takes."""
        return inputs if self._features is None or self.crosses else self._features.of_columns(inputs)

    def close(self) -> None:
        """Wait for what is under way on cards, and give back all that it has there; end its Python processes.

        What is run from here on raises ModelError. Memory of the CPU goes with the model.
        """
        for lane in self.lanes:
            lane.close()
        if not isinstance(self._session, Session):
            self._session.close()

    @property
    def classes(self) -> Mapping[str, tuple[int | str, ...]]:
        """The classes of outputs that are maps of scores, once a row has been computed."""
        return self._session.classes

    @property
    def predictions(self) -> Predictions | None:
        """How a model that is Python code gave what it predicted last, once it has."""
        return None if isinstance(self._session, Session) else self._session.predictions

    @property
    def unreadable(self) -> dict[str, int]:
        """Values of raw columns that were taken as missing since they could not be read, by column."""
        return self._features.unreadable if self._features is not None else {}

    def warm_up(self) -> Cost:
        """Run batches of 1, 2, 4 ... rows up to the maximum, or of every bucket on every card, so that no
        client is the first with its size.

        Returns what was learnt about service times. A model whose outputs turn out not to have a row for
        each row of input is not batched from here on. Dimensions that may vary are taken as 1; a model
        that can't compute that (a convolution, say) meets its first real batch cold.

        While Python runs the kernels of its transform, one and two rows are enough, and nothing is learnt: it
        is not `warm`, and to be warmed again when they are loaded.
        """
        cost = Cost()
        self.warm = self._features is None or not compiling.interpreted()
        wanted = tuple(spec.name for spec in self.signature.outputs)
        # Two rows at least: one row cannot show whether a model gives a row for each.
        most = max(2, self.settings.batching.max_batch_rows if self.warm else 0)
        most = most if self.signature.batched else 1
        clock = perf_counter_ns if self.waits else thread_time_ns
        buckets = self.settings.engine.buckets if self.lanes else ()
        rows, took = 1, 0
        while 2 * took < WARM_UP_NS:
            inputs = self._example(rows)
            try:
                outputs = self._run_everywhere(inputs, wanted)
                begin = clock()
                self.run(inputs, wanted)
            except DriftlineError:
                break
            took = clock() - begin
            if any(array.shape[:1] != (rows,) for array in outputs.values()):
                self.signature = replace(self.signature, batched=False)
                most = 1
            cost.learn(sum(array.size for array in inputs.values()), took)
            if rows >= most:
                break
            rows = min(bucket_of(rows + 1, buckets), most)
        for lane in self.lanes:
            lane.times = Times()  # from here on, those of clients
        return cost if self.warm else Cost()


def _few(specs: Sequence[TensorSpec]) -> str:
    """The first names, for a repr."""
    return ", ".join([*(spec.name for spec in specs[:NAMED]), *(["..."] if len(specs) > NAMED else [])])


def session_of(path: Path, engine: Engine, device: Device | None, most: int = 0) -> Session:
    """A model file loaded where it is to run: on a card's stream, or on the CPU.

    most  rows of the largest batch, 0 if not known
    """
    threads = engine.threads_on(available_cores())
    if device is None or device.memory == "cpu":
        with in_plain_words(path):
            return Session(path, "cpu", threads, engine.spinning)

    def load(*providers: Provider) -> Session:
        with in_plain_words(path):
            return Session(path, device.name, threads, engine.spinning, providers)

    plain = cuda(device, engine.tf32)
    if engine.tensorrt:
        options = building(Session(path, threads=threads).signature.inputs, most, engine.tensorrt_fp16)
        engines = folder_of(path, options)
        # One process builds, and others find it built.
        turn: AbstractContextManager[Any] = nullcontext() if engines is None else locked(engines)
        with turn, device.loading():
            try:
                return load(tensorrt(device, options, engines), plain)
            except ModelError as error:
                if NO_PROFILE not in str(error):
                    raise
                log.info("%s: TensorRT takes it in parts: an engine is built whenever a shape comes", path)
                free = {name: value for name, value in options.items() if "_profile_" not in name}
                return load(tensorrt(device, free, engines), plain)
    with device.loading():
        if not engine.cuda_graphs:
            session = load(plain)
            if session.reads(device.memory):
                return session
            session.close()  # its batches don't cross, and several may be under way at once
            return load(cuda(device, engine.tf32, shared=False))
        try:
            return load(cuda(device, engine.tf32, graphs=True))
        except ModelError as error:
            session = load(plain)
            log.warning("%s runs without CUDA graphs: %s", path, error)
            return session


def _python(folder: Path, engine: Engine) -> PythonSession:
    if not engine.trust:
        raise ConfigError(f"{folder}: this model is Python code, which runs once somebody allows it: {TRUST}")
    from driftline.engine.python import PythonSession  # Arrow takes 0.3 s to import

    return PythonSession(folder, engine)


def zeros(spec: TensorSpec, rows: int) -> Array:
    """Zeros, or empty strings, in the shape of `spec` with `rows` rows and 1 for what else may vary."""
    shape = [1 if size == -1 else size for size in spec.shape]
    if spec.shape[:1] == (-1,):
        shape[0] = rows
    return np.full(shape, "" if spec.datatype.dtype == object else 0, spec.datatype.dtype)
