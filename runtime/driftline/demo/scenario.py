"""The steps of the demo: train, register, serve, replay, and swap to a new version on the way."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from yarl import URL

from driftline.demo.drift import Drift, Window
from driftline.demo.flights import FEATURES, known_at, load
from driftline.demo.quality import accuracy, auc
from driftline.demo.replay import Replay
from driftline.demo.screen import Screen, day
from driftline.demo.server import free_port, serving
from driftline.demo.train import TOLERANCE, bundle
from driftline.engine.model import Model
from driftline.engine.parity import check
from driftline.registry.source import PRODUCTION, Registry, Version

MODEL = "flights"
_LAST_MONTH_OF_TRAINING = 3
_WINDOWS = 9
"""The approximate number of the monitor's windows in the replay: one for each of its nine months."""
_MIN_WINDOW_ROWS = 50
_INTERRUPTED = 130


def run_scenario(registry: str, host: str, port: int, rows: int | None) -> int:
    """Run the demo and return its exit code, as `driftline.demo.demo.run` says."""
    port = free_port(host, port)
    # A separate process, since conversion to ONNX would delay the clients in this one.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, _prepare_trainer) as trainer:
        try:
            return asyncio.run(_Demo(Registry.open(registry), trainer, rows).run(host, port))
        except asyncio.CancelledError:
            return _INTERRUPTED


