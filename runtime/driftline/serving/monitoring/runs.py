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
from driftline.monitor.detection.onset import since_when
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

WAITING = 200
"""Windows and alarms that may wait for the server: a window of 256 columns takes half a megabyte."""
FIRST_REST = 0.5
"""Seconds between the first two attempts while the server is down."""

_METRICS_A_CALL = 500
"""Most metrics in one call: MLflow takes 1000, in a megabyte."""
_LONGEST_COLUMN = 200
"""Most characters of a column in a metric's name: MLflow takes 250, and a prefix needs the rest."""
_LONGEST_TAG = 5000
_NOT_ALLOWED = re.compile(r"[^\w.\- :]")
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

    While the server is down, up to `WAITING` windows and alarms wait; beyond that the oldest are dropped.

    uri  the server's address; MLflow's own variables hold the credentials, see Tracking
    """

    def __init__(self, uri: str) -> None:
        self._tracking = Tracking(uri)
        self._runs: dict[Key, Run] = {}
        self._away = False
        self._lost = 0
        self._outbox: Outbox[tuple[Key, Write]] = Outbox(
            self._deliver, "tracking", WAITING, lambda item: "{} {}".format(*item[0])
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
        return self._outbox.dropped + self._lost

    def window(self, version: Version, profile: Profile, window: Window) -> None:
        """Queue a finished window to be written."""
        self._outbox.put((_key(version), partial(self._write_window, profile, window)))

    def alarm(self, version: Version, signal: Signal) -> None:
        """Queue an alarm to be written."""
        self._outbox.put((_key(version), partial(self._write_alarm, signal)))

    def left(self, version: Version) -> None:
        """Queue the end of a version's run, if it has one: the version is no longer served."""
        self._outbox.put((_key(version), self._finish))

    def close(self) -> None:
        """Write what is still waiting, for at most ten seconds."""
        left = self._outbox.close()
        if lost := self._lost + len(left):
            log.error("%d windows and alarms were not written to %s", lost, self._tracking.uri)

    # -- in the outbox's thread -------------------------------------------------------------------

    def _deliver(self, item: tuple[Key, Write]) -> None:
        """Write an item, and wait for the server if it is down. Retry a refused one once, in another run."""
        key, write = item
        for attempt in count(1):
            known = key in self._runs
            try:
                write(key)
            except Unreachable as error:
                self._note_down(error)
                if not self._outbox.rest(jittered(backoff(attempt, FIRST_REST))):
                    self._lost += 1
                    return
            except DriftlineError:
                self._runs.pop(key, None)  # somebody may have deleted it
                if not known:
                    self._lost += 1
                    raise
            else:
                self._note_up()
                return

    def _note_down(self, error: Unreachable) -> None:
        if not self._away:
            log.warning("%s; windows and alarms wait", error)
        self._away = True

    def _note_up(self) -> None:
        if self._away:
            log.info("%s is back; what waited is written", self._tracking.uri)
        self._away = False

    def _write_window(self, profile: Profile, window: Window, key: Key) -> None:
        """Write the metrics of a window. Retries may write some of them twice, which changes nothing."""
        from driftline.monitor.reporting import report

        run, when = self._run(key), int(window.ended.timestamp() * 1000)
        metrics = [
            {"key": name, "value": value, "timestamp": when, "step": run.step}
            for name, value in metrics_of(report.of(profile, window))
        ]
        for first in range(0, len(metrics), _METRICS_A_CALL):
            part = metrics[first : first + _METRICS_A_CALL]
            self._tracking.tell("POST", "runs/log-batch", {"run_id": run.id, "metrics": part})
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
            self._runs[key] = self._resumed(experiment, key) or self._created(experiment, key)
        return self._runs[key]

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        try:
            answer = self._tracking.ask("experiments/get-by-name", experiment_name=name)
        except NotFound:
            return str(self._tracking.tell("POST", "experiments/create", {"name": name})["experiment_id"])
        return str(answer["experiment"]["experiment_id"])

    def _resumed(self, experiment: str, key: Key) -> Run | None:
        document = {
            "experiment_ids": [experiment],
            "filter": f"tags.`driftline.model` = '{key[0]}' and tags.`driftline.version` = '{key[1]}'",
            "run_view_type": "ACTIVE_ONLY",
            "max_results": 1,
            "order_by": ["attributes.start_time DESC"],
        }
        found = self._tracking.tell("POST", "runs/search", document).get("runs", [])
        if not found:
            return None
        (run,) = found
        run_id = str(run["info"]["run_id"])
        steps = [int(one.get("step", 0)) for one in run["data"].get("metrics", []) if one["key"] == "rows"]
        self._update(run_id, status="RUNNING")
        return Run(run_id, max(steps, default=-1) + 1)

    def _created(self, experiment: str, key: Key) -> Run:
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
        values = {name: one.value for name, one in column.statistics.items() if name in STATISTICS}
        values |= {name: value for name, value in column.facts.items() if name in FACTS}
        fitting = fit(column.name)
        yield from ((f"{name}/{fitting}", float(value)) for name, value in values.items() if isfinite(value))
    for name, one in report.whole.items():
        if isfinite(one.value):
            yield f"whole/{name}", float(one.value)


def tag_of(signal: Signal) -> tuple[str, str]:
    """Return a tag: `driftline.alarm.COLUMN`, or `driftline.alarm` for the model; time and description."""
    key = f"driftline.alarm.{fit(signal.column)}" if signal.column else "driftline.alarm"
    return key, f"{signal.when.isoformat(' ', 'seconds')}{since_when([signal.onset])} {signal.words}"[
        :_LONGEST_TAG
    ]


def fit(column: str) -> str:
    """Return a column's name as a part of MLflow's names: letters, digits, '_', '-', '.', ':' and spaces.

    A name that has to be changed gets a digest, to stay unique.
    """
    fitting = _NOT_ALLOWED.sub("_", column)[:_LONGEST_COLUMN]
    if fitting == column and column not in ("", ".", ".."):
        return column
    return f"{fitting}-{sha256(column.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _key(version: Version) -> Key:
    return version.name, version.number


def _now() -> int:
    return int(time() * 1000)
