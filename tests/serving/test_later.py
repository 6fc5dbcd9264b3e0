"""Batches on their way to the monitor, behind their answers."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from driftline.serving.later import LATER_SECONDS, TOGETHER, Later
from driftline.tensors import Tensors


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


@pytest.mark.parametrize("seed", range(5))
async def test_all_are_observed_once_whatever_comes_when(seed: int) -> None:
    chance, seen = random.Random(seed), Seen()
    for _ in range(300):
        seen.give(chance.choice((1, 1, 1, 7, 128, 2000)))
        if chance.random() < 0.3:
            await asyncio.sleep(0)
        if chance.random() < 0.02:
            seen.later.catch_up()
            assert len(seen.rows) == seen.given
    seen.later.catch_up()
    assert sorted(seen.rows) == list(range(seen.given))
    before = len(seen.pieces)
    await asyncio.sleep(2 * LATER_SECONDS)
    assert len(seen.pieces) == before


async def test_small_batches_of_one_form_are_observed_as_one_and_what_does_not_fit_apart() -> None:
    pieces: list[tuple[Tensors, Tensors]] = []
    later = Later(lambda took, gave: pieces.append((took, gave)))
    row, many = np.ones((1, 3), np.float32), np.zeros((TOGETHER, 3), np.float32)
    gave = {"y": np.ones(1)}
    for took in ({"x": row}, {"x": row[:, :2]}, {"x": 2 * row}, {"z": row}, {"x": row[:0]}):
        later.add(took, gave)
    later.add({"x": many}, {"y": many})
    await asyncio.sleep(0)
    row[:] = 5  # what is put together was copied
    later.catch_up()
    first, *rest = pieces
    assert first[0]["x"].tolist() == [[1, 1, 1], [2, 2, 2]]
    assert first[1]["y"].tolist() == [1, 1]
    assert [{name: array.shape for name, array in took.items()} for took, _ in rest] == [
        {"x": (1, 2)},
        {"z": (1, 3)},
        {"x": (TOGETHER, 3)},
    ]
    assert rest[-1][0]["x"] is many
    later.catch_up()
    assert len(pieces) == 4
