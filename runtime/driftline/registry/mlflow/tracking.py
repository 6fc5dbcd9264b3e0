"""A REST client of an MLflow tracking server, compatible with MLflow's own, which copes with outages."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from threading import Lock
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode, urlunsplit
from urllib.request import getproxies

from driftline.backoff import backoff, jittered
from driftline.errors import BadRequest, ConfigError, NotFound, RegistryError
from driftline.registry.mlflow.deadline import Deadline
from driftline.registry.mlflow.memory import Memory
from driftline.rules import url_parts, without_secrets

if TYPE_CHECKING:
    from driftline.registry.mlflow.http import httpx

log = logging.getLogger("driftline.registry")

API = "/api/2.0/mlflow/"
TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 5.0
CALL_SECONDS = 60.0
"""Limit of a whole call, except for files; for a silent part of it, TIMEOUT_SECONDS."""
MAX_RETRY_SECONDS = 30.0
"""Most seconds before a server that is down is tried again."""


class Unreachable(RegistryError):
    """The registry can't be reached or is failing."""


class Answer(dict[str, Any]):
    """A server's response; a missing key means that the server is not MLflow."""

    def __missing__(self, key: str) -> Any:
        raise RegistryError(
            f"expected an MLflow server's answer, with {key!r}, got one with: {', '.join(self)}"
        )


