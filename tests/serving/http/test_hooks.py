"""MLflow's webhooks: signed as its delivery.py signs them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from driftline.answers import HANDLERS
from driftline.errors import Forbidden
from driftline.serving.http import hooks
from driftline.serving.http.hooks import WINDOW_SECONDS, Hook, verify

WORDS = "both know it"


def signature(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """As in mlflow.webhooks.delivery."""
    content = f"{delivery}.{timestamp}.{body.decode()}"
    digest = hmac.new(secret.encode("utf-8"), content.encode("utf-8"), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode('utf-8')}"


def test_it_signs_as_mlflow_does() -> None:
    delivery = pytest.importorskip("mlflow.webhooks.delivery")
    assert delivery._generate_hmac_signature(WORDS, "1", "2", "é") == signature(WORDS, "1", "2", "é".encode())


def test_what_is_signed_and_new_is_taken() -> None:
    for delay in (-WINDOW_SECONDS, 0, WINDOW_SECONDS):
        verify(WORDS, "id", "1000", b"{}", signature(WORDS, "id", "1000", b"{}"), 1000.0 + delay)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"secret": "another"}, "X-MLflow-Signature"),
        ({"delivery": "other"}, "X-MLflow-Signature"),
        ({"timestamp": "1001"}, "X-MLflow-Signature"),
        ({"body": b"{ }"}, "X-MLflow-Signature"),
        ({"signature": ""}, "X-MLflow-Signature"),
        ({"signature": "é"}, "X-MLflow-Signature"),
        ({"now": 1000.0 + WINDOW_SECONDS + 1}, "X-MLflow-Timestamp"),
        ({"now": 1000.0 - WINDOW_SECONDS - 1}, "X-MLflow-Timestamp"),
    ],
)
def test_all_else_is_refused(changed: dict[str, Any], message: str) -> None:
    arguments = {
        "secret": WORDS, "delivery": "id", "timestamp": "1000", "body": b"{}",
        "signature": signature(WORDS, "id", "1000", b"{}"), "now": 1000.0,
    } | changed  # fmt: skip
    with pytest.raises(Forbidden, match=message):
        verify(**arguments)


@pytest.mark.parametrize("timestamp", ["", "now", "1e3", "-5", "９"])
def test_a_signed_time_that_is_none_is_refused(timestamp: str) -> None:
    with pytest.raises(Forbidden, match="X-MLflow-Timestamp"):
        verify(WORDS, "id", timestamp, b"{}", signature(WORDS, "id", timestamp, b"{}"), 1000.0)


class Looked:
    """A host that is only told to look."""

    def __init__(self) -> None:
        self.entries = {"m": None}
        self.looks: list[str] = []

    def sync_soon(self, name: str) -> None:
        self.looks.append(name)


def event(name: str | None = "m") -> dict[str, Any]:
    data = {"name": name, "alias": "production", "version": "2"} if name else {"budget_id": "b"}
    return {"entity": "model_version_alias", "action": "created", "timestamp": "2026", "data": data}


async def post(hook: Hook, document: object, delivery: str = "1", secret: str = WORDS) -> int:
    """Deliver a document; the status."""
    app = Starlette(
        routes=[Route("/hooks/mlflow", hook.receive, methods=["POST"])],
        exception_handlers=HANDLERS,
    )
    body, timestamp = json.dumps(document).encode(), str(int(time.time()))
    headers = {
        "x-mlflow-delivery-id": delivery,
        "x-mlflow-timestamp": timestamp,
        "x-mlflow-signature": signature(secret, delivery, timestamp, body),
    }
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://driftline") as client:
        return (await client.post("/hooks/mlflow", content=body, headers=headers)).status_code


async def test_a_delivery_makes_the_host_look_once() -> None:
    host = Looked()
    hook = Hook(host, WORDS)  # type: ignore[arg-type]
    assert [await post(hook, event()) for _ in range(3)] == [200] * 3
    assert host.looks == ["m"]
    assert await post(hook, event(), delivery="2") == 200
    assert host.looks == ["m", "m"]


async def test_what_is_about_something_else_is_taken_and_left() -> None:
    host = Looked()
    hook = Hook(host, WORDS)  # type: ignore[arg-type]
    assert [await post(hook, event(name), str(name)) for name in ("other", None)] == [200, 200]
    assert [await post(hook, document, str(document)) for document in ([], {}, 1)] == [400] * 3
    assert host.looks == []


async def test_without_the_secret_nobody_looks() -> None:
    host = Looked()
    assert await post(Hook(host, WORDS), event(), secret="guessed") == 403  # type: ignore[arg-type]
    assert await post(Hook(host, ""), event(), secret="") == 404  # type: ignore[arg-type]
    assert host.looks == []


async def test_old_deliveries_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "MAX_DELIVERIES", 2)
    hook = Hook(Looked(), WORDS)  # type: ignore[arg-type]
    news = [
        hook._is_new(delivery, now) for delivery, now in (("a", 0), ("a", 1), ("b", 2), ("c", 3), ("a", 4))
    ]
    assert news == [True, False, True, True, True]
    assert hook._is_new("c", 3 + 2 * WINDOW_SECONDS + 1)
