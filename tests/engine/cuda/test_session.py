"""A model on a GPU, with the CPU's memory and ONNX Runtime's CPU provider in its place."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Event, get_ident

import numpy as np
import pytest
from fake_gpu import Cpu, FakeGpu
from onnx import TensorProto, helper
from onnx_models import gather, identity, save_model, scale

from driftline.engine import model as engine
from driftline.engine.cuda.session import MAX_SHAPES, DeviceSession, Layout, bucket_of
from driftline.engine.cuda.shared_lock import SharedLock
from driftline.engine.model import Model
from driftline.engine.session import UNRECORDED, Binding, Session
from driftline.errors import BadRequest, ModelError


def test_buckets_are_powers_of_two() -> None:
    assert [bucket_of(rows) for rows in (1, 2, 3, 4, 5, 128, 129)] == [1, 2, 4, 4, 8, 128, 256]


def test_a_batch_goes_in_the_smallest_bucket_that_holds_it() -> None:
    actual = [bucket_of(rows, (1, 8, 100)) for rows in (1, 2, 8, 9, 100, 101, 129)]
    assert actual == [1, 8, 8, 100, 100, 128, 256]


def test_arrays_lie_behind_each_other() -> None:
    layout = Layout.of(["a", "b"], [np.float32, np.int64], [(3, 2), (1,)])
    assert (layout.starts, layout.size) == ((0, 256), 512)
    block = np.zeros(layout.size, np.uint8)
    views = layout.views(block)
    views["a"][:], views["b"][:] = 1, 2
    assert block.nonzero()[0].max() == 256
    assert views["a"].shape == (3, 2)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 5, 17, 128])
def test_a_batch_gives_what_the_session_gives(tmp_path: Path, rows: int) -> None:
    session = Session(scale(tmp_path / "m.onnx", 2.0))
    on_device = DeviceSession(Cpu(), session)
    x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    for wanted in (["y"], ["y", "total"], ["total"]):
        expected, actual = session.run({"x": x}, wanted), on_device.run({"x": x}, wanted)
        assert list(actual) == wanted
        for name in wanted:
            np.testing.assert_array_equal(actual[name], expected[name])


def test_what_the_cpu_reads_is_not_bound_on_a_gpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Elsewhere(Cpu):
        memory = "cuda"

    session = Session(scale(tmp_path / "m.onnx", 2.0))  # ONNX Runtime would copy what is bound once
    assert (session.reads("cpu"), session.reads("cuda")) == (True, False)
    with caplog.at_level("INFO"):
        on_device = DeviceSession(Elsewhere(), session)
    assert (
        "a model starts on the CPU, or does not read an input: ONNX Runtime copies its batches" in caplog.text
    )
    for value in (1, 2):
        x = np.full((2, 3), value, np.float32)
        assert on_device.run({"x": x}, ["y"])["y"].tolist() == (2 * x).tolist()
    assert on_device.buffers == []


def test_rows_that_belong_together_are_not_filled_up(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=1),
        helper.make_node("Div", ["x", "sum"], ["y"]),
    ]
    folder = tmp_path / "m"
    save_model(folder / "model.onnx", nodes, *({name: (TensorProto.FLOAT, ("N", 1))} for name in "xy"))
    (folder / "driftline.toml").write_text("[batching]\nmax_batch_rows = 0\n")
    session = DeviceSession(Cpu(), Session(folder / "model.onnx"), by_rows=False)
    model = Model.load(folder)
    x = np.array([[1], [2], [5]], np.float32)
    assert session.run({"x": x}, ["y"])["y"].tolist() == model.run({"x": x}, ["y"])["y"].tolist()
    assert session.buffers == []


def test_the_order_of_names_makes_no_shape_of_its_own(tmp_path: Path) -> None:
    session = DeviceSession(Cpu(), Session(scale(tmp_path / "m.onnx", 2.0)))
    x = np.ones((2, 3), np.float32)
    assert [list(session.run({"x": x}, names)) for names in (["y", "total"], ["total", "y"])] == [
        ["y", "total"], ["total", "y"],
    ]  # fmt: skip
    assert len(session.buffers) == 1


def test_where_the_gpu_has_no_room_batches_go_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Cpu()
    session = DeviceSession(device, Session(scale(tmp_path / "m.onnx", 2.0)))

    def full(*_: object) -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr(device, "empty", full)
    assert session.run({"x": np.ones((2, 3), np.float32)}, ["total"])["total"].tolist() == [6.0, 6.0]
    assert session.buffers == []


def test_a_batch_that_a_gpu_fails_goes_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = FakeGpu()
    session = DeviceSession(device, Session(scale(tmp_path / "m.onnx", 2.0)))
    x = {"x": np.ones((2, 3), np.float32)}
    session.run(x, ["y"])

    def fail(*_: object) -> None:
        raise OSError("CUDA_ERROR_LAUNCH_FAILED")

    with monkeypatch.context() as broken:
        broken.setattr(device, "copy_in", fail)
        assert (session.run(x, ["y"])["y"] == 2).all()
    assert [record.message for record in caplog.records] == [
        "ONNX Runtime copies a batch of 2 rows: CUDA_ERROR_LAUNCH_FAILED"
    ]
    before = device.batches
    assert (session.run(x, ["y"])["y"] == 2).all()
    assert device.batches == before + 1


def test_answers_are_kept_by_whoever_has_them(tmp_path: Path) -> None:
    session = DeviceSession(Cpu(), Session(scale(tmp_path / "m.onnx", 2.0)))
    first = session.run({"x": np.ones((2, 3), np.float32)}, ["y"])["y"]
    for _ in range(3):
        session.run({"x": np.zeros((2, 3), np.float32)}, ["y"])
    assert (first == 2).all()


def test_threads_do_not_mix_batches(tmp_path: Path) -> None:
    session = DeviceSession(Cpu(), Session(scale(tmp_path / "m.onnx", 2.0)))

    def work(number: int) -> bool:
        x = np.full((number % 7 + 1, 3), number, np.float32)
        return bool((session.run({"x": x}, ["y"])["y"] == 2 * number).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(200)))
    assert min(session.times.input_ns, session.times.infer_ns, session.times.output_ns) > 0


def test_what_the_model_refuses_leaves_the_session_as_it_was(tmp_path: Path) -> None:
    session = DeviceSession(Cpu(), Session(gather(tmp_path / "m.onnx")))
    name = session._session.signature.inputs[0].name
    wanted = [spec.name for spec in session._session.signature.outputs]
    shape = (2, *session._session.signature.inputs[0].shape[1:])
    good, bad = np.zeros(shape, np.int64), np.full(shape, 10**6, np.int64)
    for _ in range(3):
        session.run({name: good}, wanted)
        with pytest.raises(BadRequest, match="refused"):
            session.run({name: bad}, wanted)


def test_strings_and_what_has_no_row_for_each_go_the_old_way(tmp_path: Path) -> None:
    strings = DeviceSession(Cpu(), Session(identity(tmp_path / "s.onnx", "BYTES")))
    given = np.array([["a", "b", "c"]], object)
    assert strings.run({"x": given}, ["y"])["y"].tolist() == given.tolist()
    path = save_model(
        tmp_path / "t.onnx",
        [helper.make_node("Transpose", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, ("N", 3))},
        {"y": (TensorProto.FLOAT, ("M", "K"))},
    )
    session, x = DeviceSession(Cpu(), Session(path)), np.arange(15, dtype=np.float32).reshape(5, 3)
    assert session.run({"x": x}, ["y"])["y"].tolist() == x.T.tolist()


def test_memory_does_not_grow_with_shapes(tmp_path: Path) -> None:
    session = DeviceSession(Cpu(), Session(identity(tmp_path / "m.onnx", "FP32", ("N", "M"))))
    for width in range(1, MAX_SHAPES + 10):
        x = np.full((2, width), width, np.float32)
        assert session.run({"x": x}, ["y"])["y"].tolist() == x.tolist()
    assert len(session._buffers) == MAX_SHAPES


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The thread and the graph of all that bindings are asked for from here on."""
    actual: list[tuple[int, int]] = []
    run = Binding.run

    def note(self: Binding) -> None:
        actual.append((get_ident(), self.graph))
        run(self)

    monkeypatch.setattr(Binding, "run", note)
    return actual


