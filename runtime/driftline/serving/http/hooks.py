"""What MLflow tells of its own accord: signed webhooks, quicker than polling, and never instead of it."""

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

SECRET = "DRIFTLINE_MLFLOW_WEBHOOK_SECRET"  # noqa: S105
"""The environment variable with what the webhook was made with; nowhere else may it stand."""

WINDOW_SECONDS = 300
"""A delivery is no older and no newer than this."""

MOST_BYTES = 2**20
MOST_DELIVERIES = 10_000


def routes(host: Host) -> list[Route]:
    """The route of webhooks."""
    return [Route("/hooks/mlflow", Hook(host, os.environ.get(SECRET, "")).receive, methods=["POST"])]


class Hook:
    """Takes deliveries of MLflow's webhooks, and looks at the registry for the model that one names.

    A webhook is only a hint: it says that something has changed, never what is to be served.
    """

    def __init__(self, host: Host, secret: str) -> None:
        self._host = host
        self._secret = secret
        self._seen: OrderedDict[str, float] = OrderedDict()

    async def receive(self, request: Request) -> Response:
        """One delivery: answered at once, looked into afterwards, since MLflow waits for the answer.

        Raises Forbidden for what is not signed with the secret, or not now; NotFound if there is no secret.
        """
        if not self._secret:
            raise NotFound(f"no webhooks are taken: {SECRET} is not set")
        body = await read_body(dict(request.headers.raw), request.receive, MOST_BYTES)
        headers = request.headers
        delivery, sent = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
        verify(self._secret, delivery, sent, body, headers.get("x-mlflow-signature", ""), time.time())
        name = _model_of(body)
        if self._is_new(delivery, time.monotonic()) and name in self._host.entries:
            log.info("MLflow says that %s has changed", name, extra={"model": name, "delivery": delivery})
            self._host.look(name)
        return Response()

    def _is_new(self, delivery: str, now: float) -> bool:
        """Whether a delivery comes for the first time: MLflow sends it again if an answer is lost."""
        while self._seen and (
            len(self._seen) >= MOST_DELIVERIES or next(iter(self._seen.values())) < now - 2 * WINDOW_SECONDS
        ):
            self._seen.popitem(last=False)
        return self._seen.setdefault(delivery, now) == now


def verify(secret: str, delivery: str, sent: str, body: bytes, signature: str, now: float) -> None:
    """Check a delivery as mlflow/webhooks/delivery.py signs it; Forbidden if it is not MLflow's, or old.

    The signature is `v1,` and the base64 of the HMAC-SHA256, under the secret, of "DELIVERY.TIMESTAMP.BODY".
    """
    signed = f"{delivery}.{sent}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    if not hmac.compare_digest(expected, signature.encode()):
        raise Forbidden("X-MLflow-Signature: expected one made with this server's secret")
    if not (sent.isascii() and sent.isdigit() and abs(now - int(sent)) <= WINDOW_SECONDS):
        raise Forbidden(
            f"X-MLflow-Timestamp: expected a time within {WINDOW_SECONDS} s of now, came {sent!r}"
        )


def _model_of(body: bytes) -> str:
    """The name of the model that an event is about; empty if it is about something else."""
    try:
        document = orjson.loads(body)
        data = document["data"]
        return str(data.get("name", "")) if isinstance(data, dict) else ""
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadRequest("the request: expected an MLflow webhook's event") from error
