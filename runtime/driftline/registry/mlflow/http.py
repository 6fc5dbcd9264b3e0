"""httpx without its command line, whose imports (rich, pygments) take longer than all the rest."""

from __future__ import annotations

import sys

COMMAND_LINE = "httpx._main"

if "httpx" not in sys.modules:
    sys.modules[COMMAND_LINE] = None  # type: ignore[assignment]  # httpx treats it as not installed

import httpx  # noqa: E402

if sys.modules.get(COMMAND_LINE) is None:
    sys.modules.pop(COMMAND_LINE, None)

__all__ = ["httpx"]
