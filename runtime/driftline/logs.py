"""Log lines, for a person or for a machine."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import orjson

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {ord("\n"): "\\n"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; whatever a record carries as `extra` is a key of it.

    A record that carries `each` is of several things: a line for a person, and of each its own for a machine,
    with the keys that are its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        each: list[dict[str, object]] = vars(record).get("each", [{}])
        line.pop("each", None)
        return "\n".join(
            orjson.dumps(line | own, default=str, option=orjson.OPT_UTC_Z).decode() for own in each
        )


class TextFormatter(logging.Formatter):
    """A line for a person, and one only, whoever may have chosen a part of it: a name, a file's content."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        """The record, with control characters as escapes."""
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
    # uvicorn tells its life at info; ours is told by driftline's own loggers.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Numba tells at debug how it compiles, in 20,000 lines.
    logging.getLogger("numba").setLevel(logging.WARNING)
    # httpx tells every URL it asks at info, secrets and all.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if access_log else logging.WARNING)
