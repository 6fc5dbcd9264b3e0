"""The server's drift reports during a replay, window by window."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
from yarl import URL

from driftline.demo.replay import Replay
from driftline.errors import DriftlineError

_TICK_SECONDS = 0.05
_PARTIAL_SECONDS = 0.2
"""Seconds between two reports on a version about to be replaced: responses after the last are in none."""
_LOAD_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Window:
    """Responses of one version, and its monitor's report on just these.

    report  from `GET /v2/models/{m}/drift`
    """

    version: int
    answers: npt.NDArray[np.void]
    report: Mapping[str, Any]

    @property
    def changes(self) -> list[Mapping[str, Any]]:
        """The changes that were raised in it, in order."""
        return list(self.report["changes"])

    @property
    def alarms(self) -> list[Mapping[str, Any]]:
        """The alarms that were raised in it, in order."""
        return list(self.report["alarms"])

    def ranked(self) -> list[Mapping[str, Any]]:
        """Return the columns, by how much their PSI exceeds what is expected by chance, the most first."""
        columns = [column for column in self.report["columns"] if "psi" in column["statistics"]]
        return sorted(columns, key=lambda column: -_excess_psi(column["statistics"]["psi"]))

    def psi(self, name: str) -> Mapping[str, float] | None:
        """Return a column's PSI, with the one expected by chance as `null`; None if there is none."""
        for column in self.report["columns"]:
            if column["name"] == name:
                psi: Mapping[str, float] | None = column["statistics"].get("psi")
                return psi
        return None


class Drift:
    """Requests the server's report at the end of each window, and acknowledges the signals in it.

    url         of the model
    replay      pauses at the end of a window until the report has arrived, which so covers that window alone
    version     that answers first
    rows        of a window, as in the model's settings
    on_window   called with each window, once its report has arrived
    """

    def __init__(
        self, url: URL, replay: Replay, version: int, rows: int, on_window: Callable[[Window], None]
    ) -> None:
        self.windows: list[Window] = []
        self._url = url
        self._replay = replay
        self._version = version
        self._rows = rows
        self._on_window = on_window
        self._reported = 0
        self._partial_report: Mapping[str, Any] | None = None
        self._fetched_at = 0.0

    async def run(self) -> None:
        """Follow the replay to its end; DriftlineError if the server has no report."""
        async with aiohttp.ClientSession() as self._session:
            self._set_stop()
            while self._replay.done < self._replay.rows:
                await asyncio.sleep(_TICK_SECONDS)
                await self._poll()
            await self._poll()
            self._partial_report = await self._report(1)
            self._emit_partial()

    async def ready(self) -> None:
        """Wait until the monitor is loaded, so that it sees the first flight."""
        async with aiohttp.ClientSession() as self._session:
            await self._report(1)

    async def _poll(self) -> None:
        """Check for a new version, the end of a window, or a version about to be replaced."""
        newest = int(self._replay.answers["version"].max(initial=self._version))
        if newest != self._version:
            self._emit_partial()
            self._version, self._reported = newest, 0
            self._set_stop()
        elif self._replay.done >= self._stop:
            if len(self._version_answers()) >= self._reported + self._rows:
                # The window has just ended: it is the last one, and the current one is empty.
                self._emit(await self._report(2), self._rows)
                await self._acknowledge()
            self._set_stop()
        elif self._replay.throttling.is_set() and not self._replay.has_new_version:
            await self._fetch_partial()

    async def _fetch_partial(self) -> None:
        """Request a report now and then: once the next version serves, this one's can't be requested."""
        if time.monotonic() - self._fetched_at >= _PARTIAL_SECONDS:
            self._fetched_at = time.monotonic()
            self._partial_report = await self._report(1) or self._partial_report

    def _set_stop(self) -> None:
        """Let the replay continue until the window ends, if all requests in flight belong to it."""
        other_answers = self._replay.done - len(self._version_answers())
        self._stop = other_answers + self._reported + self._rows
        self._replay.go_until(self._stop)

    def _version_answers(self) -> npt.NDArray[np.void]:
        answers = self._replay.answers
        selected: npt.NDArray[np.void] = answers[answers["version"] == self._version]
        return selected

    def _emit_partial(self) -> None:
        """Report a window that is cut short, by another version or by the end of the replay."""
        report, self._partial_report = self._partial_report, None
        if report is not None and report["rows"]:
            self._emit(report, report["rows"])

    def _emit(self, report: Mapping[str, Any] | None, rows: int) -> None:
        answers = self._version_answers()[self._reported : self._reported + rows]
        self._reported += rows
        self._partial_report = None
        if report is not None:  # else the version was replaced just now, and its report is gone
            window = Window(self._version, answers, report)
            self.windows.append(window)
            self._on_window(window)

    async def _report(self, windows: int) -> Mapping[str, Any] | None:
        """Return the last windows' report; None if the version is gone. Waits until its monitor is loaded."""
        url = self._url / f"versions/{self._version}/drift"
        deadline = asyncio.get_running_loop().time() + _LOAD_SECONDS
        while True:
            async with self._session.get(url.with_query(window=windows)) as response:
                answer: dict[str, Any] = await response.json()
            if response.status == 200:
                return answer
            if response.status == 404:
                return None
            if response.status != 503 or asyncio.get_running_loop().time() > deadline:
                raise DriftlineError(f"no report of drift: {answer.get('error', response.status)}")
            await asyncio.sleep(_TICK_SECONDS)

    async def _acknowledge(self) -> None:
        async with self._session.post(self._url / f"versions/{self._version}/drift/acknowledge"):
            pass


def _excess_psi(psi: Mapping[str, float]) -> float:
    return (psi["value"] or 0.0) - (psi.get("null") or 0.0)
