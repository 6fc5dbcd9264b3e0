"""What the log says of signals."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from driftline.monitor.signals import Signal

log = logging.getLogger("driftline.monitor")

TOLD = 3
"""Columns whose changes are told in words when several have changed, or only all together for certain."""


def log_signals(signals: Sequence[Signal]) -> None:
    """A log line for the signals of one look at one model, all of a kind: an alarm warns, a change informs.

    For a machine it is a line for each, see `logs`: what becomes of each is for others to say.
    """
    first = signals[0]
    each = [{"message": _line(one), "signal": one.to_dict()} for one in signals]
    level = logging.WARNING if first.kind == "alarm" else logging.INFO
    if len(signals) == 1:
        log.log(level, "%s", each[0]["message"], extra={"signal": each[0]["signal"]})
        return
    told = [f"{one.column} ({_psi(one)}{one.words})" for one in signals]
    log.log(
        level, "%s%s of %d columns after %d rows: %s",
        _about(first), first.kind, len(signals), first.rows, first_of(told), extra={"each": each},
    )  # fmt: skip


def first_of(told: Sequence[str]) -> str:
    """The first TOLD, and how many more there are."""
    more = [f"{len(told) - TOLD} more"] if len(told) > TOLD else []
    return ", ".join([*told[:TOLD], *more])


def _line(signal: Signal) -> str:
    what = (
        f"column {signal.column}" if signal.column else f"the model as a whole ({first_of(signal.columns)})"
    )
    return f"{_about(signal)}{signal.kind} of {what} after {signal.rows} rows: {signal.words}"


def _about(signal: Signal) -> str:
    version = f" {signal.version}" if signal.version else ""
    return f"{signal.model}{version}: " if signal.model else ""


def _psi(signal: Signal) -> str:
    psi = signal.statistics.get("psi")
    return f"PSI {psi.value:.2g}: " if psi is not None else ""
