"""The request to send: made from a model's metadata, or given by the user."""

from __future__ import annotations

import socket
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

import numpy as np
import orjson

from driftline.errors import BadRequest, NotFound
from driftline.protocols import binary
from driftline.rules import url_parts, without_secrets
from driftline.tensors import DATATYPES, Array, shorten

if TYPE_CHECKING:
    import httpx

_SECONDS = 30.0
"""Time limit for a server's metadata and for a single response."""
_WORDS = ("a", "bc", "def", "ghij")
_SEED = 1
JSON = "application/json"
_SAFE = "/%:@!$&'()*+,;="
"""Allowed in a path besides letters and digits, and the % of what is already quoted: RFC 3986, 3.3."""
_JSON_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Request:
    """A POST: the server's URL, the path below it, headers, the body; and a `description` in a few words.

    A user and a password in the server's URL are sent as `Authorization: Basic`, and never shown.
    """

    server: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    description: str

    @property
    def url(self) -> str:
        """The URL to post to, without user and password."""
        server = urlsplit(self.server)
        return server._replace(netloc=_host(server)).geturl() + self.path

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers to send, except Host and Content-Length."""
        server = urlsplit(self.server)
        if server.username is None:
            return {**self.headers}
        secret = unquote_to_bytes(f"{server.username}:{server.password or ''}")
        return {"Authorization": f"Basic {b64encode(secret).decode()}", **self.headers}

    @property
    def message(self) -> bytes:
        """The bytes of the request in HTTP/1.1."""
        server = urlsplit(self.server)
        headers = {"Host": _host(server), **self.all_headers, "Content-Length": str(len(self.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {server.path}{self.path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + self.body

    def address(self) -> tuple[socket.AddressFamily, tuple[str, int]]:
        """Return the server's address; BadRequest if its name is unknown."""
        parts = urlsplit(self.server)
        try:
            family, _, _, _, address = socket.getaddrinfo(
                parts.hostname, parts.port or 80, type=socket.SOCK_STREAM
            )[0]
        except OSError as error:
            raise BadRequest(f"{without_secrets(self.server)}: {error.strerror}") from error
        return family, address  # type: ignore[return-value]

    def try_once(self) -> None:
        """Send it once; BadRequest, with the response, if the status is not 2xx."""
        response = _send(self.url, self.body, self.all_headers)
        if not response.is_success:
            raise BadRequest(f"{self.url}: expected an answer of status 2xx, got {_describe(response)}")


def _host(server: SplitResult) -> str:
    """Return HOST or HOST:PORT of a URL."""
    return server.netloc.rpartition("@")[2]


def check_url(url: str) -> str:
    """Return a server's URL, quoted and without a trailing slash; BadRequest if it is invalid."""
    parts = url_parts(url)
    if parts is None or parts.scheme != "http" or parts.query or parts.fragment or not _host(parts).isascii():
        raise BadRequest(
            f"{without_secrets(url)}: expected the URL of a server, such as http://127.0.0.1:8080"
        )
    return parts._replace(path=quote(parts.path, safe=_SAFE)).geturl().rstrip("/")


def model_path(model: str) -> str:
    """Return the protocol's path of a model, given as NAME or NAME:VERSION."""
    name, _, version = model.partition(":")
    return f"/v2/models/{quote(name, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def request_of(url: str, model: str | None, rows: int, as_bytes: bool) -> Request:
    """Make a request to a server's model, with values made up from the metadata of its inputs.

    model     NAME or NAME:VERSION; None for the only one that the server has
    rows      the first dimension, where it is variable; other variable dimensions are 1
    as_bytes  tensors as bytes, in request and response; otherwise as JSON

    Raises BadRequest if the server can't be reached or understood, NotFound for an unknown model.
    """
    model = model or only_model(url)
    response = _send(url + model_path(model))
    if response.status_code == 404:
        raise NotFound(f"{without_secrets(url)} has no model {model!r}; it serves: {_list(models(url))}")
    try:
        inputs = response.raise_for_status().json()["inputs"]
        tensors = {entry["name"]: tensor(entry, rows) for entry in inputs}
        if not tensors:
            raise ValueError("it has no inputs")
    except Exception as error:  # another server's response may cause any error
        if isinstance(error, BadRequest):
            raise
        raise BadRequest(
            f"{without_secrets(url)}{model_path(model)}: expected the model's metadata, "
            f"got {_describe(response)}"
        ) from error
    datatypes = [entry["datatype"] for entry in inputs]
    typed = {name: (kind, array) for (name, array), kind in zip(tensors.items(), datatypes, strict=True)}
    body, json_length = encode(typed, as_bytes)
    headers = {"Content-Type": JSON}
    if json_length is not None:
        headers = {"Content-Type": "application/octet-stream", _JSON_LENGTH: str(json_length)}
    description = f"{model}, {rows} row{'s' * (rows > 1)} as {'bytes' if as_bytes else 'JSON'}"
    return Request(url, model_path(model) + "/infer", headers, body, description)