def with_graphs(path: Path) -> Session:
    """A session that says that it can be recorded; the CPU doesn't care."""
    session = Session(path)
    session.graphs = True
    return session


def test_every_shape_is_a_graph_of_its_own_and_one_thread_asks_for_all(
    tmp_path: Path, runs: list[tuple[int, int]]
) -> None:
    session = DeviceSession(FakeGpu(), with_graphs(scale(tmp_path / "m.onnx", 2.0)))

    def work(number: int) -> bool:
        x = np.full((number % 7 + 1, 3), number, np.float32)
        return bool((session.run({"x": x}, ["y"])["y"] == 2 * number).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(100)))
    recorded = [(thread, graph) for thread, graph in runs if graph != UNRECORDED]
    assert len({thread for thread, _ in recorded}) == 1
    assert {graph for _, graph in recorded} == {1, 2, 3, 4}
    assert len(recorded) == 4 + 100  # each shape once before its batches
    assert len(runs) - len(recorded) == 4  # that told the shapes of its outputs
    session.close()


def test_recording_is_alone_and_keeps_nobody_waiting_for_ever(tmp_path: Path) -> None:
    lock, inside = SharedLock(), set[int]()

    class Guarded(FakeGpu):
        @contextmanager
        def active(self) -> Iterator[None]:
            with lock.shared():
                inside.add(get_ident())
                yield
                inside.discard(get_ident())

        @contextmanager
        def exclusive(self) -> Iterator[bool]:
            with lock.exclusive(60) as held:
                assert not inside
                yield held
                assert not inside

    sessions = [DeviceSession(Guarded(), with_graphs(scale(tmp_path / f"{n}.onnx", 2.0))) for n in range(2)]

    def work(number: int) -> bool:
        x = np.full((number % 19 + 1, 3), number, np.float32)
        return bool((sessions[number % 2].run({"x": x}, ["y"])["y"] == 2 * number).all())

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(300), timeout=120))
    assert [len(session.buffers) for session in sessions] == [6, 6]