def _prepare_trainer() -> None:
    """In the process that trains: lower the priority, and end without a traceback on Ctrl-C."""
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class _Demo:
    """One run of the demo.

    flights  all of 2013
    past     how many of them, from the first on, the first version is trained on: those until March
    live     the flights that are replayed after that
    """

    def __init__(self, registry: Registry, trainer: Executor, rows: int | None) -> None:
        self._registry = registry
        self._trainer = trainer
        self._screen = Screen()
        with self._screen.working("Reading the flights of 2013"):
            self._flights = load()
        self._past = int((self._flights["month"] <= _LAST_MONTH_OF_TRAINING).sum())
        chosen = _spread_evenly(range(self._past, len(self._flights)), rows)
        self._live = self._flights.iloc[chosen]
        self._window_rows = max(-(-len(chosen) // _WINDOWS), _MIN_WINDOW_ROWS)
        self._endless = rows is None
        self._promoted = 0.0

    async def run(self, host: str, port: int) -> int:
        """Run all steps; return the exit code."""
        _cancel_on_signals()
        self._screen.step("data", f"{len(self._flights):,} flights from New York in 2013")
        with self._screen.working("Training"):
            first = await self._publish(self._past)
        async with serving(MODEL, self._registry.uri, host, port) as server:
            url = server.url / f"v2/models/{MODEL}"
            curl = _curl(server.url / f"v1/models/{MODEL}:predict", self._live[:1])
            self._screen.step("serve", f"{MODEL}@{PRODUCTION} at {server.url}; try it:")
            self._screen.command(curl)
            self._screen.step("look", f"{url / 'drift'} in a browser shows what drifts")
            columns = {name: self._live[name].to_numpy() for name in FEATURES}
            replay = Replay(url / "infer", columns, throttle_at=len(self._live) // 3)
            drift = Drift(url, replay, first.number, self._window_rows, self._show_window)
            with self._screen.working("Loading the monitor"):
                await server.during(drift.ready())
            days = f"{day(self._live, 0)} to {day(self._live, -1)}"
            self._screen.step("replay", f"{replay.rows:,} flights from {days}, each a request")
            async with self._screen.following(replay, self._live):
                second = await server.during(self._replay(replay, drift))
            passed = self._conclude(replay, drift, first, second)
            if self._endless:
                self._screen.step("serve", f"{server.url} goes on until Ctrl-C; try it:")
                self._screen.command(curl)
                with suppress(asyncio.CancelledError):
                    await server.during(asyncio.Event().wait())
        return 0 if passed else 1

    async def _publish(self, count: int) -> Version:
        """Train on the first `count` flights, register the model, and promote it to production.

        It is refused if its predictions from raw columns differ from those in training.
        """
        flights = self._flights[:count]
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            files, sample = Path(folder, MODEL), Path(folder, "sample.feather")
            await asyncio.get_running_loop().run_in_executor(
                self._trainer, bundle, flights, self._window_rows, files, sample
            )
            parity = partial(check, data=sample, tolerance=TOLERANCE, progress=lambda rows: None)
            version = await asyncio.to_thread(self._registry.register, [files], MODEL, parity)
        await asyncio.to_thread(self._registry.promote, MODEL, version.number)
        self._promoted = time.perf_counter()
        self._screen.step(
            "train",
            f"version {version.number} on {count:,} flights until {day(flights, -1)}, "
            f"in {self._promoted - start:.1f} s; now {PRODUCTION} in {self._registry.uri}",
        )
        return version

    async def _replay(self, replay: Replay, drift: Drift) -> Version:
        """Send the live flights and follow their drift; meanwhile train the second version, and return it."""
        tasks = [asyncio.ensure_future(work) for work in (self._retrain(replay), replay.run(), drift.run())]
        try:
            second, *_ = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        assert isinstance(second, Version)
        return second

    async def _retrain(self, replay: Replay) -> Version:
        """When the replay slows down, train on all flights whose outcome is known by then."""
        await replay.throttling.wait()
        now = self._live["scheduled"].iloc[replay.throttle_at]
        return await self._publish(known_at(self._flights, now))

    def _show_window(self, window: Window) -> None:
        self._screen.drift(window, self._live)

    def _conclude(self, replay: Replay, drift: Drift, first: Version, second: Version) -> bool:
        """Show the results; return True if no request failed and both versions answered."""
        failed, answers = replay.failures.total(), replay.answers
        self._screen.months(drift.windows, self._live)
        self._screen.summary(replay, self._live)
        second_answers = answers[answers["version"] == second.number]
        if len(second_answers):
            seconds = second_answers["finished"][0] - self._promoted
            self._screen.step("swap", f"version {second.number} answered {seconds:.1f} s after its promotion")
            self._screen.step("compare", self._first_quality_on(first, second, second_answers["row"]))
        else:
            self._screen.step("swap", f"version {second.number} never answered")
        self._screen.step("result", f"{replay.rows:,} requests, {failed:,} failed")
        return failed == 0 and {first.number, second.number} <= set(answers["version"].tolist())

    def _first_quality_on(self, first: Version, second: Version, rows: npt.NDArray[np.int64]) -> str:
        """Return the first version's quality on the live flights that the second one answered, in words."""
        model = Model.load(self._registry.fetch(first))
        flights = self._live.iloc[rows]
        probability = model.predict(flights[[*FEATURES]], ["probabilities"])["probabilities"][:, 1]
        late = flights["late"].to_numpy()
        return (
            f"version {first.number} offline, on the flights of version {second.number}: "
            f"accuracy {accuracy(probability, late):.1%}, AUC {auc(probability, late):.3f}"
        )


def _cancel_on_signals() -> None:
    """Make Ctrl-C and SIGTERM cancel this task, so that nothing it started is left behind."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _spread_evenly(rows: range, count: int | None) -> npt.NDArray[np.intp]:
    """Return `count` of `rows`, evenly spread and in order; all if there are no more or `count` is None."""
    count = len(rows) if count is None else min(count, len(rows))
    return np.linspace(rows.start, rows.stop - 1, count).astype(np.intp)


def _curl(url: URL, flights: pd.DataFrame) -> str:
    """Return a command to copy: some flights as a request of KServe's v1, rows by column name."""
    rows = flights[[*FEATURES]].to_json(orient="records")
    return f"""curl {url} -d '{{"instances":{rows}}}'"""
