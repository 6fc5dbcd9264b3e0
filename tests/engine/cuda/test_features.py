"""A transform on the way over a GPU, with the CPU's memory in its place: it has the transform's bits."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import Cpu
from features.test_cuda import columns, every_step
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import with_transform

import driftline as dl
from driftline.engine import model as engine
from driftline.engine.model import Model
from driftline.errors import BadRequest, ModelError
from driftline.features.program import reads_first
from driftline_kernels import transforms as kernel

NUMBERS = st.one_of(st.just(np.nan), st.sampled_from([np.inf, -np.inf, -0.0, 1e300]), st.floats(-1e6, 1e6))
TEXTS = st.one_of(st.none(), st.sampled_from(["a", "b", "ä", "", "x" * 40]), st.text(max_size=9))
TIMES = st.one_of(st.none(), st.datetimes().map(str), st.dates().map(str))
ROW = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, TEXTS, TEXTS, TEXTS, st.integers(-2, 9), TIMES, TIMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_transform(tmp_path_factory.mktemp("every"), every_step("zeros"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    """On the GPU, with every step."""
    return on_gpu(folder)


def on_gpu(folder: Path) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "find", lambda wanted: Cpu())
        return Model.load(folder)


def same(model: Model, rows: dict[str, Any]) -> None:
    """One batch that is copied is what the transform makes of it."""
    assert model.copies_inputs
    (result,) = model.run(rows, ["y"]).values()
    wanted = dl.Transform.apply(model._features.transform, rows)
    assert result.tobytes() == wanted.tobytes()
    assert result.shape == wanted.shape


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=20))
def test_a_batch_has_the_bits_of_the_transform(model: Model, rows: list[tuple[Any, ...]]) -> None:
    kinds = (*(float,) * 4, *(object,) * 3, float, object, object)
    same(
        model,
        {
            name: np.array(column, kind)
            for name, column, kind in zip("abcdstunyz", zip(*rows, strict=True), kinds, strict=True)
        },
    )


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 17, 60])
def test_tails_are_filled_up_and_cut(model: Model, rows: int) -> None:
    same(model, {name: column[:rows] for name, column in columns(1).items()})


def test_no_register_that_was_read_is_written() -> None:
    transform, data = every_step("zeros"), columns(1)
    program = reads_first(transform.program)
    rows, count = len(data["a"]), len(program.reads)
    registers = np.zeros((program.registers, rows))
    out = np.empty((rows, transform.width), np.float32)
    transform.read(data, program, registers)
    actual = registers[:count].copy()
    kernel.run(registers, program, out)
    assert registers[:count].tobytes() == actual.tobytes()
    assert out.tobytes() == transform.apply(data).tobytes()
    assert program.reads[:, 1].tolist() == [*range(count)]


def test_what_can_not_be_read_is_said_as_ever(model: Model) -> None:
    good, bad = columns(1), columns(1)
    bad["y"] = np.array(["2024-01-01"] * 59 + ["soon"], object)
    for _ in range(3):  # there are two slots
        with pytest.raises(BadRequest, match=r"column 'y', row 59: expected dates or times, got 'soon'"):
            model.run(bad, ["y"])
    with pytest.raises(BadRequest, match=r"column 'a'"):
        model.run({name: column for name, column in good.items() if name != "a"}, ["y"])
    same(model, good)


def test_rows_beyond_the_memory_of_a_form_are_not_read(model: Model) -> None:
    """A column that the transform doesn't read, of fewer rows than the others."""
    with pytest.raises(BadRequest, match="expected 2 rows at most, got 60"):
        model.run({"other": np.zeros(2), **columns(1)}, ["y"])


def test_threads_do_not_mix_batches(model: Model) -> None:
    batches = [columns(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: same(model, batches[number % 8]), range(64)))


def test_it_is_warmed_with_what_is_copied(folder: Path) -> None:
    model = on_gpu(folder)
    model.warm_up()
    assert len(model.device_sessions[0].buffers) > 3
    assert model.unreadable == {}


def test_an_unknown_category_that_is_an_error_stays_on_the_cpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transform = every_step()
    with caplog.at_level(logging.INFO, "driftline.device"):
        model = on_gpu(with_transform(tmp_path, transform))
    assert not model.copies_inputs
    assert [record.message for record in caplog.records] == [
        "features are computed on the CPU: only there, an unknown category of 'n' is an error that names "
        "its row"
    ]
    data = columns(1)
    with pytest.raises(BadRequest, match=r"column 'n', row \d+: expected a category that was fitted, got 5"):
        model.run(data, ["y"])
    known = {name: column[data["n"] < 5] for name, column in data.items()}
    assert model.run(known, ["y"])["y"].tobytes() == transform.apply(known).tobytes()


@pytest.mark.parametrize("fails", ["memory", "model", "whole"])
def test_what_does_not_cross_is_made_on_the_cpu(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """No room on the GPU, a model that fails there, rows that belong together."""

    def failing(*arguments: Any) -> None:
        raise MemoryError if fails == "memory" else ModelError("it failed")

    if fails == "whole":
        folder = with_transform(tmp_path, every_step("zeros"))
        (folder / "driftline.toml").write_text("[batching]\nmax_batch_rows = 0\n")
    model, rows = on_gpu(folder), columns(1)
    if fails == "memory":
        monkeypatch.setattr(model.device_sessions[0].device, "empty", failing)
    elif fails == "model":
        model.run(rows, ["y"])
        (buffers,) = model.device_sessions[0].buffers
        monkeypatch.setattr(type(buffers.binding), "run", failing)
    result = model.run(rows, ["y"])["y"]
    assert result.tobytes() == model._features.transform.apply(rows).tobytes()
    assert len(model.device_sessions[0].buffers) == (fails == "model")