def test_a_shape_is_not_recorded_while_a_model_is_loaded(tmp_path: Path, runs: list[tuple[int, int]]) -> None:
    class Loading(FakeGpu):
        @contextmanager
        def exclusive(self) -> Iterator[bool]:
            yield False

    session = DeviceSession(Loading(), with_graphs(scale(tmp_path / "m.onnx", 2.0)))
    for _ in range(2):
        assert (session.run({"x": np.ones((3, 3), np.float32)}, ["y"])["y"] == 2).all()
    assert {graph for _, graph in runs} == {UNRECORDED}
    session.close()


def test_what_cannot_be_recorded_runs_as_without_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, failed = Binding.run, []

    def fail(self: Binding) -> None:
        if self.graph != UNRECORDED:
            failed.append(self.graph)
            raise ModelError("operation not permitted when stream is capturing")
        run(self)

    monkeypatch.setattr(Binding, "run", fail)
    session = DeviceSession(FakeGpu(), with_graphs(scale(tmp_path / "m.onnx", 2.0)))
    for rows in (1, 3, 3, 9):
        x = np.ones((rows, 3), np.float32)
        assert (session.run({"x": x}, ["y"])["y"] == 2).all()
    assert (failed, len(session.buffers)) == ([1], 3)
    assert [record.message for record in caplog.records] == [
        "cuda:0 goes on without CUDA graphs: operation not permitted when stream is capturing"
    ]


