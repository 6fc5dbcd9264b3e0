"""Rows shared among threads come back in order, in batches of the cheapest size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_models import gather, identity, scale

from driftline.engine.model import Model
from driftline.engine.parallel import MAX_ROWS, BatchSizeSearch, ParallelRunner
from driftline.errors import BadRequest


def settle(sizes: BatchSizeSearch, ns_per_row: dict[int, float]) -> list[int]:
    """The sizes that are tried, each as dear as said (1 otherwise), until nothing changes any more."""
    tried = []
    for _ in range(100):
        size = sizes.next()
        if size not in tried:
            tried.append(size)
        sizes.learn(size, round(size * ns_per_row.get(size, 1.0)))
    return [*tried, sizes.next()]


@pytest.mark.parametrize(
    ("ns_per_row", "tried"),
    [
        ({}, [2048, 4096, MAX_ROWS, 2048]),
        ({2048: 90, 4096: 60, 8192: 50}, [2048, 4096, MAX_ROWS, MAX_ROWS]),
        ({2048: 90, 4096: 100, 8192: 1}, [2048, 4096, 2048]),
        ({2048: 90, 4096: 95, 8192: 80}, [2048, 4096, MAX_ROWS, MAX_ROWS]),
    ],
    ids=["equal", "larger", "dearer", "a little dearer"],
)
def test_it_doubles_as_long_as_rows_get_no_dearer(ns_per_row: dict[int, float], tried: list[int]) -> None:
    assert settle(BatchSizeSearch(2048), ns_per_row) == tried


def test_none_is_larger_than_may_be_tried() -> None:
    assert settle(BatchSizeSearch(128, 300), {}) == [128, 256, 128]
    assert settle(BatchSizeSearch(128, 128), {}) == [128, 128]


def test_one_slow_batch_decides_nothing() -> None:
    sizes = BatchSizeSearch(128)
    for ns_per_row in (5000.0, 100.0, 100.0):
        sizes.learn(128, round(128 * ns_per_row))
    for ns_per_row in (9000.0, 90.0, 9000.0):
        sizes.learn(256, round(256 * ns_per_row))
    assert sizes.next() == 512


@pytest.mark.parametrize("threads", [1, 5])
def test_blocks_come_back_whole_and_in_order(tmp_path: Path, threads: int) -> None:
    model = Model.load(scale(tmp_path / "double.onnx", 2.0))
    rows = [np.random.default_rng(count).random((count, 3), np.float32) for count in (1, 7, 20_000, 129)]
    with ParallelRunner(model, threads) as runner:
        blocks = [runner.start({"x": matrix}, ("total", "y"), len(matrix)) for matrix in rows]
        for matrix, block in zip(rows, blocks, strict=True):
            outputs = block.result()
            assert list(outputs) == ["total", "y"]
            np.testing.assert_array_equal(outputs["y"], 2 * matrix)


def test_a_model_without_batches_gets_all_at_once(tmp_path: Path) -> None:
    model = Model.load(identity(tmp_path / "fixed.onnx", "FP32", (300, 3)))
    matrix = np.arange(900, dtype=np.float32).reshape(300, 3)
    with ParallelRunner(model, 2) as runner:
        np.testing.assert_array_equal(runner.start({"x": matrix}, ("y",), 300).result()["y"], matrix)


def test_what_a_run_raises_is_raised(tmp_path: Path) -> None:
    model = Model.load(gather(tmp_path / "gather.onnx"))
    indices = np.zeros(10_000, np.int64)
    indices[7_000] = 99
    with ParallelRunner(model, 2) as runner:
        block = runner.start({"i": indices}, ("y",), len(indices))
        with pytest.raises(BadRequest, match="out of data bounds"):
            block.result()
