"""Answers in JSON."""

from __future__ import annotations

import orjson
from starlette.responses import Response


def json(content: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), status, media_type="application/json")
