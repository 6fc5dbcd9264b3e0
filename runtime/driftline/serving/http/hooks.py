"""MLflow's signed webhooks: faster than polling, which continues regardless."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import time
from collections import OrderedDict

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from driftline.errors import BadRequest, Forbidden, NotFound
from driftline.serving.host import Host
from driftline.serving.http.infer import read_body

log = logging.getLogger("driftline.hooks")

SECRET_VARIABLE = "DRIFTLINE_MLFLOW_WEBHOOK_SECRET"  # noqa: S105
"""The environment variable with the webhook's secret, the only place it may be set."""

WINDOW_SECONDS = 300
"""How far a delivery's timestamp may be from now, either way."""

MAX_BODY_BYTES = 2**20
MAX_DELIVERIES = 10_000


def routes(host: Host) -> list[Route]:
    """Return the route of webhooks."""
    return [Route("/hooks/mlflow", Hook(host, os.environ.get(SECRET_VARIABLE, "")).receive, methods=["POST"])]


class Hook:
    """Receives MLflow's webhooks and checks the registry for the model that one names.

    A webhook is only a hint that something has changed; it never decides what is served.
    """

    def __init__(self, host: Host, secret: str) -> None:
        self._host = host
        self._secret = secret
        self._seen: OrderedDict[str, float] = OrderedDict()

    async def receive(self, request: Request) -> Response:
        """Receive a delivery: respond at once and check the registry afterwards, since MLflow waits.

        Raises Forbidden for a wrong signature or a timestamp that is off; NotFound if no secret is set.
        """
        if not self._secret:
            raise NotFound(f"no webhooks are taken: {SECRET_VARIABLE} is not set")
        body = await read_body(dict(request.headers.raw), request.receive, MAX_BODY_BYTES)
        headers = request.headers
        delivery, timestamp = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
        verify(self._secret, delivery, timestamp, body, headers.get("x-mlflow-signature", ""), time.time())
        name = _model_name(body)
        if self._is_new(delivery, time.monotonic()) and name in self._host.entries:
            log.info("MLflow says that %s has changed", name, extra={"model": name, "delivery": delivery})
            self._host.sync_soon(name)
        return Response()

    def _is_new(self, delivery: str, now: float) -> bool:
        """Whether a delivery is new: MLflow sends it again if a response is lost."""
        while self._seen and (
            len(self._seen) >= MAX_DELIVERIES or next(iter(self._seen.values())) < now - 2 * WINDOW_SECONDS
        ):
            self._seen.popitem(last=False)
        return self._seen.setdefault(delivery, now) == now


def verify(secret: str, delivery: str, timestamp: str, body: bytes, signature: str, now: float) -> None:
    """Check a delivery as mlflow/webhooks/delivery.py signs it; Forbidden if it is not MLflow's, or old.

    The signature is `v1,` and the base64 of the HMAC-SHA256, under the secret, of "DELIVERY.TIMESTAMP.BODY".
    """
    signed = f"{delivery}.{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    if not hmac.compare_digest(expected, signature.encode()):
        raise Forbidden("X-MLflow-Signature: expected one made with this server's secret")
    if not (timestamp.isascii() and timestamp.isdigit() and abs(now - int(timestamp)) <= WINDOW_SECONDS):
        raise Forbidden(
            f"X-MLflow-Timestamp: expected a time within {WINDOW_SECONDS} s of now, got {timestamp!r}"
        )


def _model_name(body: bytes) -> str:
    """Return the name of the model that an event is about; empty if it is about something else."""
    try:
        document = orjson.loads(body)
        data = document["data"]
        return str(data.get("name", "")) if isinstance(data, dict) else ""
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadRequest("the request: expected an MLflow webhook's event") from error
