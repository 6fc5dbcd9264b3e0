"""Forwards windows and alarms to other servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from driftline.config import Server
from driftline.monitor.reporting.webhook import Webhook
from driftline.registry.source import Version
from driftline.serving.monitoring.runs import Runs

if TYPE_CHECKING:
    from driftline.monitor.detection.signals import Signal


class Notifier:
    """Sends alarms to a webhook, and alarms and windows to a tracking server, if configured.

    Raises ConfigError if that is not possible.

    webhook, runs  where they go; None if not configured
    """

    def __init__(self, settings: Server | None = None) -> None:
        settings = settings or Server()
        self.runs = Runs.of(settings) if settings.track else None
        self.webhook = Webhook(settings.alarm_webhook) if settings.alarm_webhook else None

    def alarm(self, version: Version, signal: Signal) -> None:
        """Send an alarm, in the background."""
        if self.webhook is not None:
            self.webhook.post(signal)
        if self.runs is not None:
            self.runs.alarm(version, signal)

    def close(self) -> None:
        """Send what is still waiting, for at most ten seconds each."""
        for destination in (self.webhook, self.runs):
            if destination is not None:
                destination.close()
