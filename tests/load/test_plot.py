"""The picture is well-formed, whatever was measured."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from driftline.load.bench import Point
from driftline.load.pace import SECOND, Answer, Outcome
from driftline.load.plot import plot

SVG = "{http://www.w3.org/2000/svg}"


def point(rate: float | None, *durations: int) -> Point:
    outcome = Outcome(elapsed_ns=SECOND)
    for duration in durations:
        outcome.add(Answer(0, duration, None))
    return Point(4, rate, "own", outcome)


MANY = tuple(range(100_000, 5_000_000, 1000))


@pytest.mark.parametrize(
    ("points", "charts"),
    [
        ([], 1),
        ([point(None)], 1),
        ([point(None, 1)], 1),
        ([point(None, *MANY), point(None, *MANY)], 1),
        ([point(100.0, *MANY), point(200.0, *MANY), point(200.0, 5)], 2),
        ([point(float(rate + 1), *MANY[: rate * 100]) for rate in range(20)], 2),
    ],
)
def test_pictures(points: list[Point], charts: int) -> None:
    picture = ElementTree.fromstring(plot(points, "<a> & b", 20.0))
    assert next(text.text for text in picture.iter(f"{SVG}text")) == "<a> & b"
    assert len(picture.findall(f"{SVG}g")) == charts
    for line in picture.iter(f"{SVG}polyline"):
        for x, y in (pair.split(",") for pair in line.attrib["points"].split()):
            assert 0 <= float(x) <= 460
            assert 0 <= float(y) <= 300
