from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from driftline.demo.flights import load
from driftline.demo.train import bundle


@pytest.fixture(scope="session")
def flights() -> pd.DataFrame:
    return load()


@dataclass(frozen=True, slots=True)
class Made:
    """A version's folder, and the file of what it has to predict."""

    folder: Path
    sample: Path


@pytest.fixture(scope="session")
def made(flights: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """As the demo makes it, from January to March."""
    path = tmp_path_factory.mktemp("made")
    version = Made(path / "flights", path / "sample.feather")
    bundle(flights[flights["month"] <= 3], 123, version.folder, version.sample)
    return version
