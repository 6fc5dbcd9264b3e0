from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.config import (
    Batching,
    Engine,
    ModelSettings,
    Monitoring,
    Server,
    ServerFile,
    Sidecar,
    bundle_settings,
    read_toml,
)
from driftline.errors import ConfigError
from driftline.files import MAX_BYTES
from driftline.rules import without_secrets


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "driftline.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


BUNDLE = """
[batching]
max_batch_rows = 0
max_delay_us = 500
max_queue_rows = 1
max_queue_bytes = 2
[engine]
device = "cuda:1"
instances = 2
threads = 3
"""

SERVER = """
[server]
registry = "shelf"
host = "::"
port = 0
max_body_bytes = 1
poll_seconds = 1
drain_seconds = 0
log_format = "json"
log_level = "error"
access_log = true
[models.flights.batching]
max_batch_rows = 7
[models.flights.engine]
threads = 2
[models."trains.v2"]
"""


def test_every_setting_of_a_bundle_is_read(toml: Callable[[str], Path]) -> None:
    assert bundle_settings(toml(BUNDLE)) == ModelSettings(Batching(0, 500, 1, 2), Engine("cuda:1", 2, 3))


@pytest.mark.parametrize("text", ["", "[batching]", "[engine]\n[batching]"])
def test_what_is_not_said_stays_as_it_is(toml: Callable[[str], Path], text: str) -> None:
    assert bundle_settings(toml(text)) == ModelSettings()


def test_no_file_is_no_settings(tmp_path: Path) -> None:
    assert bundle_settings(tmp_path / "driftline.toml") == ModelSettings()


def test_every_setting_of_a_server_is_read(toml: Callable[[str], Path]) -> None:
    file = ServerFile.read(toml(SERVER))
    assert Server(**file.server) == Server(
        registry="shelf",
        host="::",
        port=0,
        max_body_bytes=1,
        poll_seconds=1,
        drain_seconds=0,
        log_format="json",
        log_level="error",
        access_log=True,
    )
    assert Server(**ServerFile().server) == Server()


def test_a_server_overrides_a_bundle_model_by_model(toml: Callable[[str], Path]) -> None:
    file = ServerFile.read(toml(SERVER))
    bundle = ModelSettings(Batching(max_batch_rows=64, max_delay_us=500), Engine(instances=2))
    assert file.settings_of("flights", bundle) == ModelSettings(
        Batching(max_batch_rows=7, max_delay_us=500), Engine(instances=2, threads=2)
    )
    assert file.settings_of("trains.v2", bundle) == bundle
    assert file.settings_of("ships", bundle) == bundle
    assert ServerFile().settings_of("flights", bundle) == bundle