def test_a_closed_session_holds_nothing(tmp_path: Path) -> None:
    device, inner = FakeGpu(), Session(scale(tmp_path / "m.onnx", 2.0))
    session, ended = DeviceSession(device, inner), weakref.ref(inner._session)
    x = np.ones((5, 3), np.float32)
    gc.disable()  # nothing waits for it
    try:
        session.run({"x": x}, ["y"])
        assert device.held > 0
        kept = [device.empty((10,), np.uint8)]
        session.on_close(kept.clear)
        session.close()
        assert device.held_when_given_back == 0
        session.close()
        assert (device.held, ended()) == (0, None)
    finally:
        gc.enable()
    with pytest.raises(ModelError, match="the model is closed"):
        session.run({"x": x}, ["y"])
    with pytest.raises(ModelError, match="the model is closed"):
        session.on_close(kept.clear)


def test_what_is_under_way_is_answered_before_a_session_is_closed(tmp_path: Path) -> None:
    entered, go_on = Event(), Event()

    class Slow(FakeGpu):
        def copy_out(self, there: np.ndarray, here: np.ndarray) -> None:
            entered.set()
            assert go_on.wait(60)
            super().copy_out(there, here)

    device = Slow()
    session = DeviceSession(device, Session(scale(tmp_path / "m.onnx", 2.0)))
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(session.run, {"x": np.ones((2, 3), np.float32)}, ["y"])
        assert entered.wait(60)
        closing = pool.submit(session.close)
        go_on.set()
        assert (answer.result(60)["y"] == 2).all()
        closing.result(60)
    assert device.held == 0


def test_a_model_is_warmed_up_for_every_bucket_of_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    scale(folder / "model.onnx", 2.0)
    (folder / "driftline.toml").write_text(
        "[engine]\nbuckets = [1, 5, 6, 24]\n[batching]\nmax_batch_rows = 40\n"
    )
    monkeypatch.setattr(engine, "find", lambda wanted: Cpu())
    model = Model.load(folder)
    model.warm_up()
    assert [buffers.rows for buffers in model.device_sessions[0].buffers] == [1, 5, 6, 24, 32, 64]
    x = np.arange(54, dtype=np.float32).reshape(18, 3)
    np.testing.assert_array_equal(model.predict(x)["y"], 2 * x)
    assert len(model.device_sessions[0].buffers) == 6


def test_a_model_runs_on_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scale(tmp_path / "m.onnx", 2.0)
    plain = Model.load(path)
    assert plain.device_sessions == ()
    assert not plain.runs_elsewhere
    monkeypatch.setattr(engine, "find", lambda wanted: Cpu())
    model, x = Model.load(path), np.arange(900, dtype=np.float32).reshape(300, 3)
    assert model.runs_elsewhere
    model.warm_up()
    for name, array in plain.predict(x).items():
        np.testing.assert_array_equal(model.predict(x)[name], array)


def test_a_session_knows_that_its_gpu_is_lost(tmp_path: Path) -> None:
    class Breaking(Cpu):
        failing, why = False, ""

        def active(self) -> AbstractContextManager[None]:
            if self.failing:
                raise RuntimeError("out of memory")
            return nullcontext()

        def failure(self) -> str:
            return self.why

    device, x = Breaking(), np.ones((2, 3), np.float32)
    session = DeviceSession(device, Session(scale(tmp_path / "m.onnx", 2.0)))
    assert session.run({"x": x}, ["y"])["y"].tolist() == (2 * x).tolist()
    device.failing = True
    with pytest.raises(ModelError, match="out of memory"):
        session.run({"x": x}, ["y"])
    assert session.failure == ""
    device.why = "it is lost"
    with pytest.raises(ModelError, match="it is lost"):
        session.run({"x": x}, ["y"])
    assert session.failure == "it is lost"
