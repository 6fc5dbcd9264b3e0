"""Windows and alarms in MLflow: one run on a tracking server for each version that is served.

A window's statistics are metrics, its number is their step; an alarm is a tag. A run is set to FINISHED when
its version is unloaded, and resumed when the version is served again, by this server or another.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import count
from math import isfinite
from time import time
from typing import TYPE_CHECKING, Any

from driftline.backoff import backoff, jittered
from driftline.config import Server
from driftline.errors import ConfigError, DriftlineError, NotFound
from driftline.monitor.reporting.outbox import Outbox
from driftline.registry.mlflow.tracking import Tracking, Unreachable
from driftline.registry.source import Version

if TYPE_CHECKING:
    from driftline.monitor.detection.signals import Signal
    from driftline.monitor.reference.profile import Profile
    from driftline.monitor.reporting.report import Report
    from driftline.monitor.window import Window

log = logging.getLogger("driftline.tracking")

EXPERIMENT = "driftline"
STATISTICS = ("psi", "jensen_shannon", "kolmogorov_smirnov", "wasserstein")
FACTS = ("missing_rate", "mean")

MAX_WAITING = 200
"""Windows and alarms that may wait for the server: a window of 256 columns takes half a megabyte."""
FIRST_RETRY_SECONDS = 0.5
"""Seconds between the first two attempts while the server is down."""

_MAX_METRICS_PER_CALL = 500
"""Most metrics in one call: MLflow takes 1000, in a megabyte."""
_MAX_COLUMN_LENGTH = 200
"""Most characters of a column in a metric's name: MLflow takes 250, and a prefix needs the rest."""
_MAX_TAG_LENGTH = 5000
_FORBIDDEN_CHARACTERS = re.compile(r"[^\w.\- :]")
"""A slash is allowed, but separates the statistic from the column."""


@dataclass(slots=True)
class Run:
    """A run on the server, and the number of the next window."""

    id: str
    step: int


Key = tuple[str, int]
"""A model's name and the number of its version."""

Write = Callable[[Key], None]
"""Writes to the run of a version."""


