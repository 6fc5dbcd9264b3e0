"""Batches on their way to the monitor, behind their answers."""

from __future__ import annotations

import asyncio
import random
import weakref
from typing import Any

import numpy as np
import pytest

from driftline.blocks import Blocks
from driftline.serving.monitoring.deferred import MAX_VALUES, MAX_WAIT_SECONDS, TARGET_ROWS, Deferred
from driftline.tensors import Tensors


class Seen:
    """What was observed: the number that each row is of, by piece."""

    def __init__(self) -> None:
        self.pieces: list[list[int]] = []
        self.deferred = Deferred(self._observe)
        self.given_rows = 0

    def give(self, rows: int) -> None:
        numbers = np.arange(self.given_rows, self.given_rows + rows)
        self.given_rows += rows
        self.deferred.add({"x": numbers}, {"y": -numbers})

    def _observe(self, inputs: Tensors, outputs: Tensors) -> None:
        assert (inputs["x"] == -outputs["y"]).all()
        self.pieces.append(inputs["x"].tolist())

    @property
    def rows(self) -> list[int]:
        return [row for piece in self.pieces for row in piece]


async def test_few_rows_are_observed_after_a_while() -> None:
    seen = Seen()
    seen.give(3)
    seen.give(2)
    await asyncio.sleep(0)
    assert seen.pieces == []
    await asyncio.sleep(3 * MAX_WAIT_SECONDS)
    assert seen.pieces == [[0, 1, 2, 3, 4]]


async def test_many_rows_are_observed_in_the_next_turn_of_the_loop() -> None:
    seen = Seen()
    while seen.given_rows < TARGET_ROWS:
        seen.give(100)
    seen.give(7)
    await asyncio.sleep(0)
    assert [len(piece) for piece in seen.pieces] == [seen.given_rows]


@pytest.mark.parametrize("seed", range(5))
async def test_all_are_observed_once_whatever_comes_when(seed: int) -> None:
    chance, seen = random.Random(seed), Seen()
    for _ in range(300):
        seen.give(chance.choice((1, 1, 1, 7, 128, 2000)))
        if chance.random() < 0.3:
            await asyncio.sleep(0)
        if chance.random() < 0.02:
            seen.deferred.catch_up()
            assert len(seen.rows) == seen.given_rows
    seen.deferred.catch_up()
    assert sorted(seen.rows) == list(range(seen.given_rows))
    before = len(seen.pieces)
    await asyncio.sleep(2 * MAX_WAIT_SECONDS)
    assert len(seen.pieces) == before


class Pieces:
    """What was observed, as it was then."""

    def __init__(self) -> None:
        self.seen: list[dict[str, list[Any]]] = []
        self.deferred = Deferred(self._observe)

    def _observe(self, inputs: Tensors, outputs: Tensors) -> None:
        self.seen.append({name: array.tolist() for name, array in (*inputs.items(), *outputs.items())})


async def test_small_batches_of_one_form_are_observed_as_one_and_others_for_themselves() -> None:
    pieces = Pieces()
    row, outputs = np.ones((1, 3), np.float32), {"y": np.ones(1)}
    pieces.deferred.add({"x": row}, outputs)
    pieces.deferred.add({"x": 2 * row}, outputs)
    await asyncio.sleep(0)
    row[:] = 5  # what is put together was copied
    for inputs in ({"x": row[:, :2]}, {"z": row}, {"x": row[:0]}, {"x": row}):
        pieces.deferred.add(inputs, outputs)
    pieces.deferred.catch_up()
    pieces.deferred.catch_up()
    assert pieces.seen == [
        {"x": [[1, 1, 1], [2, 2, 2]], "y": [1, 1]},
        {"x": [[5, 5]], "y": [1]},
        {"z": [[5, 5, 5]], "y": [1]},
        {"x": [], "y": [1]},
        {"x": [[5, 5, 5]], "y": [1]},
    ]


async def test_outputs_of_other_lengths_are_never_made_to_fit() -> None:
    pieces = Pieces()
    good = {"x": np.arange(5.0)}, {"y": np.arange(5.0)}
    pieces.deferred.add(*good)
    for answers in (np.zeros(1), np.zeros(2), np.zeros((5, 4))):
        pieces.deferred.add(good[0], {"y": answers})
    pieces.deferred.add(*good)
    pieces.deferred.catch_up()
    assert [len(piece["y"]) for piece in pieces.seen] == [5, 1, 2, 5, 5]
    assert {len(piece["x"]) for piece in pieces.seen} == {5}


async def test_what_fails_takes_no_other_batch_along(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def observe(inputs: Tensors, outputs: Tensors) -> None:
        seen.append(len(inputs["x"]))
        raise MemoryError

    deferred = Deferred(observe)
    for rows in (1, TARGET_ROWS + 1, TARGET_ROWS + 2, 3):
        deferred.add({"x": np.zeros(rows)}, {})
    await asyncio.sleep(0)
    deferred.catch_up()
    assert seen == [1, TARGET_ROWS + 1, TARGET_ROWS + 2, 3]
    assert caplog.text.count("rows can't be observed") == 4


async def test_texts_are_let_go_when_they_have_been_observed() -> None:
    class Text(str):
        """One that can be watched."""

    pieces = Pieces()
    text = Text("a document")
    reference = weakref.ref(text)
    array = np.array([text, None], object)
    pieces.deferred.add({"x": array}, {"y": np.zeros(2)})
    await asyncio.sleep(0)
    del array, text
    assert reference() is not None
    pieces.deferred.catch_up()
    assert pieces.seen[0]["x"] == ["a document", None]
    pieces.seen.clear()
    assert reference() is None


async def test_columns_go_together_however_they_lie() -> None:
    pieces = Pieces()
    for start in (0.0, 1.0):
        block = np.array([[start], [10 + start]])
        pieces.deferred.add(Blocks(("a", "b"), [block]), {})
        pieces.deferred.add({"b": 20 + block[1], "a": 20 + block[0]}, {})
    pieces.deferred.catch_up()
    assert pieces.seen == [{"a": [0, 20, 1, 21], "b": [10, 30, 11, 31]}]


async def test_fewer_wide_rows_are_enough() -> None:
    pieces = Pieces()
    wide = np.zeros((1, MAX_VALUES // 3))
    for _ in range(3):
        pieces.deferred.add({"x": wide}, {})
    await asyncio.sleep(0)
    assert [len(piece["x"]) for piece in pieces.seen] == [3]
