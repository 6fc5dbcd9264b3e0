"""Models that are Python code, in processes of their own; most tests share one."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from waiting import until

from driftline.config import Engine
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.engine.python.session import PythonSession, Slot
from driftline.engine.python.worker import Memory, to_array
from driftline.errors import BadRequest, ConfigError, ModelError, Unavailable
from driftline.tensors import Tensors

MIB = 2**20
OUTPUTS = ("twice", "said", "day", "tags", "pid")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The obedient model, saved by MLflow."""
    path = tmp_path_factory.mktemp("pyfunc") / "model"
    code = f"""
import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import Array, DataType
inputs = [ColSpec("double", "x"), ColSpec("string", "do", required=False), ColSpec("datetime", "day"),
          ColSpec(Array(DataType.long), "tags")]
outputs = [ColSpec("double", "twice"), ColSpec("string", "said"), ColSpec("long", "day"),
           ColSpec("long", "tags"), ColSpec("long", "pid")]
mlflow.pyfunc.save_model({str(path)!r}, python_model={str(Path(__file__).with_name("pyfunc_code.py"))!r},
                         signature=ModelSignature(Schema(inputs), Schema(outputs)), pip_requirements=[])
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return path


def settings(**engine: object) -> Engine:
    return replace(Engine(trust=True, memory_bytes=700 * MIB), **engine)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Model]:
    bundle = Bundle.open(folder)
    yield Model(replace(bundle, settings=replace(bundle.settings, engine=settings())))
    gc.collect()


@pytest.fixture
def session(model: Model) -> PythonSession:
    assert isinstance(model._session, PythonSession)
    return model._session


def rows(*do: str | None, x: float = 1.5) -> Tensors:
    return {
        "x": np.full(len(do), x),
        "do": np.array(do, object),
        "day": np.array(["2013-02-01", ""][: len(do)] + ["2013-12-31"] * (len(do) - 2), object),
        "tags": np.array(["[1, 2]"] * len(do), object),
    }


def test_columns_come_as_mlflow_has_them(session: PythonSession) -> None:
    assert session.signature.batched
    assert [spec.as_json() for spec in session.signature.inputs] == [
        {"name": "x", "datatype": "FP64", "shape": [-1]},
        {"name": "do", "datatype": "BYTES", "shape": [-1]},
        {"name": "day", "datatype": "BYTES", "shape": [-1]},
        {"name": "tags", "datatype": "BYTES", "shape": [-1]},
    ]
    result = session.run(rows("fly", None, "swim"), OUTPUTS)
    assert result["twice"].tolist() == [3.0, 3.0, 3.0]
    assert result["said"].tolist() == ["fly", "nothing", "swim"]
    assert result["day"].tolist() == [32, -1, 365]
    assert result["tags"].tolist() == [2, 2, 2]


def test_what_it_gave_before_is_not_written_over(session: PythonSession) -> None:
    first = session.run(rows("a", x=1.0), ("twice",))
    session.run(rows("b", x=2.0), ("twice",))
    assert first["twice"].tolist() == [2.0]


def test_memory_grows_with_batches(session: PythonSession) -> None:
    for count in (1, 5_000, 1, 20_000):
        result = session.run(rows(*["x" * 20] * count), OUTPUTS)
        assert (result["twice"] == 3).all()
        assert set(result["said"]) == {"x" * 20}


def test_what_it_prints_is_logged_and_harms_nothing(
    session: PythonSession, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "driftline.python"):
        assert session.run(rows("print"), ("said",))["said"].tolist() == ["print"]
        until(lambda: "hello from the model" in caplog.text and "and from its stderr" in caplog.text)


def test_what_it_raises_is_an_error_of_the_model(session: PythonSession) -> None:
    with pytest.raises(ModelError, match=r"^the model failed: ValueError: no such thing$"):
        session.run(rows("raise"), OUTPUTS)
    assert session.run(rows("a"), ("said",))["said"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("day", "yesterday", "column 'day': expected datetime"), ("tags", "[1", "column 'tags': expected JSON"),
     ("tags", '["a"]', "the model refused the inputs: ")],
)  # fmt: skip
def test_inputs_that_are_not_what_they_should_be_are_refused(
    session: PythonSession, name: str, value: str, message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        session.run(rows("a") | {name: np.array([value], object)}, OUTPUTS)


def test_more_memory_than_it_may_have_is_refused_to_it(session: PythonSession) -> None:
    expected = r"the model failed: .*MemoryError.*; it may have 700 MiB \(\[engine\] memory_bytes\)"
    with pytest.raises(ModelError, match=expected):
        session.run(rows("eat"), OUTPUTS)
    assert session.run(rows("a"), ("said",))["said"].tolist() == ["a"]


def test_a_process_that_dies_is_started_again(session: PythonSession) -> None:
    pid = session.run(rows("a"), ("pid",))["pid"][0]
    with pytest.raises(
        ModelError, match="the model's process has ended with exit code 3; it is started again"
    ):
        session.run(rows("die"), OUTPUTS)
    after = session.run(rows("a"), ("pid",))["pid"][0]
    assert after != pid
    os.kill(after, signal.SIGKILL)
    process = session._slots[0]._process
    assert process is not None
    until(process.is_dead)
    assert session.run(rows("a"), ("pid",))["pid"][0] not in (pid, after)


def test_a_process_ends_with_its_server(folder: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from driftline.engine.python.session import Slot
slots = [Slot(sys.executable, Path({str(folder)!r}), 2**30) for _ in range(2)]
print(*(slot._process._popen.pid for slot in slots), flush=True)
slots[1].close()
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        first, second = map(int, server.stdout.readline().split())
        until(lambda: gone(second))
        assert not gone(first)
        server.kill()
        server.wait()
        until(lambda: gone(first))


def test_a_process_that_keeps_dying_is_started_later_and_later(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    slot = Slot(interpreter(tmp_path, f"echo >> {starts}; exit 7"), tmp_path, MIB)
    with pytest.raises(ModelError, match="has ended with exit code 7; it is started again"):
        slot.ask({"x": np.ones(1)})
    for deaths in (2, 3):
        with pytest.raises(Unavailable, match=f"died {deaths} times in a row; it is started again in"):
            ask_until_refused(slot)
        assert len(starts.read_text()) == deaths
        slot._not_before = 0.0


def test_a_model_that_cannot_be_loaded_says_why(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the interpreter .*none can't be started: No such file"):
        PythonSession(folder, settings(python=str(tmp_path / "none")))
    with pytest.raises(ModelError, match="the model's process has ended with exit code 7"):
        PythonSession(folder, settings(python=interpreter(tmp_path, "exit 7")))
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {loader_module: nowhere}}")
    with pytest.raises(ModelError, match="MLmodel: expected a signature, there is none; log the model with"):
        PythonSession(tmp_path, settings())
    columns = json.dumps([{"type": "double", "name": "x"}])
    (tmp_path / "MLmodel").write_text(
        json.dumps(
            {"flavors": {"python_function": {"loader_module": "nowhere"}}, "signature": {"inputs": columns}}
        )
    )
    with pytest.raises(ModelError, match="can't be loaded: ModuleNotFoundError: No module named 'nowhere'"):
        PythonSession(tmp_path, settings())


def test_code_runs_only_if_somebody_vouches_for_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"this model is Python code.* `--trust` does"):
        Model.load(folder)
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {}}")
    (tmp_path / "driftline.toml").write_text("[engine]\ntrust = true")
    with pytest.raises(ConfigError, match=r"engine\.trust = true: a model can't vouch for itself"):
        Bundle.open(tmp_path)


def test_a_model_waits_in_a_thread(model: Model) -> None:
    assert model.runs_elsewhere
    cost = model.warm_up()
    assert cost.predict(4) > 100_000  # what passes, not what our thread computes
    many = model.predict(rows(*"abc" * 100), ["said"])
    assert "".join(many["said"]) == "abc" * 100


@hypothesis.settings(max_examples=40)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1),
        st.sampled_from(["?", "i1", "<u2", "<i4", "<i8", "<f2", "<f4", "<f8"]).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0))
        ),
        min_size=1,
    )
)
def test_tensors_pass_through_memory_unchanged(tensors: Tensors) -> None:
    descriptor = os.memfd_create("test")
    try:
        size = Memory(descriptor).write(tensors)
        result = Memory(descriptor).read(size)
        assert result.keys() == tensors.keys()
        for name, array in tensors.items():
            assert (result[name].dtype, result[name].shape) == (array.dtype, array.shape)
            assert result[name].tobytes() == array.tobytes()
    finally:
        os.close(descriptor)


@given(st.lists(st.none() | st.text(st.characters(codec="utf-8"))))
def test_texts_pass_through_memory_unchanged(texts: list[str | None]) -> None:
    descriptor = os.memfd_create("test")
    try:
        size = Memory(descriptor).write({"x": np.array(texts, object)})
        assert Memory(descriptor).read(size)["x"].tolist() == texts
    finally:
        os.close(descriptor)


def test_memory_needs_no_pandas() -> None:
    code = """
import os, sys
import numpy as np
from driftline.engine.python.worker import Memory
memory = Memory(os.memfd_create("test"))
memory.read(memory.write({"x": np.ones(3), "y": np.array(["a", None], object)}))
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_models_give_becomes_numbers_or_text() -> None:
    assert to_array([True, None, 2]).tolist()[::2] == [1.0, 2.0]
    assert to_array(["a", None, 1]).tolist() == ["a", None, "1"]
    assert to_array(np.array(["a", "bc"])).tolist() == ["a", "bc"]
    assert to_array(np.array(["2013-01-01"], "datetime64[s]")).tolist() == ["2013-01-01T00:00:00"]
    odd = np.empty(2, object)
    odd[:] = [b"\x00", {"a": [1]}]
    assert to_array(odd).tolist() == ["AA==", '{"a": [1]}']


def interpreter(folder: Path, script: str) -> str:
    """A file that is started like Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def ask_until_refused(slot: Slot) -> None:
    while True:
        with suppress(ModelError):
            slot.ask({"x": np.ones(1)})


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
