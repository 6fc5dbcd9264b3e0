"""What ONNX Runtime is told of a card, and what is done if it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cards import Card
from support import scale

from driftline.config import Engine
from driftline.engine import model as engine
from driftline.engine import providers
from driftline.engine.session import Session
from driftline.errors import ModelError

PATH = Path("m.onnx")


class Elsewhere(Card):
    """A card whose memory is not the CPU's, for what is only told of it."""

    memory, index, stream = "cuda", 1, 4096


def told(monkeypatch: pytest.MonkeyPatch, path: Path, settings: Engine, *refused: str) -> list[Any]:
    """The providers of all attempts to load a model, of which ONNX Runtime refuses those with such options."""
    found = []

    def load(path: Path, device: str, threads: int, spinning: bool, given: Any) -> Session:
        found.append([(name, dict(options)) for name, options in given])
        if any(option in options for _, options in given for option in refused):
            raise ModelError(f"{path}: control flow nodes")
        return Session(path)

    monkeypatch.setattr(engine, "Session", load)
    engine.session_of(path, settings, Elsewhere("cuda:1"))
    return found


CUDA = ("CUDAExecutionProvider", {"device_id": "1", "user_compute_stream": "4096"})
GRAPHS = ("CUDAExecutionProvider", CUDA[1] | {"enable_cuda_graph": "1"})


def test_the_provider_of_a_card_is_told_its_stream_and_whether_it_records() -> None:
    card = Elsewhere("cuda:1")
    assert providers.cuda(card, False) == CUDA
    assert providers.cuda(card, True) == GRAPHS


def test_a_model_that_cannot_be_recorded_is_loaded_without_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = scale(tmp_path / "m.onnx", 2.0)
    assert told(monkeypatch, path, Engine()) == [[CUDA]]
    assert told(monkeypatch, path, Engine(cuda_graphs=True)) == [[GRAPHS]]
    assert not caplog.records
    attempts = told(monkeypatch, path, Engine(cuda_graphs=True), "enable_cuda_graph")
    assert attempts == [[GRAPHS], [CUDA]]
    assert [record.message for record in caplog.records] == [
        f"{path} runs without CUDA graphs: {path}: control flow nodes"
    ]
    caplog.clear()
    with pytest.raises(ModelError):
        told(monkeypatch, path, Engine(cuda_graphs=True), "device_id")
    assert not caplog.records
