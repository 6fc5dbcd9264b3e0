"""A profile of the traffic of a running server."""

from __future__ import annotations

from urllib.parse import quote

from driftline.errors import BadRequest
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reference.storage import decode
from driftline.rules import without_secrets

GRACE_SECONDS = 30.0
"""Time that a server may take to respond, beyond the time to collect rows."""


def profile_of_traffic(url: str, model: str, rows: int, seconds: float) -> Profile:
    """Return a profile of the next rows, inputs and outputs, that a server's model predicts.

    url      of the server, such as http://127.0.0.1:8080
    model    NAME, or NAME:VERSION
    rows     number of rows wanted
    seconds  how long to wait for them; the profile has the rows that arrived by then

    Raises BadRequest if the server can't be reached or refuses, or if no rows arrive.
    """
    import httpx

    name, _, version = model.partition(":")
    path = f"/v2/models/{quote(name, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
    try:
        answer = httpx.get(
            url.rstrip("/") + path + "/profile",
            params={"rows": rows, "seconds": seconds},
            timeout=seconds + GRACE_SECONDS,
        )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise BadRequest(f"{without_secrets(url)}: {type(error).__name__}: {error}") from error
    if not answer.is_success:
        raise BadRequest(f"{without_secrets(url)}: {answer.status_code}: {answer.text[:300]}")
    return Profile(*decode(answer.content, url))
