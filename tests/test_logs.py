"""Log lines."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest

from driftline.logs import TextFormatter


def test_a_line_is_one_line_whoever_has_chosen_its_words() -> None:
    formatter = TextFormatter("%(levelname)s %(message)s")
    name = "m\n12:00:00 ERROR all is lost\x1b[2J\r\x9b"
    record = logging.makeLogRecord({"msg": "%s is loaded, é", "args": (name,), "levelname": "INFO"})
    assert formatter.format(record) == "INFO m\\n12:00:00 ERROR all is lost\\x1b[2J\\x0d\\x9b is loaded, é"


def test_a_traceback_has_its_lines() -> None:
    with pytest.raises(ValueError, match="x") as caught:
        raise ValueError("x")
    record = logging.makeLogRecord({"msg": "no", "exc_info": (ValueError, caught.value, caught.tb)})
    assert len(TextFormatter("%(message)s").format(record).splitlines()) > 2


def test_a_line_has_its_date_and_zone() -> None:
    """Reports are in UTC, logs in the machine's zone; with the offset, the two can be compared."""
    code = (
        "import logging, driftline.logs as logs; logs.configure('text', 'info', False); logging.info('here')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TZ": "Asia/Kolkata"},
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+0530 INFO    here\n", done.stderr)