WHOLE = "expected a whole number from"
BATCHING = "max_batch_rows, max_delay_us, max_queue_bytes, max_queue_rows"
ENGINE = (
    "buckets, cuda_graphs, device, instances, memory_bytes, python, spinning, tensorrt, tensorrt_fp16, tf32, "
    "threads, trust"
)
BUCKETS = "expected ascending whole numbers from 1, in a list"
DEVICE = "expected 'cpu', 'cuda', 'cuda:N', 'cuda:N,M', 'cuda:all' or 'auto'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[batching]\nmax_batch_rows = -1", f"batching.max_batch_rows = -1: {WHOLE} 0"),
        ("[batching]\nmax_batch_rows = true", f"batching.max_batch_rows = True: {WHOLE} 0"),
        ("[batching]\nmax_batch_rows = 1.0", f"batching.max_batch_rows = 1.0: {WHOLE} 0"),
        ("[batching]\nmax_delay_us = '5'", f"batching.max_delay_us = '5': {WHOLE} 0"),
        ("[batching]\nmax_queue_rows = 0", f"batching.max_queue_rows = 0: {WHOLE} 1"),
        ("[batching]\nmax_queue_bytes = [1]", f"batching.max_queue_bytes = [1]: {WHOLE} 1"),
        ("[batching]\nmax_rows = 5", f"batching: max_rows = 5: unknown key; allowed are: {BATCHING}"),
        ("[engine]\ninstances = 0", f"engine.instances = 0: {WHOLE} 1"),
        *(
            (f"[engine]\nbuckets = {wrong}", f"engine.buckets = {wrong}: {BUCKETS}")
            for wrong in ("8", "[0, 1]", "[8, 1]", "[1, 1]", "[1.5]")
        ),
        ("[engine]\nbuckets = [true]", f"engine.buckets = [True]: {BUCKETS}"),
        ("[engine]\nthreads = -1", f"engine.threads = -1: {WHOLE} 0"),
        ("[engine]\ndevice = 'gpu'", f"engine.device = 'gpu': {DEVICE}"),
        ("[engine]\ndevice = 'cuda:'", f"engine.device = 'cuda:': {DEVICE}"),
        *(
            (f"[engine]\ndevice = '{wrong}'", f"engine.device = '{wrong}': {DEVICE}")
            for wrong in ("cuda:0,", "cuda:0,0", "cuda:1,cuda:0", "cpu,cuda", "cuda:all,1", "cuda:²")
        ),
        ("[engine]\ndevice = 'cpu:0'", f"engine.device = 'cpu:0': {DEVICE}"),
        ('[engine]\ndevice = "cpu\\n"', rf"engine.device = 'cpu\n': {DEVICE}"),
        ("[engine]\ndevice = 0", f"engine.device = 0: {DEVICE}"),
        (
            "engine = 5",
            f"engine: 5: expected a table with: {ENGINE}",
        ),
        (
            "[[engine]]",
            f"engine: [{{}}]: expected a table with: {ENGINE}",
        ),
        ("[server]\nport = 1", "server = {'port': 1}: unknown key; allowed are: batching, engine, monitor"),
        ("threads = 1", "threads = 1: unknown key; allowed are: batching, engine, monitor"),
    ],
)
def test_a_wrong_bundle_is_refused_by_file_key_and_value(
    toml: Callable[[str], Path], text: str, message: str
) -> None:
    path = toml(text)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {message}')}$"):
        bundle_settings(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nport = 65536", "server.port = 65536: expected a port from 0 to 65535"),
        ("[server]\nport = true", "server.port = True: expected a port from 0 to 65535"),
        ("[server]\nport = '80'", "server.port = '80': expected a port from 0 to 65535"),
        ("[server]\nhost = ''", "server.host = '': expected a host name or address"),
        ("[server]\nregistry = 5", "server.registry = 5: expected a folder"),
        ("[server]\nmax_body_bytes = 0", f"server.max_body_bytes = 0: {WHOLE} 1"),
        ("[server]\npoll_seconds = -1", "server.poll_seconds = -1: expected seconds from 0"),
        ("[server]\npoll_seconds = true", "server.poll_seconds = True: expected seconds from 0"),
        ("[server]\npoll_seconds = nan", "server.poll_seconds = nan: expected seconds from 0"),
        ("[server]\npoll_seconds = inf", "server.poll_seconds = inf: expected seconds from 0"),
        ("[server]\ndrain_seconds = -0.1", "server.drain_seconds = -0.1: expected seconds from 0"),
        ("[server]\ndrain_seconds = inf", "server.drain_seconds = inf: expected seconds from 0"),
        ("[server]\nlog_format = 'xml'", "server.log_format = 'xml': expected 'text' or 'json'"),
        ("[server]\nlog_level = []", "server.log_level = []: expected 'debug', 'info', 'warning' or 'error'"),
        ("[server]\naccess_log = 1", "server.access_log = 1: expected true or false"),
        ("[server]\ntrack = 'http://host'", "server.track = 'http://host': expected true or false"),
        (
            "[server]\nprot = 1",
            "server: prot = 1: unknown key; allowed are: access_log, alarm_webhook, busy_poll_us",
        ),
        ("server = 5", "server: 5: expected a table with: access_log"),
        ("[batching]", "batching = {}: unknown key; allowed are: models, server"),
        ("models = 5", "models = 5: expected tables such as [models.flights.batching]"),
        ("[models]\nflights = 5", "models.flights: 5: expected a table with: batching, engine"),
        ("[models.flights]\nbatching = 5", f"models.flights: batching: 5: expected a table with: {BATCHING}"),
        (
            "[models.flights.batching]\nmax_batch_rows = -1",
            f"models.flights: batching.max_batch_rows = -1: {WHOLE} 0",
        ),
        (
            "[models.flights.drift]\n",
            "models.flights: drift = {}: unknown key; allowed are: batching, engine, monitor",
        ),
    ],
)
def test_a_wrong_server_file_is_refused_by_file_key_and_value(
    toml: Callable[[str], Path], text: str, message: str
) -> None:
    path = toml(text)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {message}')}"):
        ServerFile.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[batching", "Expected ']' at the end of a table declaration (at end of document)"),
        (b"a = 1\na = 2", "Cannot overwrite a value"),
        (b"\xff", "'utf-8' codec can't decode byte 0xff"),
        (b"a = " + b"9" * 10_000, "Exceeds the limit"),
        (b"a = " + b"[" * 10_000, ""),
    ],
)
def test_a_malformed_file_is_refused_by_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "driftline.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {message}')}"):
        read_toml(path)