def only_model(url: str) -> str:
    """Return the only model of a server; BadRequest if it has several, or none."""
    names = models(url)
    if len(names) != 1:
        raise BadRequest(f"{without_secrets(url)}: expected --model, the server has: {_list(names)}")
    return names[0]


def models(url: str) -> list[str]:
    """Return the ready models of a server; empty if it does not list them."""
    response = _send(url + "/v2/repository/index", b'{"ready":true}', {"Content-Type": JSON})
    try:
        return sorted({entry["name"] for entry in response.raise_for_status().json()})
    except Exception:  # a server without this extension, or something else altogether
        return []


def batched(url: str, model: str) -> bool:
    """Whether a server runs rows of several requests to a model together."""
    inputs = _send(url + model_path(model)).json()["inputs"]
    return all(entry["shape"][:1] == [-1] for entry in inputs)


def executions(url: str, model: str) -> tuple[int, int]:
    """Return the numbers of rows and of batches that a server has run of a model so far."""
    stats = _send(url + model_path(model) + "/stats").json()["model_stats"]
    rows = sum(version["inference_count"] for version in stats)
    return rows, sum(version["execution_count"] for version in stats)


def tensor(entry: Mapping[str, Any], rows: int) -> Array:
    """Make values for an input from its metadata, the same ones each time.

    Floating-point numbers are normally distributed; integers and booleans are 0 and 1, which most lookup
    tables of models contain; text is short.
    """
    datatype = DATATYPES.get(entry["datatype"])
    if datatype is None:
        raise BadRequest(
            f"input {shorten(entry['name'])}: expected a datatype that is known, "
            f"got {shorten(entry['datatype'])}"
        )
    shape = [int(size) for size in entry["shape"]]
    if shape and shape[0] == -1:
        shape[0] = rows
    shape = [1 if size == -1 else size for size in shape]
    rng = np.random.default_rng(_SEED)
    if datatype.dtype == object:
        return rng.choice(np.array(_WORDS, object), shape)
    if datatype.dtype.kind == "f":
        return rng.normal(size=shape).astype(datatype.dtype)
    return rng.integers(0, 2, shape).astype(datatype.dtype)


def encode(tensors: Mapping[str, tuple[str, Array]], as_bytes: bool) -> tuple[bytes, int | None]:
    """Return the body of a request, and the length of its JSON if bytes follow.

    tensors  as {name: (datatype, array)}
    """
    document: dict[str, Any] = {"inputs": []}
    chunks = []
    for name, (datatype, array) in tensors.items():
        entry: dict[str, Any] = {"name": name, "shape": array.shape, "datatype": datatype}
        if as_bytes:
            chunks.append(binary.encode(array))
            entry["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            entry["data"] = array.ravel() if array.dtype != object else array.ravel().tolist()
        document["inputs"].append(entry)
    if as_bytes:
        document["parameters"] = {"binary_data_output": True}
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((text, *chunks)), len(text)) if as_bytes else (text, None)


def _send(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Send a GET, or POST a body; BadRequest if there is no response."""
    import httpx

    try:
        method = "GET" if body is None else "POST"
        return httpx.request(method, url, content=body, headers=dict(headers or {}), timeout=_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise BadRequest(f"{without_secrets(url)}: {str(error) or type(error).__name__}") from error


def _describe(response: httpx.Response) -> str:
    return f"{response.status_code}: {response.text[:300]}"


def _list(names: list[str]) -> str:
    return ", ".join(names) or "it does not say"
