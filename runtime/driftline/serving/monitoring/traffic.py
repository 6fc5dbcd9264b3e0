"""A profile of what a running server is being asked."""

from __future__ import annotations

from urllib.parse import quote

from driftline.errors import BadRequest
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reference.storage import decode
from driftline.rules import without_secrets

GRACE_SECONDS = 30.0
"""How much longer than it collects a server may take to answer."""


def profile_of_traffic(url: str, model: str, rows: int, seconds: float) -> Profile:
    """The profile of the next rows that a model of a server is asked about, inputs and outputs.

    url      of the server, such as http://127.0.0.1:8080
    model    NAME, or NAME:VERSION
    rows     how many are wanted
    seconds  how long to wait for them; what has come until then is the profile

    Raises BadRequest if the server can't be reached or refuses, or if no rows come.
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
