"""The entry point of monitoring: observe batches, get reports, receive signals of changes and alarms.

The life of a batch: `observe` converts it (`reading`) -> `_count` counts it up to the next stop -> `_look`
bets on the rows since the last look (`detector`) -> `_signal` turns findings into signals, held until they
are acknowledged or a whole window passes without another -> `_end_window` looks at a window's last rows,
closes it, and begins the next. Work due by the clock is done when a batch arrives, when a report is
requested, and by `keep_time`: a server calls it regularly, so that rows are seen even if no more follow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from math import inf
from threading import RLock
from time import monotonic, time
from typing import Any, Self

from driftline.config import Monitoring, check_least
from driftline.errors import BadRequest
from driftline.monitor.counting import Counter, WindowCounts
from driftline.monitor.detection.detector import Detectors, Finding
from driftline.monitor.detection.onset import Look
from driftline.monitor.detection.signalling import Signaller
from driftline.monitor.detection.signals import Signal, log_signals
from driftline.monitor.reading import Codes, Reader
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting import report
from driftline.monitor.reporting.report import Report
from driftline.monitor.snapshot import Snapshot, restored
from driftline.monitor.window import Window
from driftline.tensors import Array, shorten

_NEVER = 1 << 62


class Monitor:
    """Compares what it observes with a profile; thread safe, in memory that does not grow.

    profile           the reference; if it has no rows, only its bins are used
    false_alarm_rows  A: while nothing changes, at least so many rows pass on average before a false signal,
                      and one comes within n rows with a probability of at most n / A, however often the
                      detectors look
    tolerance         a drift, as a PSI, that is harmless: an alarm means certainly more
    look_rows         the detectors look after so many rows; 0: not by rows
    look_seconds      and after so many seconds, by `keep_time` or when a batch arrives; 0: not by time
    window_rows       a window ends after so many rows; 0: not by rows
    window_seconds    and after so many seconds, by `keep_time` or when a batch arrives; 0: not by time. A
                      window without rows is not recorded: it restarts
    keep_windows      finished windows to keep, for reports over several
    model, version    named in signals
    on_signal         called with each new signal, in the thread whose call made the detectors look
    on_window         called with each finished window, likewise

    >>> monitor = Monitor(profile)
    >>> monitor.observe({"age": ages, "city": cities})
    >>> monitor.report().alarms
    """

    def __init__(
        self,
        profile: Profile,
        *,
        false_alarm_rows: float = 1_000_000,
        tolerance: float = 0.02,
        look_rows: int = 100,
        look_seconds: float = 0,
        window_rows: int = 0,
        window_seconds: float = 0,
        keep_windows: int = 1,
        model: str = "",
        version: int = 0,
        on_signal: Callable[[Signal], None] | None = None,
        on_window: Callable[[Window], None] | None = None,
    ) -> None:
        if not isinstance(profile, Profile):
            raise BadRequest(f"a monitor: expected a Profile, got {shorten(profile)}")
        check_least("false_alarm_rows", false_alarm_rows, 1)
        numbers = {"tolerance": tolerance, "look_seconds": look_seconds, "window_seconds": window_seconds}
        for name, value in numbers.items():
            check_least(name, value, 0)
        rows = {"look_rows": look_rows, "window_rows": window_rows, "keep_windows": keep_windows}
        for name, value in rows.items():
            check_least(name, value, 0, whole=True)
        self._settings = {"false_alarm_rows": false_alarm_rows, **numbers, **rows}
        self.profile = profile
        self.keep_windows = keep_windows
        self.rows = 0
        self._counter = Counter(profile)  # since the last look
        self._window_counts = WindowCounts(self._counter)  # before it, in this window
        self._reader = Reader(self._counter.numeric, self._counter.categorical)
        self._detectors = (
            Detectors(self._counter.references, false_alarm_rows, tolerance) if profile.rows else None
        )
        self._look_rows = look_rows or _NEVER
        self._look_seconds = look_seconds or inf
        self._window_rows = window_rows or _NEVER
        self._window_seconds = window_seconds or inf
        self._is_timed = look_seconds > 0 or window_seconds > 0
        self._finished: deque[Window] = deque(maxlen=keep_windows)
        self._model, self._version = model, version
        self._signaller = (
            Signaller(profile, self._counter.references, self._detectors, model, version)
            if self._detectors is not None
            else None
        )
        self._on_signal = on_signal
        self._on_window = on_window
        self._signals: dict[tuple[str, str], Signal] = {}
        self._seen_in_window: set[tuple[str, str]] = set()
        self._in_callback = False
        self._lock = RLock()  # reentrant: a callback may request a report
        self._last_look_rows, self._last_look_time = 0, time()
        self._next_look = monotonic() + self._look_seconds
        self._begin_window()

    @classmethod
    def of(cls, profile: Profile, settings: Monitoring, **named: Any) -> Self:
        """Return a monitor with the settings of a `driftline.toml`; `named` are the other arguments."""
        names = {item.name for item in fields(settings)} - {"enabled", "history"}
        return cls(profile, **{name: getattr(settings, name) for name in names}, **named)

    def warm_up(self) -> None:
        """Load all compiled code, so that no batch waits for it."""
        with self._lock:
            counter = self._counter.empty_copy()
            counter.add(*self._reader.empty_block())
            look = Look(counter.counts, counter.moments, self.rows, self._last_look_time)
            self._window_counts.add(counter.counts, counter.moments)
            if self._detectors is not None:
                self._detectors.look(look, 0)

    # -- in -----------------------------------------------------------------------------------------

    def observe(self, columns: object) -> None:
        """Count rows.

        columns  a pyarrow Table or RecordBatch, a DataFrame, or arrays by name, of any length; a 2-D array is
                 its columns, NAME_0, NAME_1, ...; columns that the profile lacks are ignored

        Raises BadRequest, which names the column, if one is missing or not of the profile's type; then
        nothing of its block of rows is counted.
        """
        if (matrix := self._reader.as_matrix(columns)) is not None:
            with self._lock:
                self._count(matrix, ())
            return
        for matrix, codes in self._reader.blocks(columns):
            with self._lock:
                self._count(matrix, codes)

    def _count(self, matrix: Array, codes: Codes) -> None:
        """Count rows, stopping for each look or window's end that falls due."""
        if self._is_timed:
            self._keep_time()
        length = len(matrix)
        while self.rows + length >= self._stop:
            until_stop = self._stop - self.rows
            self._counter.add(matrix[:until_stop], tuple(column_codes[:until_stop] for column_codes in codes))
            self.rows = self._stop
            self._at_stop()
            matrix, codes = matrix[until_stop:], tuple(column_codes[until_stop:] for column_codes in codes)
            length -= until_stop
        self._counter.add(matrix, codes)
        self.rows += length

    def _at_stop(self) -> None:
        """Do what is due at a stop: look, or end the window."""
        if self.rows - self._window_start_rows >= self._window_rows:
            self._end_window()
        elif self.rows - self._last_look_rows >= self._look_rows:
            self._look()

    def _set_stop(self) -> None:
        self._stop = min(self._last_look_rows + self._look_rows, self._window_start_rows + self._window_rows)

    def keep_time(self) -> None:
        """Look, and end the window, if due by the clock; call this regularly, with or without new rows."""
        if self._is_timed:
            with self._lock:
                self._keep_time()

    def _keep_time(self) -> None:
        """Look, and end the window, if due by the clock."""
        if self._in_callback:  # called from a callback
            return
        now = monotonic()
        if now >= self._next_look:
            self._next_look = now + self._look_seconds
            self._look()
        if now >= self._window_deadline:
            self._end_window()

    @contextmanager
    def _running_callbacks(self) -> Iterator[None]:
        """Mark that callbacks run: one may request a report, which must not end the same window again."""
        was_in_callback, self._in_callback = self._in_callback, True
        try:
            yield
        finally:
            self._in_callback = was_in_callback

    def _look(self) -> None:
        """Bet on the rows since the last look."""
        findings: list[Finding] = []
        if self.rows > self._last_look_rows:
            look = self._since_last_look()
            if self._detectors is not None:
                findings = self._detectors.look(look, self.rows - self._last_look_rows)
        self._last_look_rows, self._last_look_time = self.rows, time()
        self._set_stop()
        signals = [signal for finding in findings for signal in self._signal(finding)]
        if self._on_signal is not None:
            with self._running_callbacks():
                for signal in signals:  # all are held by now: a callback may raise
                    self._on_signal(signal)

    def _since_last_look(self) -> Look:
        """Return the counts since the last look, and add them to the window."""
        look = Look(*self._counter.take(), self._last_look_rows, self._last_look_time)
        self._window_counts.add(look.counts, look.moments)
        return look

    def due(self, rows: int) -> bool:
        """Return whether a look or a window's end falls due once so many more rows are merged."""
        if self.rows + rows >= self._stop:
            return True
        return self._is_timed and monotonic() >= min(self._next_look, self._window_deadline)

    def merge(self, counter: Counter, rows: int) -> None:
        """Add so many rows that another counter of this profile has counted.

        Looks and window ends that fall due come after these rows, not among them.
        """
        with self._lock:
            self._counter.merge(counter)
            self.rows += rows
            if self._is_timed:
                self._keep_time()
            if self.rows >= self._stop:
                self._at_stop()

    # -- windows ------------------------------------------------------------------------------------

    def _begin_window(self) -> None:
        self._window_began = datetime.now(UTC)
        self._window_deadline = monotonic() + self._window_seconds
        self._window_start_rows = self.rows
        self._set_stop()

    def _end_window(self) -> None:
        """Look at the last rows, close the window and begin another; one without rows just restarts."""
        if not self.window_rows:
            self._begin_window()
            return
        with self._running_callbacks():
            self._look()
            window = self._window()
            self._window_counts.reset()
            self._finished.append(window)
            self._signals = {
                key: signal for key, signal in self._signals.items() if key in self._seen_in_window
            }
            self._seen_in_window.clear()
            self._begin_window()
            if self._on_window is not None:
                self._on_window(window)

    @property
    def window_rows(self) -> int:
        """The rows of the current window."""
        return self.rows - self._window_start_rows

    def finish(self) -> None:
        """End the current window now, if it has rows, with a look at the last of them."""
        with self._lock:
            self._end_window()

    def _window(self) -> Window:
        """The current window, up to the last look."""
        return self._window_counts.window(self.window_rows, self._window_began)

    # -- out ----------------------------------------------------------------------------------------

    def _signal(self, finding: Finding) -> list[Signal]:
        """Return a finding's new signals, now held: one for each column, or one for the model as a whole."""
        assert self._signaller is not None
        names = self._signaller.columns_of(finding)
        self._seen_in_window.update((finding.kind, name) for name in names)
        new_columns = [name for name in names if (finding.kind, name) not in self._signals]
        if not new_columns:
            return []
        signals = self._signaller.signals(finding, new_columns, self._window(), self.rows)
        self._signals |= {(signal.kind, signal.column): signal for signal in signals}
        self._log(signals)
        return signals

    def _log(self, signals: Sequence[Signal]) -> None:
        log_signals(signals, len(self._counter.references))

    @property
    def finished_windows(self) -> int:
        """How many finished windows are kept."""
        return len(self._finished)

    def report(self, windows: int = 1) -> Report:
        """Return how the rows of the current window and the `windows` - 1 before differ from the reference.

        The detectors look first, if rows have arrived since their last look.
        """
        check_least("windows", windows, 1, whole=True)
        with self._lock:
            window, signals = self.current()
            earlier = list(self._finished)[-(windows - 1) :] if windows > 1 else []
        for finished in earlier:
            window = window.merge(finished)
        return report.of(self.profile, window, signals)

    def current(self) -> tuple[Window, tuple[Signal, ...]]:
        """Return the current window, after a look, and the held signals."""
        with self._lock:
            self.keep_time()
            self._look()
            return self._window(), tuple(self._signals.values())

    def acknowledge(self) -> tuple[Signal, ...]:
        """Release all held signals, and return them; each is raised again on new evidence for it."""
        with self._lock:
            signals = tuple(self._signals.values())
            self._signals.clear()
            return signals

    # -- over a restart -----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return the whole state, for another monitor of the same profile to continue from."""
        with self._lock:
            self.keep_time()
            self._look()
            return Snapshot(
                self.rows,
                self.window_rows,
                self._window_began,
                self._window_counts.memory,
                self._detectors.snapshot() if self._detectors is not None else {},
                tuple(self._signals.values()),
                frozenset(self._seen_in_window),
                tuple(self._finished),
            )

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot, if nothing was observed yet; a window by the clock ends when it was due.

        Raises ValueError for a snapshot of another profile's monitor; then nothing has changed.
        """
        with self._lock:
            if self.words != len(snapshot.counted):
                raise ValueError(f"expected {self.words} counts, got {len(snapshot.counted)}")
            if self._detectors is not None:
                self._detectors.restore(snapshot.detectors)
            self._window_counts.restore(snapshot.counted)
            self.rows = self._last_look_rows = snapshot.rows
            self._signals = {(signal.kind, signal.column): signal for signal in snapshot.signals}
            self._seen_in_window = set(snapshot.seen)
            self._finished.extend(snapshot.finished)
            self._begin_window()
            self._window_deadline -= (self._window_began - snapshot.began).total_seconds()
            self._window_began, self._window_start_rows = snapshot.began, snapshot.rows - snapshot.window_rows
            self._set_stop()
            if self.rows >= self._stop:  # windows or looks were longer before
                self._at_stop()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle or copy the monitor in its present state, without `on_signal` and `on_window`."""
        settings = self._settings | {"model": self._model, "version": self._version}
        return restored, (type(self), self.profile, settings, self.snapshot())

    def __repr__(self) -> str:
        return f"Monitor({self.rows:,} rows against {self.profile.rows:,}, {len(self._signals)} signals)"

    @property
    def words(self) -> int:
        """How many words a counter has that can be merged; see Counter."""
        return self._counter.words

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The held signals."""
        with self._lock:
            return tuple(self._signals.values())
