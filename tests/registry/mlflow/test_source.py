"""The registry over REST, with a server that can break off, lie and go away; the real one is elsewhere."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from driftline.errors import BadRequest, ConfigError, NotFound, RegistryError
from driftline.registry.cache import Cache, digest_of
from driftline.registry.mlflow import artifacts as artifacts_module
from driftline.registry.mlflow import deadline as deadline_module
from driftline.registry.mlflow import tracking as tracking_module
from driftline.registry.mlflow.source import DIGEST, MlflowRegistry
from driftline.registry.source import Reference, Registry

ROOT = "0/models/m-1/artifacts"
FLIGHTS = Reference("flights")


class FakeTracking:
    """As much of MLflow's REST API as following and fetching needs; what it holds may change at any time."""

    def __init__(self) -> None:
        self.aliases = {"production": 1}
        self.newest = [1]  # of each stage
        self.tags: dict[str, str] = {}
        self.files = {"MLmodel": b"flavors: {}", "deep/er/data": bytes(range(256)) * 4096}
        self.sizes: dict[str, int] = {}
        self.etag = '"one"'
        self.breaks = 0  # answers that break off in the middle
        self.damages = 0  # answers with other bytes
        self.drips = False  # answers come a byte at a time
        self.status = 200
        self.asked: list[tuple[str, dict[str, str]]] = []

    def answer(self, path: str, query: dict[str, str]) -> Any:
        version = {
            "name": "flights", "version": "1", "creation_timestamp": 1000, "source": "models:/m-1",
            "run_id": "r1", "status": "READY", "tags": [{"key": k, "value": v} for k, v in self.tags.items()],
        }  # fmt: skip
        match path:
            case "registered-models/get" if query["name"] == "flights":
                aliases = [{"alias": alias, "version": str(number)} for alias, number in self.aliases.items()]
                latest = [version | {"version": str(number)} for number in self.newest]
                model = {"name": "flights", "latest_versions": latest, "aliases": aliases}
                return {"registered_model": model}
            case "registered-models/search":
                names = [{"name": name, "latest_versions": [version]} for name in ("flights", "not ours/")]
                return {"registered_models": names}
            case "model-versions/search":
                # Two pages, a version that is not ready yet on the second.
                if "page_token" not in query:
                    return {"model_versions": [version], "next_page_token": "2"}
                return {"model_versions": [version | {"version": "2", "status": "PENDING_REGISTRATION"}]}
            case "model-versions/get-download-uri":
                return {"artifact_uri": "models:/m-1"}
            case "logged-models/m-1":
                return {"model": {"info": {"artifact_uri": f"mlflow-artifacts:/{ROOT}"}}}
            case "runs/get":
                dataset = {"dataset": {"name": "train", "digest": "d1"}}
                return {"run": {"inputs": {"dataset_inputs": [dataset]}}}
        return None

    def listing(self, folder: str) -> list[dict[str, Any]]:
        inside = {path[len(folder) :] for path in self.files if path.startswith(folder)}
        return [
            {"path": name.split("/")[0], "is_dir": True}
            if "/" in name and not name.startswith("..")
            else {"path": name, "file_size": self.sizes.get(folder + name, len(self.files[folder + name]))}
            for name in sorted(inside)
        ]


@pytest.fixture
def fake() -> FakeTracking:
    return FakeTracking()


@pytest.fixture
def url(fake: FakeTracking) -> Iterator[str]:
    with answering(fake) as url:
        yield url


