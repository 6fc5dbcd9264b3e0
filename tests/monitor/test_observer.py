"""Between serving and monitoring: nothing waits, nothing fails, nothing is lost without being counted."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from waiting import until

from driftline.errors import BadRequest, Unavailable
from driftline.monitor import observer as module
from driftline.monitor.monitor import Monitor
from driftline.monitor.observer import Observer
from driftline.monitor.reference.profile import Profile

ROWS = {"x": np.arange(200, dtype=np.float32)}


def monitor() -> Monitor:
    return Monitor(Profile.fit(ROWS))


def test_what_comes_before_the_monitor_is_observed_when_it_is_there() -> None:
    go = threading.Event()

    def make() -> Monitor:
        go.wait(30)
        return monitor()

    observer = Observer(make, "m 1")
    lent = {"x": ROWS["x"].copy()}
    observer.observe(lent, 200)
    lent["x"][:] = -1  # its memory is used again
    observer.start()
    observer.start()  # once only
    observer.observe(ROWS, 200)
    assert observer.waiting_rows == 400
    with pytest.raises(Unavailable, match="the monitor of m 1 is being loaded"):
        observer.ready()
    go.set()
    until(lambda: observer.monitor is not None)
    observer.observe(ROWS, 200)
    assert observer.ready().rows == 600
    assert observer.ready().report()["x"].statistics["psi"].value < 0.01
    assert (observer.waiting_rows, observer.skipped_rows) == (0, 0)


def test_what_does_not_fit_is_skipped_counted_and_logged_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    observer = Observer(monitor, "m 1")
    observer.observe({"y": np.zeros(5)}, 5)
    observer.start()
    until(lambda: observer.monitor is not None)
    observer.observe({"y": np.zeros(7)}, 7)
    observer.observe(ROWS, 200)
    assert observer.skipped_rows == 12
    assert observer.ready().rows == 200
    (line,) = [record.getMessage() for record in caplog.records if "not monitored" in record.getMessage()]
    assert "m 1: 5 rows were not monitored, 5 so far: column 'x': expected as in the profile" in line


def test_without_a_monitor_rows_are_counted_as_skipped(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Monitor:
        raise BadRequest("profile.arrow: expected a profile")

    observer = Observer(make, "m 1")
    observer.observe(ROWS, 200)
    observer.start()
    until(lambda: observer.failure != "")
    until(lambda: observer.skipped_rows == 200)
    observer.observe(ROWS, 200)
    assert observer.skipped_rows == 400
    with pytest.raises(Unavailable, match=r"m 1 is not monitored: profile\.arrow: expected"):
        observer.ready()
    assert "m 1 is not monitored: profile.arrow" in caplog.text


def test_a_monitor_that_lacks_files_is_tried_again_and_what_waits_is_observed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It once stayed away until its version was loaded again."""
    tries: list[int] = []

    def make() -> Monitor:
        tries.append(len(tries))
        if len(tries) < 3:
            try:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "profile.arrow")
            except OSError as error:
                raise BadRequest(f"profile.arrow: expected a profile: {error}") from error
        return monitor()

    monkeypatch.setattr(module, "backoff", lambda failures: failures / 100)
    observer = Observer(make, "m 1")
    observer.observe(ROWS, 200)
    observer.start()
    until(lambda: observer.monitor is not None)
    assert observer.ready().rows == 200
    assert (observer.failure, observer.skipped_rows, len(tries)) == ("", 0, 3)
    assert (
        caplog.messages
        == [
            "m 1 is not monitored: profile.arrow: expected a profile: [Errno 24] Too many open files: "
            "'profile.arrow'; next try in 0 s"
        ]
        * 2
    )


def test_who_waits_for_files_can_be_closed() -> None:
    def make() -> Monitor:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    observer = Observer(make, "m 1")
    observer.start()
    until(lambda: observer.failure != "")
    with pytest.raises(Unavailable, match=r"m 1 is not monitored: .*Too many open files"):
        observer.ready()
    observer.close()
    until(lambda: not any(one.name == "driftline-monitor" for one in threading.enumerate()))


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 2 * ROWS["x"].nbytes)
    observer = Observer(monitor, "m 1")
    for _ in range(5):
        observer.observe(ROWS, 200)
    assert (observer.waiting_rows, observer.skipped_rows) == (400, 600)
    observer.start()
    until(lambda: observer.monitor is not None)
    assert observer.ready().rows == 400


def test_a_closed_observer_lets_go() -> None:
    observer = Observer(monitor, "m 1")
    observer.observe(ROWS, 200)
    observer.close()
    observer.start()
    observer.observe(ROWS, 200)
    assert observer.waiting_rows == 0
    assert observer.monitor is None


def test_what_comes_while_the_monitor_takes_its_place_is_observed() -> None:
    class Late:
        """A lock that a batch gets only when the monitor is there."""

        def __enter__(self) -> None:
            if threading.current_thread() is not threading.main_thread():
                return
            observer._load()

        def __exit__(self, *_: object) -> None: ...

    observer = Observer(monitor, "m 1")
    observer._lock = Late()  # type: ignore[assignment]
    observer._load = partial(in_thread, observer._load)  # type: ignore[method-assign]
    assert observer.observe(ROWS, 200)
    assert observer.ready().rows == 200
    assert (observer.waiting_rows, observer.skipped_rows) == (0, 0)


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_texts_that_wait_are_counted_with_their_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    observer = Observer(monitor, "m 1")
    assert observer.observe({"s": np.array(["a" * 9_000], object)}, 1)
    assert not observer.observe({"s": np.array(["a" * 9_000], object)}, 1)
    assert (observer.waiting_rows, observer.skipped_rows) == (1, 1)
