"""Compiles all kernels on generated rows while an image is built, so that containers start without it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from driftline.errors import ConfigError
from driftline.protocols import numbers

if TYPE_CHECKING:
    from driftline.tensors import Tensors

ROWS = 128


def precompile(gpus: bool = False) -> Path:
    """Compile the kernels of protocols, features and monitors, and return the folder where they are cached.

    They are for this CPU, or the one that NUMBA_CPU_NAME names.

    gpus  compile for NVIDIA GPUs, too; none is needed, but ConfigError without numba-cuda
    """
    from driftline.engine.cuda.device import no_library
    from driftline_kernels import disk_cache

    if gpus and (lacking := no_library()):
        raise ConfigError(f"compile --gpus: {lacking}")
    numbers.load()
    example = example_columns()
    _features(example)
    _monitor(example)
    if gpus:
        from driftline_kernels import ahead_of_time

        ahead_of_time.precompile()
    return disk_cache.folders()[0]


def example_columns() -> Tensors:
    """Return a column of each kind, with repeated values; the first two have missing ones."""
    numbers = np.arange(ROWS, dtype=np.float64) % 7
    return {
        "number": np.where(numbers == 0, np.nan, numbers),
        "string": np.array([None if number == 0 else f"s{number:g}" for number in numbers], object),
        "count": numbers.astype(np.int64),
    }


def _features(columns: Tensors) -> None:
    from driftline.features import spec
    from driftline.features.transform import Transform

    steps: list[spec.Step] = [
        spec.Impute("number", "mean"),
        spec.Hash("string", into="hashed"),
        spec.OneHot("string"),
        spec.TargetMean("count", into="mean"),
    ]
    transform = Transform(steps)
    transform.fit(columns, columns["count"])
    for count in (1, ROWS):
        transform.apply({name: column[:count] for name, column in columns.items()})


def _monitor(columns: Tensors) -> None:
    from driftline.monitor.monitor import Monitor
    from driftline.monitor.reference.profile import Profile

    matrix = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    received = np.frombuffer(matrix.tobytes(), np.float32).reshape(matrix.shape)  # read-only
    for table in (columns, {"matrix": matrix}, {"matrix": received}):
        with TemporaryDirectory() as folder:
            Profile.fit(table).save(file := Path(folder) / "profile.arrow")
            profile = Profile.load(file)  # loaded, as in servers, and so read-only
        monitor = Monitor(profile, look_rows=1, window_rows=ROWS // 2)
        monitor.warm_up()
        for count in (1, ROWS):
            monitor.observe({name: column[:count] for name, column in table.items()})
        monitor.report(2)
