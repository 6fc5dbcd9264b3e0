"""Requests that are made up from metadata: our own codec reads them back."""

from __future__ import annotations

from base64 import b64encode

import numpy as np
import pytest

from driftline.errors import BadRequest
from driftline.load.request import Request, check_url, encode, model_path, only_model, tensor
from driftline.protocols.v2 import V2Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_is_read_back(datatype: str, as_bytes: bool) -> None:
    entry = {"name": "x", "datatype": datatype, "shape": [-1, 2, -1]}
    array = tensor(entry, 3)
    assert array.shape == (3, 2, 1)
    body, json_length = encode({"x": (datatype, array)}, as_bytes)
    assert (json_length is None) != as_bytes
    spec = TensorSpec("x", DATATYPES[datatype], (-1, 2, -1))
    request = V2Codec(Signature((spec,), (spec,), True), "m", 1).decode(body, json_length)
    np.testing.assert_array_equal(request.inputs["x"], array)
    assert request.binary == (frozenset({"x"}) if as_bytes else frozenset())


def test_raw_columns_are_of_so_many_rows() -> None:
    entries = [{"name": name, "datatype": name, "shape": [-1]} for name in ("BYTES", "FP64")]
    assert [tensor(entry, 5).shape for entry in entries] == [(5,), (5,)]


def test_fixed_shapes_stay_and_values_are_the_same_each_time() -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
    assert tensor(entry, 9).shape == (1, 4)
    np.testing.assert_array_equal(tensor(entry, 9), tensor(entry, 9))


def test_an_unknown_datatype_is_named() -> None:
    with pytest.raises(BadRequest, match="input 'x': expected a datatype that is known, got 'COMPLEX'"):
        tensor({"name": "x", "datatype": "COMPLEX", "shape": [1]}, 1)


def test_the_message_is_http() -> None:
    request = Request("http://h:80", "/p", {"Content-Type": "a/b"}, b"body", "")
    assert request.message == (
        b"POST /p HTTP/1.1\r\nHost: h:80\r\nContent-Type: a/b\r\nContent-Length: 4\r\n\r\nbody"
    )


def test_a_server_may_be_below_a_path() -> None:
    request = Request("http://h/below", "/p", {}, b"", "")
    assert request.url == "http://h/below/p"
    assert request.message.startswith(b"POST /below/p HTTP/1.1\r\nHost: h\r\n")


@pytest.mark.parametrize(
    ("below", "path"), [("/é ü", "/%C3%A9%20%C3%BC"), ("/a%20b/", "/a%20b"), ("/a:b@c;d", "/a:b@c;d")]
)
def test_a_path_is_quoted_once(below: str, path: str) -> None:
    request = Request(check_url(f"http://h{below}"), "/p", {}, b"", "")
    assert request.url == f"http://h{path}/p"
    assert request.message.startswith(f"POST {path}/p HTTP/1.1\r\nHost: h\r\n".encode())


@pytest.mark.parametrize(
    ("user", "secret"),
    [("me:pa%40ss", b"me:pa@ss"), ("me", b"me:"), ("m%C3%A9:é", "mé:é".encode()), (":", b":")],
)
def test_a_user_and_a_password_are_sent_apart(user: str, secret: bytes) -> None:
    request = Request(check_url(f"http://{user}@h:80"), "/p", {"Content-Type": "a/b"}, b"", "")
    assert request.url == "http://h:80/p"
    authorization = f"Authorization: Basic {b64encode(secret).decode()}"
    assert request.message.split(b"\r\n")[1:3] == [b"Host: h:80", authorization.encode()]
    assert request.all_headers["Content-Type"] == "a/b"


def test_a_password_is_not_in_messages() -> None:
    server = check_url("http://me:secret@nowhere.invalid")
    for failing in (lambda: only_model(server), Request(server, "/", {}, b"", "").address):
        with pytest.raises(BadRequest, match=r"nowhere\.invalid") as failed:
            failing()
        assert "secret" not in str(failed.value)


def test_paths_name_versions() -> None:
    assert model_path("m") == "/v2/models/m"
    assert model_path("a b:3") == "/v2/models/a%20b/versions/3"


@pytest.mark.parametrize(
    "url", ["", "x", "https://h", "http://", "http://h:x", "http://h?q", "ftp://h", "http://ü"]
)
def test_what_is_no_url_of_a_server(url: str) -> None:
    with pytest.raises(BadRequest, match="expected the URL of a server"):
        check_url(url)


def test_a_slash_at_the_end_does_not_matter() -> None:
    assert check_url("http://h:8080/") == "http://h:8080"


def test_a_host_that_is_unknown_is_named() -> None:
    with pytest.raises(BadRequest, match=r"nowhere\.invalid"):
        Request("http://nowhere.invalid", "/", {}, b"", "").address()