def test_a_file_that_can_not_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file or directory$"):
        ServerFile.read(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(tmp_path))}: .*Is a directory"):
        bundle_settings(tmp_path)


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)
KEYS = st.sampled_from([*Batching.__slots__, *Engine.__slots__]) | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from(["batching", "engine"]), st.dictionaries(KEYS, VALUES) | VALUES))
def test_whatever_a_file_says_is_taken_as_it_is_or_refused(tables: dict[str, object]) -> None:
    try:
        settings = ModelSettings().override(tables, "file")
    except ConfigError as error:
        refused = str(error)
        assert refused.startswith("file: ")
    else:
        for name, table in tables.items():
            assert isinstance(table, dict)
            assert all(getattr(getattr(settings, name), key) is value for key, value in table.items())


def test_threads_are_shared_among_instances() -> None:
    assert Engine(instances=2).threads_on(8) == 4
    assert Engine(instances=16).threads_on(8) == 1
    assert replace(Engine(instances=16), threads=5).threads_on(8) == 5


def test_what_settings_are_without_a_word_is_allowed() -> None:
    for settings in (Server(), Sidecar(), Monitoring()):
        settings.check()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1, True, "1", 10**400])
def test_wrong_settings_are_refused_by_their_flag(wrong: object) -> None:
    with pytest.raises(ConfigError, match=f"^--drain-seconds = {wrong!r}: expected seconds from 0$"):
        Sidecar(drain_seconds=wrong).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ("flights.arrow", "flights"),
        ("models/flights/3/profile.arrow", "flights"),
        ("/bundles/flights/profile.arrow", "flights"),
        ("/profile.arrow", "profile"),
    ],
)
def test_a_watched_model_has_a_name_without_being_given_one(profile: str, name: str) -> None:
    assert Sidecar(profile=profile).name == name
    assert Sidecar(profile=profile, model="m").name == "m"


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="without a user or a password") as refused:
        Sidecar(profile="p", upstream="http://user:secret@h:8000").check()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ftp://u:secret@h/path", "ftp://...@h/path"),
        ("ftp://u:sec/ret@h?key=secret", "ftp://...@h?..."),
        ("ftp://u:sec@ret@h#secret", "ftp://...@h?..."),
        ("u:secret@h", "...@h"),
        ("http://[::1/?secret", "http://[::1/?..."),
        ("models?", "models?"),
        ("ftp://h/hook?token=abc@secret", "ftp://h/hook?..."),
        ("ftp://h/p#a@secret", "ftp://h/p?..."),
        ("ftp://u:sec?ret@h/path", "ftp://..."),
        ("hooks.slack.com/services?token=secret", "hooks.slack.com/services?..."),
        ("postgresql+psycopg2://u:secret@h/x", "postgresql+psycopg2://...@h/x"),
    ],
)
def test_no_message_shows_a_secret(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    with pytest.raises(ConfigError, match=re.escape(f"--alarm-webhook = {shown!r}: expected an http")):
        Server(alarm_webhook=text).check()


def test_what_is_far_too_large_for_settings_is_not_read(toml: Callable[[str], Path]) -> None:
    path = toml("#" * MAX_BYTES + "\n")
    with pytest.raises(ConfigError, match=r"driftline.toml: expected at most 1048576 bytes, got more"):
        read_toml(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"driftline.toml: expected at most 1048576 bytes, got more"):
        read_toml(path)
