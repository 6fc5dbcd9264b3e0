"""Batches on their way to the monitor, behind their answers."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from driftline.serving.later import LATER_SECONDS, MOST_BATCHES, TOGETHER, Later, together
from driftline.tensors import Tensors

ROW = {"x": np.ones((1, 3), np.float32)}
GAVE = {"y": np.ones(1, np.float32)}


class Seen:
    """What was observed: the number that each row is of, by piece."""

    def __init__(self) -> None:
        self.pieces: list[list[int]] = []
        self.later = Later(self._observe)
        self.given = 0

    def give(self, rows: int) -> None:
        numbers = np.arange(self.given, self.given + rows)
        self.given += rows
        self.later.add({"x": numbers}, {"y": -numbers})

    def _observe(self, took: Tensors, gave: Tensors) -> None:
        assert (took["x"] == -gave["y"]).all()
        self.pieces.append(took["x"].tolist())

    @property
    def rows(self) -> list[int]:
        return [row for piece in self.pieces for row in piece]


async def test_few_rows_are_observed_after_a_while() -> None:
    seen = Seen()
    seen.give(3)
    seen.give(2)
    await asyncio.sleep(0)
    assert seen.pieces == []
    await asyncio.sleep(3 * LATER_SECONDS)
    assert seen.pieces == [[0, 1, 2, 3, 4]]


async def test_many_rows_are_observed_in_the_next_turn_of_the_loop() -> None:
    seen = Seen()
    while seen.given < TOGETHER:
        seen.give(100)
    seen.give(7)
    await asyncio.sleep(0)
    assert [len(piece) for piece in seen.pieces] == [seen.given]


async def test_many_batches_are_enough_however_few_rows_they_have() -> None:
    seen = Seen()
    for _ in range(MOST_BATCHES):
        seen.give(1)
    await asyncio.sleep(0)
    assert seen.rows == list(range(MOST_BATCHES))


@pytest.mark.parametrize("seed", range(5))
async def test_all_are_observed_once_and_in_order_whatever_comes_when(seed: int) -> None:
    chance, seen = random.Random(seed), Seen()
    for _ in range(300):
        seen.give(chance.choice((1, 1, 1, 7, 128, 2000)))
        if chance.random() < 0.3:
            await asyncio.sleep(0)
        if chance.random() < 0.02:
            seen.later.catch_up()
            assert len(seen.rows) == seen.given
    seen.later.catch_up()
    assert seen.rows == list(range(seen.given))
    before = len(seen.pieces)
    await asyncio.sleep(2 * LATER_SECONDS)
    assert len(seen.pieces) == before


def test_batches_of_one_form_are_put_together_and_others_are_not() -> None:
    ((took, answers),) = together([(ROW, GAVE), ({"x": np.zeros((2, 3), np.float32)}, {"y": np.zeros(2)})])
    assert took["x"].tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert answers["y"].tolist() == [1, 0, 0]
    for other in ({"y": ROW["x"]}, {"x": np.zeros((2, 4), np.float32)}, {**ROW, "y": ROW["x"]}):
        batches = [(ROW, GAVE), (other, GAVE)]
        assert together(batches) == batches
    assert together([(ROW, GAVE), (ROW, {})]) == [(ROW, GAVE), (ROW, {})]
    assert together([(ROW, GAVE)]) == [(ROW, GAVE)]
