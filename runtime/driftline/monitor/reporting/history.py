"""Finished windows as Parquet: one file for each window, one row for each statistic of each column."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from driftline.errors import BadRequest
from driftline.files import replacing
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting import report
from driftline.monitor.window import Window


class History:
    """Writes the reports of windows: `Monitor(profile, on_window=History(folder, profile).write)`.

    folder          created if missing; read it with pyarrow.parquet.read_table(folder)
    profile         what the windows are compared with
    model, version  columns in every row, and parts of the file names

    Raises BadRequest if the folder can't be created.
    """

    def __init__(self, folder: str | Path, profile: Profile, model: str = "", version: int = 0) -> None:
        self._folder = Path(folder)
        self._profile = profile
        self._model = model
        self._version = version
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadRequest(f"history {self._folder}: {error.strerror}") from error

    def name(self, window: Window) -> str:
        """Return the name of a window's file."""
        parts = (self._model, str(self._version) if self._model else "", f"{window.began:%Y%m%dT%H%M%S.%fZ}")
        return "-".join(filter(None, parts)) + ".parquet"

    def write(self, window: Window) -> None:
        """Write one window; the file appears when it is complete. BadRequest if it can't be written."""
        table = report.of(self._profile, window).to_arrow()
        table = table.add_column(0, "version", pa.array([self._version] * len(table), pa.int64()))
        table = table.add_column(0, "model", pa.array([self._model] * len(table), pa.string()))
        path = self._folder / self.name(window)
        try:
            with replacing(path) as new:
                pq.write_table(table, new)
        except OSError as error:
            raise BadRequest(f"history {path}: {error}") from error
