"""Log lines, for a person or for a machine."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import orjson

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {ord("\n"): "\\n"}


class JsonFormatter(logging.Formatter):
    """Formats records as JSON, one object per line, with their `extra` as keys.

    A record with `each` is about several things: one line as text, but one for each as JSON, with its keys.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        entries: list[dict[str, object]] = vars(record).get("each", [{}])
        line.pop("each", None)
        return "\n".join(
            orjson.dumps(line | entry, default=str, option=orjson.OPT_UTC_Z).decode() for entry in entries
        )


class TextFormatter(logging.Formatter):
    """Formats a record as a single line, even if it contains untrusted text: a name, a file's content."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        """Return the record, with control characters escaped."""
        record.message = record.message.translate(_ESCAPES)
        return super().formatMessage(record)


def configure(log_format: str, level: str, access_log: bool) -> None:
    """Send all logs to stderr, as 'text' or 'json'."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter()
        if log_format == "json"
        else TextFormatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%Y-%m-%d %H:%M:%S%z")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # uvicorn logs its lifecycle at info; driftline's own loggers do that here.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Numba logs its compilation at debug, in 20,000 lines.
    logging.getLogger("numba").setLevel(logging.WARNING)
    # httpx logs every URL that it requests at info, including secrets.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if access_log else logging.WARNING)
