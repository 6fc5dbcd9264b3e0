from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from driftline.demo.flights import Encoding, load
from driftline.demo.train import train


@pytest.fixture(scope="session")
def flights() -> pd.DataFrame:
    return load()


@pytest.fixture(scope="session")
def matrix(flights: pd.DataFrame) -> np.ndarray:
    return Encoding.fit(flights[flights["month"] <= 3]).encode(flights)


@pytest.fixture(scope="session")
def model(flights: pd.DataFrame, matrix: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained as the demo does it, on January to March."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    past = (flights["month"] <= 3).to_numpy()
    train(matrix[past], flights["late"].to_numpy()[past], path)
    return path