@contextmanager
def answering(fake: FakeTracking, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server on a free port, with TLS if there is a context; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            fake.asked.append((self.path, headers))
            api, _, path = unquote(parts.path).removeprefix("/api/2.0/").partition("/")
            if fake.status != 200:
                self._json({"error_code": "X", "message": "no"}, fake.status)
            elif api == "mlflow":
                answer = fake.answer(path, query)
                missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"{path} not found"}
                self._json(*((missing, 404) if answer is None else (answer, 200)))
            elif path == "artifacts":
                folder = query["path"].removeprefix(ROOT).lstrip("/")
                self._json({"files": fake.listing(folder + "/" if folder else "")})
            else:
                self._file(fake.files[path.removeprefix(f"artifacts/{ROOT}/")], headers)

        def _json(self, document: Any, status: int = 200) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self._write(body)

        def _write(self, body: bytes) -> None:
            if not fake.drips:
                self.wfile.write(body)
                return
            with suppress(OSError):  # it is hung up on
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    Event().wait(0.02)

        def _file(self, content: bytes, headers: dict[str, str]) -> None:
            begin = 0
            if headers.get("if-range") == fake.etag:
                begin = int(headers["range"].removeprefix("bytes=").rstrip("-"))
            if begin == len(content) > 0:
                self.send_response(416)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            self.send_response(206 if begin else 200)
            self.send_header("etag", fake.etag)
            self.send_header("content-length", str(len(content) - begin))
            if begin:
                self.send_header("content-range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            body = content[begin:]
            if fake.damages:
                fake.damages -= 1
                body = bytes([body[0] ^ 1]) + body[1:]
            if fake.breaks and len(body) > 1000:
                fake.breaks -= 1
                body = body[: len(body) // 2]
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None: ...

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *arguments: Any) -> None: ...  # a client that does not trust us hangs up

    with Quiet(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def dripping_heads() -> Iterator[str]:
    """A server whose answer has a head that does not end, a byte at a time; its address."""

    def answer() -> None:
        with suppress(OSError), server.accept()[0] as client:
            client.sendall(b"HTTP/1.1 200 OK\r\nx: ")
            while True:
                client.sendall(b"y")
                Event().wait(0.02)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of whoever runs the tests, and no rest between attempts."""
    for name in ("USERNAME", "PASSWORD", "TOKEN", "INSECURE_TLS", "SERVER_CERT_PATH", "CLIENT_CERT_PATH"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.delenv("MLFLOW_WORKSPACE", raising=False)
    monkeypatch.setattr(artifacts_module.time, "sleep", lambda seconds: None)


@pytest.fixture
def registry(url: str, tmp_path: Path) -> MlflowRegistry:
    return MlflowRegistry(url, Cache(tmp_path / "cache"))


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


# -- reading --------------------------------------------------------------------------------------------


def test_a_version_has_aliases_tags_and_lineage(registry: MlflowRegistry, fake: FakeTracking) -> None:
    fake.tags = {"team": "a"}
    version = registry.resolve(FLIGHTS)
    assert (version.number, version.created, version.aliases) == (1, 1.0, ("production",))
    assert version.tags == {"team": "a"}
    datasets = [{"name": "train", "digest": "d1"}]
    assert version.lineage == {"run_id": "r1", "model_id": "m-1", "datasets": datasets}


def test_following_costs_one_request_a_look(registry: MlflowRegistry, fake: FakeTracking) -> None:
    registry.resolve(FLIGHTS)
    fake.asked.clear()
    registry.resolve(FLIGHTS)
    assert [path for path, _ in fake.asked] == ["/api/2.0/mlflow/registered-models/get?name=flights"]


def test_without_an_alias_the_newest_version_of_all_stages_serves(
    registry: MlflowRegistry, fake: FakeTracking
) -> None:
    fake.aliases, fake.newest = {}, [2, 3, 1]
    assert registry.resolve(FLIGHTS).number == 3


def test_names_that_are_no_names_here_are_left_out(registry: MlflowRegistry) -> None:
    assert registry.models() == ["flights"]


def test_only_what_is_ready_is_a_version(registry: MlflowRegistry) -> None:
    assert [version.number for version in registry.versions("flights")] == [1]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("flights@staging", "model 'flights' has no alias 'staging'; it has: production"),
        ("flights:7", "model 'flights' has no version 7; it has: 1"),
        ("trains", "no model 'trains' in http.*; there are: flights"),
    ],
)
def test_what_is_not_there_is_named(registry: MlflowRegistry, reference: str, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        registry.resolve(Reference.parse(reference))


@pytest.mark.parametrize(
    ("names", "sent"),
    [
        ({"USERNAME": "u", "PASSWORD": "p"}, {"authorization": "Basic dTpw"}),
        ({"TOKEN": "t"}, {"authorization": "Bearer t"}),
        ({"USERNAME": "u", "PASSWORD": "p", "TOKEN": "t"}, {"authorization": "Basic dTpw"}),
        ({"USERNAME": "u"}, {}),
    ],
)
def test_mlflows_own_variables_say_who_asks(
    url: str, fake: FakeTracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: Any, sent: Any
) -> None:
    for name, value in names.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    monkeypatch.setenv("MLFLOW_WORKSPACE", " team ")
    MlflowRegistry(url, Cache(tmp_path)).resolve(FLIGHTS)
    _, headers = fake.asked[0]
    assert {key: value for key, value in headers.items() if key == "authorization"} == sent
    assert headers["x-mlflow-workspace"] == "team"


def test_a_password_in_the_address_is_used_and_not_shown(
    url: str, fake: FakeTracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "driftline")
    registry = MlflowRegistry(url.replace("://", "://u:p%40ss@"), Cache(tmp_path), remember=True)
    registry.resolve(FLIGHTS)
    assert fake.asked[0][1]["authorization"] == "Basic dTpwQHNz"
    assert registry.uri == url
    fake.status = 503
    registry.resolve(FLIGHTS)
    assert "p%40ss" not in caplog.text
    assert "p@ss" not in caplog.text


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, RegistryError, "refuses: 401 Unauthorized; MLFLOW_TRACKING_USERNAME"),
        (403, RegistryError, "refuses: 403"),
        (429, RegistryError, "fails: 429 no"),
        (500, RegistryError, "fails: 500 no"),
        (418, RegistryError, "418 no"),
    ],
)
def test_refusals_are_said(
    registry: MlflowRegistry, fake: FakeTracking, status: int, error: type[Exception], message: str
) -> None:
    fake.status = status
    with pytest.raises(error, match=message):
        registry.resolve(FLIGHTS)


@pytest.mark.parametrize(
    "uri", ["http://", "https://:5000", "http://host:port", "http://u:secret@host:99999"]
)
def test_an_address_without_a_host_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="expected an address") as error:
        Registry.open(uri)
    assert "secret" not in str(error.value)


def test_a_certificate_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/nowhere.pem")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_SERVER_CERT_PATH"):
        Registry.open("https://localhost")


def test_a_server_that_is_not_mlflow_is_named(
    registry: MlflowRegistry, fake: FakeTracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "answer", lambda path, query: {"hello": "world"})
    with pytest.raises(RegistryError, match="with 'registered_model', got one with: hello"):
        registry.resolve(FLIGHTS)
    monkeypatch.setattr(fake, "answer", lambda path, query: [])
    with pytest.raises(RegistryError, match="got registered-models/get without JSON"):
        registry.resolve(FLIGHTS)


@pytest.mark.parametrize("what", ["an answer", "a head"])
def test_a_server_that_drips_is_not_waited_for_without_end_or_word(
    what: str,
    fake: FakeTracking,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tracking_module, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(deadline_module, "SILENT_SECONDS", 0.1)
    fake.drips = True
    dripping = dripping_heads() if what == "a head" else answering(fake)
    with dripping as url, caplog.at_level("INFO"):
        registry = MlflowRegistry(url, Cache(tmp_path / "cache"))
        with pytest.raises(RegistryError, match=r"has not answered in 0.5 s: .*/registered-models/get"):
            registry.resolve(FLIGHTS)
        assert (
            f"registry {url} has not answered in 0.1 s: /api/2.0/mlflow/registered-models/get" in caplog.text
        )
        assert "the limit is 0.5 s" in caplog.text


def test_a_file_that_takes_long_is_told_of(
    registry: MlflowRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(artifacts_module, "PROGRESS_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        registry.fetch(registry.resolve(FLIGHTS))
    assert "MLmodel: 11 bytes of 11 have come" in caplog.text


def test_a_server_proves_who_it_is(
    fake: FakeTracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with answering(fake, context) as url:
        with pytest.raises(RegistryError, match="can't be reached: ConnectError"):
            MlflowRegistry(url, Cache(tmp_path)).resolve(FLIGHTS)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        assert MlflowRegistry(url, Cache(tmp_path)).resolve(FLIGHTS).number == 1
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        assert MlflowRegistry(url, Cache(tmp_path)).resolve(FLIGHTS).number == 1
        fake.drips = True
        monkeypatch.setattr(tracking_module, "CALL_SECONDS", 0.5)
        with pytest.raises(RegistryError, match=r"has not answered in 0.5 s"):
            MlflowRegistry(url, Cache(tmp_path)).resolve(FLIGHTS)


# -- away -----------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr(tracking_module.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_what_it_said_last_holds_while_it_is_away(
    url: str,
    fake: FakeTracking,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    clock: Callable[[float], None],
) -> None:
    caplog.set_level(logging.INFO, "driftline")
    registry = MlflowRegistry(url, Cache(tmp_path), remember=True)
    version = registry.resolve(FLIGHTS)
    folder = registry.fetch(version)
    fake.status = 503
    fake.asked.clear()
    for one in (registry, MlflowRegistry(url, Cache(tmp_path), remember=True)):
        assert one.resolve(FLIGHTS) == version
        assert one.fetch(version) == folder
    assert caplog.text.count("what it said last") == 2
    assert len(fake.asked) == 2
    for _ in range(100):  # it is asked less and less
        clock(1.0)
        registry.resolve(FLIGHTS)
    assert 3 <= len(fake.asked) <= 12
    fake.status, fake.aliases = 200, {}
    clock(tracking_module.MAX_RETRY_SECONDS)
    assert registry.resolve(FLIGHTS).aliases == ()
    assert caplog.text.count("can be read again") == 1


def test_where_nobody_is_there_no_client_is_loaded(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = MlflowRegistry(url, Cache(tmp_path), remember=True).resolve(FLIGHTS)

    def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(tracking_module.socket, "create_connection", refuse)
    registry = MlflowRegistry(url, Cache(tmp_path), remember=True)
    assert registry.resolve(FLIGHTS) == version
    assert "_client" not in vars(registry._tracking)


def test_what_it_never_said_fails_while_it_is_away(url: str, fake: FakeTracking, tmp_path: Path) -> None:
    fake.status = 503
    with pytest.raises(RegistryError, match="fails: 503"):
        MlflowRegistry(url, Cache(tmp_path), remember=True).resolve(FLIGHTS)


def test_what_is_gone_is_forgotten(
    url: str, fake: FakeTracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MlflowRegistry(url, Cache(tmp_path), remember=True)
    registry.resolve(FLIGHTS)
    monkeypatch.setattr(fake, "answer", lambda path, query: None if "/get" in path else {})
    with pytest.raises(NotFound):
        registry.resolve(FLIGHTS)
    fake.status = 503
    with pytest.raises(RegistryError):
        registry.resolve(FLIGHTS)


def test_without_a_memory_an_outage_is_an_error(registry: MlflowRegistry, fake: FakeTracking) -> None:
    registry.resolve(FLIGHTS)
    fake.status = 503
    with pytest.raises(RegistryError, match="fails: 503"):
        registry.resolve(FLIGHTS)


# -- fetching -------------------------------------------------------------------------------------------


def test_nested_folders_are_fetched_once(registry: MlflowRegistry, fake: FakeTracking) -> None:
    version = registry.resolve(FLIGHTS)
    folder = registry.fetch(version)
    assert content(folder) == fake.files
    fake.asked.clear()
    assert registry.fetch(version) == folder
    assert fake.asked == []


def test_what_breaks_off_goes_on_where_it_was(registry: MlflowRegistry, fake: FakeTracking) -> None:
    fake.breaks = 2
    assert content(registry.fetch(registry.resolve(FLIGHTS))) == fake.files
    ranges = [headers["range"] for _, headers in fake.asked if "range" in headers]
    size = len(fake.files["deep/er/data"])
    assert ranges == [f"bytes={size // 2}-", f"bytes={size * 3 // 4}-"]


def test_a_later_attempt_goes_on_too(registry: MlflowRegistry, fake: FakeTracking) -> None:
    version = registry.resolve(FLIGHTS)
    fake.breaks = artifacts_module.ATTEMPTS
    with pytest.raises(RegistryError, match="can't be reached: RemoteProtocolError"):
        registry.fetch(version)
    fake.asked.clear()
    assert content(registry.fetch(version)) == fake.files
    assert all("range" in headers for path, headers in fake.asked if "artifacts/0" in path)


def test_another_file_is_not_gone_on_with(registry: MlflowRegistry, fake: FakeTracking) -> None:
    version = registry.resolve(FLIGHTS)
    fake.breaks = artifacts_module.ATTEMPTS
    with pytest.raises(RegistryError):
        registry.fetch(version)
    fake.etag = '"two"'
    fake.files["deep/er/data"] = fake.files["deep/er/data"][::-1]
    assert content(registry.fetch(version)) == fake.files


@pytest.mark.parametrize("size", [1, 2**21])
def test_another_size_is_refused_and_comes_anew(
    registry: MlflowRegistry, fake: FakeTracking, size: int
) -> None:
    version = registry.resolve(FLIGHTS)
    fake.sizes = {"deep/er/data": size}
    with pytest.raises(RegistryError, match=rf"artifact deep/er/data: expected {size} bytes, got"):
        registry.fetch(version)
    fake.sizes = {}
    assert content(registry.fetch(version)) == fake.files


@pytest.mark.parametrize("name", ["..", "../up", "a\\b", "bell\x07", "."])
def test_a_name_that_leaves_its_folder_is_refused(
    registry: MlflowRegistry, fake: FakeTracking, name: str
) -> None:
    fake.files[name] = b"x"
    with pytest.raises(RegistryError, match="expected names of files and folders, got"):
        registry.fetch(registry.resolve(FLIGHTS))


def registered_digest(fake: FakeTracking) -> dict[str, str]:
    return {DIGEST: digest_of({path: sha256(data).hexdigest() for path, data in fake.files.items()})}


def test_damaged_files_are_fetched_anew(
    registry: MlflowRegistry, fake: FakeTracking, caplog: pytest.LogCaptureFixture
) -> None:
    fake.tags = registered_digest(fake)
    fake.damages = 1
    assert content(registry.fetch(registry.resolve(FLIGHTS))) == fake.files
    assert "its files came damaged" in caplog.text


def test_files_that_stay_damaged_are_refused(registry: MlflowRegistry, fake: FakeTracking) -> None:
    fake.tags = registered_digest(fake)
    fake.damages = 100
    version = registry.resolve(FLIGHTS)
    with pytest.raises(RegistryError, match="flights 1: expected files of the digest"):
        registry.fetch(version)
    fake.damages = 0
    assert content(registry.fetch(version)) == fake.files


def test_artifacts_elsewhere_are_refused(
    registry: MlflowRegistry, fake: FakeTracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.resolve(FLIGHTS)
    monkeypatch.setattr(fake, "answer", lambda path, query: {"artifact_uri": "s3://bucket/model"})
    with pytest.raises(
        RegistryError, match=r"expected artifacts that the server itself hands out.*s3://bucket"
    ):
        registry.fetch(version)


def test_why_a_server_can_not_be_reached_is_said() -> None:
    with pytest.raises(
        RegistryError, match=r"can't be reached: the name no\.such\.host\.invalid does not resolve"
    ):
        MlflowRegistry("http://no.such.host.invalid:5000").models()
    with pytest.raises(RegistryError, match="can't be reached: nobody listens on port 1"):
        MlflowRegistry("http://127.0.0.1:1").models()


@pytest.mark.parametrize("alias", ["latest", "Latest", "a.b", "v3", "a b"])
def test_an_alias_that_mlflow_refuses_is_refused_before(alias: str) -> None:
    with pytest.raises(BadRequest, match=f"alias '{alias}'"):
        MlflowRegistry("http://127.0.0.1:1").check_alias(alias)


@pytest.mark.parametrize(
    "uri", ["http://u:secret@[x", "http://u:secret@h:port", "http://u:sec/ret@", "ftp://u:secret@h"]
)
def test_what_is_no_address_is_refused_and_no_secret_said(uri: str) -> None:
    with pytest.raises(BadRequest, match="expected a") as caught:
        Registry.open(uri)
    assert "ret" not in str(caught.value)
