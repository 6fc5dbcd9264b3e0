"""What is asked of every server: two models, rows, and the answers that are right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench import models
from bench.common import Matrix
from bench.raw import Raw

JSON, BINARY = "json", "binary"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is served: `output` of its outputs is asked for, `width` numbers go in a row."""

    name: str
    path: Path
    width: int
    output: str

    def predict(self, matrix: Matrix) -> Matrix:
        """What ONNX Runtime answers, with nothing around it."""
        return Raw(self.path, threads=1).predict(matrix, [self.output])[0]


@dataclass(frozen=True, slots=True)
class Work:
    """One request again and again: so many rows, over so many connections, in one form."""

    name: str
    subject: str
    rows: int
    connections: int
    form: str = JSON


TREES, WIDE = "trees", "wide"
ROW_1, ROW_16, ROW_64, ROW_256 = (
    Work(f"1 x 30 JSON, c={connections}", TREES, 1, connections) for connections in (1, 16, 64, 256)
)
BINARY_64 = Work("1 x 30 binary, c=64", TREES, 1, 64, BINARY)
ROWS_64 = Work("32 x 30 JSON, c=64", TREES, 32, 64)
WIDE_4 = Work("1 x 150,528 JSON, c=4", WIDE, 1, 4)
WORKS = (ROW_1, ROW_16, ROW_64, ROW_256, ROWS_64, BINARY_64, WIDE_4)
PEAK = (ROW_16, ROW_64, ROW_256)
"""The best rate of these is a server's peak."""
OPEN_LOOP, START, MEMORY = "open loop", "start", "memory"
"""What else is observed, by name."""
OPEN_LOOP_SHARE = 0.7
"""The open loop's rate, of the server's own peak."""


def subjects() -> dict[str, Subject]:
    """Both models, by name: trees that take most of the time to ask, and an input that does to read."""
    trees = Subject(TREES, models.xgboost(), models.FEATURES, "probabilities")
    return {TREES: trees, WIDE: Subject(WIDE, models.mean(), models.PIXELS, "output")}