class Tracking:
    """Sends requests to a tracking server; thread safe.

    Credentials come from MLflow's own variables: MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN,
    MLFLOW_TRACKING_INSECURE_TLS, _SERVER_CERT_PATH, _CLIENT_CERT_PATH, MLFLOW_WORKSPACE.

    uri     its address; a user and a password in it are used, and not shown
    memory  its last responses, used while it is down
    """

    def __init__(self, uri: str, memory: Memory | None = None) -> None:
        parts = url_parts(uri)
        if parts is None:
            raise BadRequest(
                f"registry {without_secrets(uri)!r}: expected an address such as http://host:5000"
            )
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        self.uri = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        self._address = (parts.hostname or "", port)
        self._user = (unquote(parts.username or ""), unquote(parts.password or ""))
        self._memory = memory
        self._verify = _verify() if parts.scheme == "https" else False  # the roots take a while to read
        self._lock = Lock()
        self._is_checked = memory is None or bool(getproxies())
        self._attempts = 0
        self._retry_at = 0.0

    @cached_property
    def _client(self) -> httpx.Client:
        from driftline.registry.mlflow.http import httpx

        return httpx.Client(
            base_url=self.uri,
            auth=_auth(*self._user),
            headers=_headers(),
            verify=self._verify,
            timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_keepalive_connections=0),  # requests are seconds apart
        )

    def _check_reachable(self) -> None:
        """Check that the server is reachable, before importing httpx: a start without it stays quick."""
        try:
            socket.create_connection(self._address, CONNECT_SECONDS).close()
        except (OSError, UnicodeError) as error:
            raise self.unreachable(error) from error
        self._is_checked = True

    def ask(self, path: str, **query: str) -> Answer:
        """Send a GET; return the response, or while the server is down the last one, if there is a memory.

        Raises NotFound if the server knows no such thing, Unreachable if it can't be reached, RegistryError
        for other refusals.
        """
        if self._memory is None:
            return self._json("GET", path, params=query)
        question = f"{path}?{urlencode(query)}"
        if self._attempts and time.monotonic() < self._retry_at:
            remembered = self._memory.recall(question)
            if remembered is not None:
                return Answer(remembered)
        try:
            if not self._is_checked:
                self._check_reachable()
            answer = self._json("GET", path, params=query)
        except Unreachable as error:
            remembered = self._memory.recall(question)
            if remembered is None:
                raise
            self._note_down(error)
            return Answer(remembered)
        except NotFound:
            self._memory.forget(question)
            raise
        self._note_up()
        self._memory.put(question, answer)
        return answer

    def tell(self, method: str, path: str, document: Mapping[str, Any]) -> Answer:
        """Send a change; return the response. Raises as `ask` does, and BadRequest for invalid parameters."""
        return self._json(method, path, json=dict(document))

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request; return its successful response, for errors see `ask`. `path` is used as it is."""
        with Deadline(f"registry {self.uri}", path, CALL_SECONDS) as deadline:
            try:
                response = self._request(method, path, extensions=deadline.extensions, **options)
            except Unreachable:
                if not deadline.passed:
                    raise
            if deadline.passed:
                raise Unreachable(f"registry {self.uri} has not answered in {CALL_SECONDS:g} s: {path}")
        self.check(response)
        return response

    def upload(self, path: str, content: IO[bytes], headers: Mapping[str, str]) -> None:
        """Upload a file, without a time limit."""
        self.check(self._request("PUT", path, content=content, headers=headers, timeout=None))

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        from driftline.registry.mlflow.http import httpx

        try:
            return self._client.request(method, path, **options)
        except (httpx.HTTPError, UnicodeError) as error:
            raise self.unreachable(error) from error

    def stream(self, path: str, headers: Mapping[str, str]) -> Any:
        """Send a GET whose body is streamed; return a context manager of the response."""
        return self._client.stream("GET", path, headers={"accept-encoding": "identity", **headers})

    def unreachable(self, error: Exception) -> Unreachable:
        """Make the error of a failed connection; httpx's own text may have an address with a password."""
        return Unreachable(f"registry {self.uri} can't be reached: {self._cause_of(error)}")

    def _cause_of(self, error: Exception) -> str:
        cause: BaseException | None = error
        while cause is not None:  # httpx's errors wrap the system's
            if isinstance(cause, socket.gaierror):
                return f"the name {self._address[0]} does not resolve"
            if isinstance(cause, ConnectionRefusedError):
                return f"nobody listens on port {self._address[1]}"
            cause = cause.__cause__ or cause.__context__
        return type(error).__name__

    def check(self, response: httpx.Response) -> None:
        """Raise the error of a response."""
        if response.is_success:
            return
        status, code, message = response.status_code, "", ""
        try:
            document = response.json()
            code, message = str(document["error_code"]), str(document["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            message = response.reason_phrase
        if code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound(f"{message} in {self.uri}")
        if status in (401, 403):
            raise RegistryError(
                f"registry {self.uri} refuses: {status} {response.reason_phrase}; "
                "MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN, say who asks"
            )
        if status == 429 or status >= 500:
            raise Unreachable(f"registry {self.uri} fails: {status} {message}")
        if code == "INVALID_PARAMETER_VALUE":
            raise BadRequest(f"registry {self.uri}: {message}")
        raise RegistryError(f"registry {self.uri}: {status} {message}")

    def _json(self, method: str, path: str, **options: Any) -> Answer:
        response = self.send(method, API + path, **options)
        try:
            document = response.json()
        except (ValueError, RecursionError):  # nesting may be too deep for Python
            document = None
        if not isinstance(document, dict):
            raise RegistryError(
                f"registry {self.uri}: expected an MLflow server's answer, got {path} without JSON"
            )
        return Answer(document)

    def _note_down(self, error: Unreachable) -> None:
        """Schedule the next attempt while the server is down, with backoff, and jitter between followers."""
        assert self._memory is not None
        with self._lock:
            first = self._attempts == 0
            self._attempts += 1
            self._retry_at = time.monotonic() + jittered(backoff(self._attempts, maximum=MAX_RETRY_SECONDS))
        if first:
            since = datetime.fromtimestamp(self._memory.since).astimezone()
            log.warning("%s; what it said last holds, news of %s", error, since.isoformat(" ", "seconds"))

    def _note_up(self) -> None:
        with self._lock:
            was_down, self._attempts = self._attempts > 0, 0
        if was_down:
            log.info("registry %s can be read again", self.uri)


def _auth(user: str, password: str) -> tuple[str, str] | None:
    user = user or os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = password or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    return (user, password) if user and password else None


def _headers() -> dict[str, str]:
    """Return the headers of MLflow's client; for httpx, as for MLflow, a password overrides the token."""
    headers = {}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    if workspace := os.environ.get("MLFLOW_WORKSPACE", "").strip():
        headers["x-mlflow-workspace"] = workspace
    return headers


def _verify() -> ssl.SSLContext | bool:
    """Return how to verify the server's certificate; ConfigError for a file that can't be read."""
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    authorities = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    client = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    if not authorities and not client:
        return True
    try:
        is_folder = authorities is not None and os.path.isdir(authorities)
        context = ssl.create_default_context(
            cafile=None if is_folder else authorities, capath=authorities if is_folder else None
        )
        if client:
            context.load_cert_chain(client)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"MLFLOW_TRACKING_SERVER_CERT_PATH or _CLIENT_CERT_PATH: {error}") from error
    return context