class Runs:
    """Writes to runs on a tracking server in the background: only `close` blocks.

    While the server is down, up to `MAX_WAITING` windows and alarms wait; beyond that the oldest are dropped.

    uri  the server's address; MLflow's own variables hold the credentials, see Tracking
    """

    def __init__(self, uri: str) -> None:
        self._tracking = Tracking(uri)
        self._runs: dict[Key, Run] = {}
        self._is_down = False
        self._failed = 0
        self._outbox: Outbox[tuple[Key, Write]] = Outbox(
            self._deliver, "tracking", MAX_WAITING, lambda item: "{} {}".format(*item[0])
        )

    @classmethod
    def of(cls, settings: Server) -> Runs:
        """Return the runs on the server that MLFLOW_TRACKING_URI names, else on the registry; ConfigError if
        that is not an MLflow server."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.registry
        if not uri.startswith(("http://", "https://")):
            scheme = uri.partition("://")[0]  # the rest may hold a password
            raise ConfigError(
                "track = true: expected an MLflow server's http:// URL as registry, or in "
                f"MLFLOW_TRACKING_URI, got {scheme!r}"
            )
        return cls(uri)

    @property
    def dropped(self) -> int:
        """Windows and alarms that were not written."""
        return self._outbox.dropped + self._failed

    def window(self, version: Version, profile: Profile, window: Window) -> None:
        """Queue a finished window to be written."""
        self._outbox.put((_key(version), partial(self._write_window, profile, window)))

    def alarm(self, version: Version, signal: Signal) -> None:
        """Queue an alarm to be written."""
        self._outbox.put((_key(version), partial(self._write_alarm, signal)))

    def finish(self, version: Version) -> None:
        """Queue the end of a version's run, if it has one: the version is no longer served."""
        self._outbox.put((_key(version), self._finish))

    def close(self) -> None:
        """Write what is still waiting, for at most ten seconds."""
        self._outbox.close()
        if unwritten := self._failed + self._outbox.waiting:
            log.error("%d windows and alarms were not written to %s", unwritten, self._tracking.uri)

    # -- in the outbox's thread -------------------------------------------------------------------

    def _deliver(self, item: tuple[Key, Write]) -> None:
        """Write an item, and wait for the server if it is down. Retry a refused one once, in another run."""
        key, write = item
        for attempt in count(1):
            had_run = key in self._runs
            try:
                write(key)
            except Unreachable as error:
                self._note_down(error)
                if not self._outbox.rest(jittered(backoff(attempt, FIRST_RETRY_SECONDS))):
                    self._failed += 1
                    return
            except DriftlineError:
                self._runs.pop(key, None)  # somebody may have deleted it
                if not had_run:
                    self._failed += 1
                    raise
            else:
                self._note_up()
                return

    def _note_down(self, error: Unreachable) -> None:
        if not self._is_down:
            log.warning("%s; windows and alarms wait", error)
        self._is_down = True

    def _note_up(self) -> None:
        if self._is_down:
            log.info("%s is back; what waited is written", self._tracking.uri)
        self._is_down = False

    def _write_window(self, profile: Profile, window: Window, key: Key) -> None:
        """Write the metrics of a window. Retries may write some of them twice, which changes nothing."""
        from driftline.monitor.reporting import report

        run, timestamp_ms = self._run(key), int(window.ended.timestamp() * 1000)
        metrics = [
            {"key": name, "value": value, "timestamp": timestamp_ms, "step": run.step}
            for name, value in metrics_of(report.of(profile, window))
        ]
        for start in range(0, len(metrics), _MAX_METRICS_PER_CALL):
            chunk = metrics[start : start + _MAX_METRICS_PER_CALL]
            self._tracking.tell("POST", "runs/log-batch", {"run_id": run.id, "metrics": chunk})
        run.step += 1

    def _write_alarm(self, signal: Signal, key: Key) -> None:
        name, value = tag_of(signal)
        self._tracking.tell(
            "POST", "runs/set-tag", {"run_id": self._run(key).id, "key": name, "value": value}
        )

    def _finish(self, key: Key) -> None:
        if key in self._runs:
            self._update(self._runs[key].id, status="FINISHED", end_time=_now())
            del self._runs[key]

    # -- runs -------------------------------------------------------------------------------------

    def _run(self, key: Key) -> Run:
        """Return a version's run: its existing one, even from an earlier server, or a new one."""
        if key not in self._runs:
            experiment = self._experiment()
            self._runs[key] = self._resume(experiment, key) or self._create(experiment, key)
        return self._runs[key]

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        try:
            answer = self._tracking.ask("experiments/get-by-name", experiment_name=name)
        except NotFound:
            return str(self._tracking.tell("POST", "experiments/create", {"name": name})["experiment_id"])
        return str(answer["experiment"]["experiment_id"])

    def _resume(self, experiment: str, key: Key) -> Run | None:
        document = {
            "experiment_ids": [experiment],
            "filter": f"tags.`driftline.model` = '{key[0]}' and tags.`driftline.version` = '{key[1]}'",
            "run_view_type": "ACTIVE_ONLY",
            "max_results": 1,
            "order_by": ["attributes.start_time DESC"],
        }
        runs = self._tracking.tell("POST", "runs/search", document).get("runs", [])
        if not runs:
            return None
        (run,) = runs
        run_id = str(run["info"]["run_id"])
        steps = [
            int(metric.get("step", 0)) for metric in run["data"].get("metrics", []) if metric["key"] == "rows"
        ]
        self._update(run_id, status="RUNNING")
        return Run(run_id, max(steps, default=-1) + 1)

    def _create(self, experiment: str, key: Key) -> Run:
        model, number = key
        tags = {
            "driftline.model": model,
            "driftline.version": str(number),
            "mlflow.source.name": "driftline",
            "mlflow.source.type": "JOB",
        }
        document = {
            "experiment_id": experiment,
            "run_name": f"{model} {number}",
            "start_time": _now(),
            "tags": [{"key": name, "value": value} for name, value in tags.items()],
        }
        return Run(str(self._tracking.tell("POST", "runs/create", document)["run"]["info"]["run_id"]), 0)

    def _update(self, run_id: str, **fields: Any) -> None:
        self._tracking.tell("POST", "runs/update", {"run_id": run_id, **fields})


def metrics_of(report: Report) -> Iterator[tuple[str, float]]:
    """Yield a window's finite numbers under names that MLflow accepts, `rows` first.

    Names like `psi/COLUMN` are of a column, those like `whole/mmd` of whole rows.
    """
    yield "rows", float(report.rows)
    for column in report.columns:
        values = {
            name: statistic.value for name, statistic in column.statistics.items() if name in STATISTICS
        }
        values |= {name: value for name, value in column.facts.items() if name in FACTS}
        column_name = mlflow_name(column.name)
        yield from (
            (f"{name}/{column_name}", float(value)) for name, value in values.items() if isfinite(value)
        )
    for name, statistic in report.whole.items():
        if isfinite(statistic.value):
            yield f"whole/{name}", float(statistic.value)


def tag_of(signal: Signal) -> tuple[str, str]:
    """Return a tag: `driftline.alarm.COLUMN`, or `driftline.alarm` for the model; time and description."""
    key = f"driftline.alarm.{mlflow_name(signal.column)}" if signal.column else "driftline.alarm"
    return key, f"{signal.when.isoformat(' ', 'seconds')}{signal.since} {signal.words}"[:_MAX_TAG_LENGTH]


def mlflow_name(column: str) -> str:
    """Return a column's name as a part of MLflow's names: letters, digits, '_', '-', '.', ':' and spaces.

    A name that has to be changed gets a digest, to stay unique.
    """
    safe_name = _FORBIDDEN_CHARACTERS.sub("_", column)[:_MAX_COLUMN_LENGTH]
    if safe_name == column and column not in ("", ".", ".."):
        return column
    return f"{safe_name}-{sha256(column.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _key(version: Version) -> Key:
    return version.name, version.number


def _now() -> int:
    return int(time() * 1000)
