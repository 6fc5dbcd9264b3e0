"""Who is told of windows and alarms, besides the log and whoever asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from driftline.config import Server
from driftline.monitor.reporting.webhook import Webhook
from driftline.registry.source import Version
from driftline.serving.monitoring.runs import Runs

if TYPE_CHECKING:
    from driftline.monitor.detection.signals import Signal


class Notifier:
    """Tells a webhook of alarms, and a tracking server of alarms and windows, as far as settings name them.

    Raises ConfigError if that is not possible.
    """

    def __init__(self, settings: Server | None = None) -> None:
        settings = settings or Server()
        self.runs = Runs.of(settings) if settings.track else None
        self._webhook = Webhook(settings.alarm_webhook) if settings.alarm_webhook else None

    def alarm(self, version: Version, signal: Signal) -> None:
        """Tell of an alarm; never waits."""
        if self._webhook is not None:
            self._webhook.post(signal)
        if self.runs is not None:
            self.runs.alarm(version, signal)

    def close(self) -> None:
        """Tell what waits to be told, for ten seconds each at most."""
        for one in (self._webhook, self.runs):
            if one is not None:
                one.close()
