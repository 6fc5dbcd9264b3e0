"""One-off comparison of two data sets, without a lasting monitor."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

from driftline.monitor.detection import detector
from driftline.monitor.detection.signals import Signal
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.fitting import Fit
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting.report import Report


def compare(
    reference: object,
    current: object,
    *,
    kinds: Mapping[str, str] | None = None,
    tolerance: float = 0.02,
) -> Report:
    """Return how the rows of `current` differ from those of `reference`.

        report = dl.compare(january, july)
        report["temp"].statistics["psi"].value, report.alarms, report.to_arrow()

    reference  a table, a DataFrame or arrays by name, as `Profile.fit` takes them, or a Profile
    current    the same columns, in any of these forms; others are ignored
    kinds      as `Profile.fit` takes them; unused if `reference` is a Profile
    tolerance  the drift of a column, as a PSI, that is harmless: an alarm means certainly more

    Warns if `current` has too few rows for any change or alarm to be certain; its statistics are valid all
    the same. Raises BadRequest, which names the column, if `current` lacks one or has it of another type.
    """
    if isinstance(reference, Profile):
        profile = reference
    else:  # like Profile.fit, but the warning points at our caller
        profile = Profile._of(Fit(kinds, most_bytes=math.inf), [reference], None)
    monitor = _QuietMonitor(profile, tolerance=tolerance, look_rows=0)
    monitor.observe(current)
    if monitor.rows < 2 * detector.FEW_ROWS:
        warnings.warn(
            f"{monitor.rows} rows, looked at together, are too few for a change or an alarm; "
            f"expected at least {2 * detector.FEW_ROWS}",
            stacklevel=2,
        )
    return monitor.report()


class _QuietMonitor(Monitor):
    """A monitor whose signals are only in its report."""

    def _log(self, signals: Sequence[Signal]) -> None:
        """Log nothing."""
