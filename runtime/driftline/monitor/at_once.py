"""Two sets of data held against each other at once, without a monitor that lives on."""

from __future__ import annotations

from collections.abc import Mapping

from driftline.monitor.monitor import Monitor
from driftline.monitor.profile import Profile
from driftline.monitor.report import Report


def compare(
    reference: object,
    current: object,
    *,
    kinds: Mapping[str, str] | None = None,
    tolerance: float = 0.02,
) -> Report:
    """How the rows of `current` differ from those of `reference`; alarms are logged, as a monitor's are.

        report = dl.compare(january, july)
        report["temp"].statistics["psi"].value, report.alarms, report.to_arrow()

    reference  a table, a DataFrame or arrays by name, as `Profile.fit` takes them, or a Profile
    current    the same columns, in any of these forms; others are left out
    kinds      as `Profile.fit` takes them; a Profile has its own
    tolerance  the drift of a column, as a PSI, that is harmless: beyond it, for certain, is an alarm

    Raises BadRequest, with its name, for a column that `current` lacks or has of another type.
    """
    profile = reference if isinstance(reference, Profile) else Profile.fit(reference, kinds)
    monitor = Monitor(profile, tolerance=tolerance, look_rows=0)
    monitor.observe(current)
    return monitor.report()
