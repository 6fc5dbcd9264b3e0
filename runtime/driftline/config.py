"""Settings and the files they come from, checked once, at the door.

A bundle's `driftline.toml` holds the tables [batching], [engine] and [monitor]. The server's own
`driftline.toml` holds [server] and [sidecar] and, to override a bundle's, [models.NAME.batching] and so on.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

from driftline.errors import ConfigError

Check = Callable[[Any], bool]

TRUST = "`--trust` does, or [models.NAME.engine] trust = true in the server's driftline.toml"
"""Who may say that code in a model may be run."""


DEVICES = "'cpu', 'cuda', 'cuda:N', 'cuda:N,M', 'cuda:all' or 'auto'"
"""Where a model may run: 'cuda' is the first card, 'auto' too if it can be used, else the CPU."""


def setting(default: Any, allowed: str, check: Check) -> Any:
    """A dataclass field that knows in words and in code which values are allowed."""
    return field(default=default, metadata={"allowed": allowed, "check": check})


def _whole(least: int) -> dict[str, Any]:
    return {
        "allowed": f"a whole number from {least}",
        "check": lambda value: type(value) is int and value >= least,
    }


def _number(least: float, unit: str = "a number") -> dict[str, Any]:
    return {
        "allowed": f"{unit} from {least:g}",
        "check": lambda value: type(value) in (int, float) and least <= value < inf,
    }


def _text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _device(value: str) -> bool:
    if re.fullmatch(r"auto|cpu|cuda(:all|:\d{1,4}(,\d{1,4})*)?", value, re.ASCII) is None:
        return False
    cards = [int(card) for card in re.findall(r"\d+", value)]
    return len(cards) == len(set(cards))


def _ascending(value: object) -> bool:
    return (
        isinstance(value, (list, tuple))
        and all(type(one) is int and one > 0 for one in value)
        and all(first < second for first, second in pairwise(value))
    )


@dataclass(frozen=True, slots=True)
class Batching:
    """How much runs together, how much at once, and how much may wait."""

    max_batch_rows: int = setting(128, **_whole(0))
    """Rows that run together; 0: requests run whole and alone, whatever their shape."""
    max_delay_us: int = setting(0, **_whole(0))
    """How long the first request may wait for others, in microseconds."""
    max_queue_rows: int = setting(65_536, **_whole(1))
    """Rows that may wait; a request that finds the queue full gets 503."""
    max_queue_bytes: int = setting(256 * 2**20, **_whole(1))
    """Bytes that may wait."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs a model, and how many at once."""

    device: str = setting(
        "cpu",
        DEVICES,
        lambda value: isinstance(value, str) and _device(value),
    )
    instances: int = setting(1, **_whole(1))
    """Batches that run at the same time."""
    threads: int = setting(0, **_whole(0))
    """Threads of one batch; 0: the cores this process may use, shared among the instances."""
    spinning: bool = setting(False, "true or false", lambda value: type(value) is bool)
    """Whether threads spin while they wait for work: quicker, but it takes the cores from the event loop."""

    trust: bool = setting(False, "true or false", lambda value: type(value) is bool)
    """Whether code that comes with the model may be run; not for its own driftline.toml to say."""
    python: str = setting("", "the path of a Python interpreter", lambda value: isinstance(value, str))
    """What runs that code, each instance in a process of its own; the server's own interpreter if empty."""
    memory_bytes: int = setting(0, **_whole(0))
    """Memory of such a process; 0: half of what there is, shared among the instances."""

    cuda_graphs: bool = setting(False, "true or false", lambda value: type(value) is bool)
    """Whether a card records what a batch of each form asks of it, and is asked again in one launch."""
    tensorrt: bool = setting(False, "true or false", lambda value: type(value) is bool)
    """Whether TensorRT computes on a card what it can of a model."""
    tensorrt_fp16: bool = setting(False, "true or false", lambda value: type(value) is bool)
    """Whether it may do so in half precision."""
    buckets: tuple[int, ...] = setting((), "ascending whole numbers from 1, in a list", _ascending)
    """Rows of the batches that a card computes, which others are filled up to; beyond them, powers of two."""

    def threads_on(self, cores: int) -> int:
        """Threads of one batch on a machine with so many cores."""
        return self.threads or max(1, cores // self.instances)

    def memory_on(self, there: int) -> int:
        """Memory of one process of Python code on a machine with so many bytes."""
        return self.memory_bytes or there // 2 // self.instances


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What is watched, how closely, and how sure an alarm is."""

    enabled: bool = setting(True, "true or false", lambda value: type(value) is bool)
    false_alarm_rows: float = setting(1_000_000, **_number(1))
    """Rows that pass on average, at least, before a false alarm while nothing changes."""
    tolerance: float = setting(0.02, **_number(0))
    """The drift of a column, as a PSI, that is harmless."""
    look_rows: int = setting(0, **_whole(0))
    """Rows between two looks of the detectors; 0: by time only."""
    look_seconds: float = setting(1.0, **_number(0, "seconds"))
    """Seconds between two looks; 0: by rows only."""
    window_rows: int = setting(0, **_whole(0))
    """Rows after which a window ends; 0: by time only."""
    window_seconds: float = setting(3600.0, **_number(0, "seconds"))
    """Seconds after which a window ends; 0: by rows only."""
    keep_windows: int = setting(24, **_whole(0))
    """Finished windows that are kept in memory."""
    history: str = setting("", "a folder, or nothing", lambda value: isinstance(value, str))
    """Where finished windows are written, as Parquet; nowhere if empty."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """All settings of one model."""

    batching: Batching = field(default_factory=Batching)
    engine: Engine = field(default_factory=Engine)
    monitor: Monitoring = field(default_factory=Monitoring)

    def override(self, tables: Mapping[str, Any], where: str) -> ModelSettings:
        """These settings with the values of a TOML document; ConfigError, beginning with `where`."""
        known = {item.name for item in fields(self)}
        _refuse_unknown(tables, known, where)
        return replace(
            self,
            **{
                name: _override(getattr(self, name), table, where, f"{name}.")
                for name, table in tables.items()
            },
        )


@dataclass(frozen=True, slots=True)
class Server:
    """Settings of a serving process; the flags of `driftline serve` in the same words."""

    registry: str = setting("models", "a folder or an http:// URL", _text)
    host: str = setting("127.0.0.1", "a host name or address", _text)
    port: int = setting(
        8080, "a port from 0 to 65535", lambda value: type(value) is int and 0 <= value < 65536
    )
    max_body_bytes: int = setting(64 * 2**20, **_whole(1))
    poll_seconds: float = setting(
        0.0, "seconds from 0", lambda value: type(value) in (int, float) and 0 <= value < inf
    )
    """Time between two looks at the registry; 0: 0.5 s for a folder, 5 s for an MLflow server."""
    drain_seconds: float = setting(
        30.0, "seconds from 0", lambda value: type(value) in (int, float) and 0 <= value < inf
    )
    log_format: str = setting("text", "'text' or 'json'", lambda value: value in ("text", "json"))
    log_level: str = setting(
        "info",
        "'debug', 'info', 'warning' or 'error'",
        lambda value: value in ("debug", "info", "warning", "error"),
    )
    access_log: bool = setting(False, "true or false", lambda value: type(value) is bool)
    alarm_webhook: str = setting(
        "",
        "an http:// or https:// URL",
        lambda value: isinstance(value, str) and re.match(r"https?://[^/]|$", value) is not None,
    )
    """Where alarms are posted as CloudEvents; nowhere if empty."""
    workers: int = setting(1, **_whole(1))
    """Processes that answer on the one port."""
    busy_poll_us: int = setting(100, **_whole(0))
    """Microseconds for which a worker looks for the next request instead of sleeping, if the last one came as
    soon behind the one before; 0: never."""
    require_registry: bool = setting(False, "true or false", lambda value: type(value) is bool)
    """Whether nothing is served from the cache if the registry is away at the start."""
    track: bool = setting(False, "true or false", lambda value: type(value) is bool)
    """Whether windows and alarms are written to runs of an MLflow server."""
    log_payloads: str = setting(
        "none",
        "'none', 'all', 'request' or 'response'",
        lambda value: value in ("none", "all", "request", "response"),
    )
    """Which payloads are logged."""
    log_sink: str = setting(
        "", "an http:// or https:// URL, or a folder", lambda value: isinstance(value, str)
    )
    """Where they go: to a URL as the events of KServe's logger, to a folder as Parquet."""
    log_sample: float = setting(
        1.0, "a part from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1
    )
    """The part of all requests whose payloads are logged."""
    log_cpu: float = setting(
        0.02, "a part from 0.001 to 1", lambda value: type(value) in (int, float) and 0.001 <= value <= 1
    )
    """The part of a core, of each worker, that payloads may take from the requests; where the worker has time
    to spare, half of what is left of that besides. What takes more is not logged."""
    log_queue_bytes: int = setting(64 * 2**20, **_whole(1))
    """Bytes of payloads that may wait to be logged, in each worker; for more, the oldest go."""
    log_file_bytes: int = setting(32 * 2**20, **_whole(1))
    """Bytes of payloads that make a file full."""
    log_file_seconds: float = setting(60.0, **_number(0.1, "seconds"))
    """Seconds after which a file is written though it is not full."""
    log_batch: int = setting(1, **_whole(1))
    """Events a post, if so many wait: 1 is how KServe's logger sends them, more are a CloudEvents batch."""
    log_namespace: str = setting("", "a text", lambda value: isinstance(value, str))
    """The Kubernetes namespace that events name; if empty the pod's, else `default`."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Settings of an agent beside another server; the flags of `driftline monitor` in the same words."""

    profile: str = setting("", "a file", lambda value: isinstance(value, str))
    upstream: str = setting(
        "",
        "an http:// URL of a server, without a user or a password",
        lambda value: isinstance(value, str) and re.match(r"http://[^/?#@]+/?$|$", value) is not None,
    )
    """The server that is watched, from between it and its clients; none if empty."""
    model: str = setting("", "a model's name", lambda value: isinstance(value, str))
    """What is watched; if empty all that passes, named as the profile's file is."""
    host: str = setting("127.0.0.1", "a host name or address", _text)
    port: int = setting(
        8081, "a port from 0 to 65535", lambda value: type(value) is int and 0 <= value < 65536
    )
    """Of the agent's own pages."""
    proxy_port: int = setting(
        8080, "a port from 0 to 65535", lambda value: type(value) is int and 0 <= value < 65536
    )
    """Of what is passed to the upstream."""
    copy_body_bytes: int = setting(2**20, **_whole(1))
    """A body of more passes unobserved."""
    copy_queue_bytes: int = setting(32 * 2**20, **_whole(1))
    """Bytes of copies that may wait to be observed; more are dropped."""
    listen: bool = setting(False, "true or false", lambda value: type(value) is bool)
    """Whether events of loggers are taken, on the port of the agent's pages."""
    files: str = setting("", "paths, or a folder", lambda value: isinstance(value, str))
    """Files that are read, and read on: a pattern of their paths, or their folder."""
    event_queue_bytes: int = setting(32 * 2**20, **_whole(1))
    """Bytes of events that may wait to be joined; more are refused."""
    join_bytes: int = setting(32 * 2**20, **_whole(1))
    """Bytes of requests and answers that may wait for each other; for more, the oldest are dropped."""
    join_seconds: float = setting(60.0, **_number(0.01, "seconds"))
    """How long they wait for each other."""
    checkpoint: str = setting("", "a file, or nothing", lambda value: isinstance(value, str))
    checkpoint_seconds: float = setting(10.0, **_number(0.01, "seconds"))
    """Between two checkpoints."""
    drain_seconds: float = setting(30.0, **_number(0, "seconds"))
    """What passes has so long to finish when stopped."""
    log_format: str = setting("text", "'text' or 'json'", lambda value: value in ("text", "json"))
    log_level: str = setting(
        "info",
        "'debug', 'info', 'warning' or 'error'",
        lambda value: value in ("debug", "info", "warning", "error"),
    )
    alarm_webhook: str = setting(
        "",
        "an http:// or https:// URL",
        lambda value: isinstance(value, str) and re.match(r"https?://[^/]|$", value) is not None,
    )
    """Where alarms are posted as CloudEvents; nowhere if empty."""

    def check(self) -> None:
        """ConfigError for the first that is not allowed."""
        _override(self, {item.name: getattr(self, item.name) for item in fields(self)}, "monitor", "--")


@dataclass(frozen=True, slots=True)
class ServerFile:
    """What a server's `driftline.toml` says; without a file, nothing."""

    path: Path | None = None
    server: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    """What the command line says of every model's engine."""

    @classmethod
    def read(cls, path: Path) -> ServerFile:
        """Read and check a server's `driftline.toml`; ConfigError names file, key, value, what is allowed."""
        document = read_toml(path)
        _refuse_unknown(document, {"server", "sidecar", "models"}, str(path))
        server, sidecar = document.get("server", {}), document.get("sidecar", {})
        _override(Server(), server, str(path), "server.")
        _override(Sidecar(), sidecar, str(path), "sidecar.")
        models = document.get("models", {})
        if not isinstance(models, dict):
            raise ConfigError(
                f"{path}: models = {models!r}: expected tables such as [models.flights.batching]"
            )
        for name, tables in models.items():
            ModelSettings().override(tables, f"{path}: models.{name}")
        return cls(path, server, models, sidecar)

    def settings_of(self, name: str, bundle: ModelSettings) -> ModelSettings:
        """A model's settings: those of its bundle, with what this file says of it."""
        settings = bundle.override(self.models.get(name, {}), f"{self.path}: models.{name}")
        return settings.override({"engine": self.engine}, "the command line")


def bundle_settings(path: Path) -> ModelSettings:
    """The settings of a bundle's `driftline.toml`; the defaults if there is none."""
    if not path.exists():
        return ModelSettings()
    settings = ModelSettings().override(read_toml(path), str(path))
    if settings.engine.trust:
        raise ConfigError(f"{path}: engine.trust = true: a model can't vouch for itself; {TRUST}")
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's content; ConfigError if it can't be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a number or a nest may be too much for Python
        raise ConfigError(f"{path}: {error}") from error


def available_cores() -> int:
    """The cores this process may use: its affinity, and the quota of its control group if it has one."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def limited_cores() -> bool:
    """Whether this process's control group may use up its share of the cores, and then stands still."""
    try:
        return Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()[0] != "max"
    except (OSError, IndexError):
        return False


def available_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or those of its control group if fewer."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(there, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return there


def _refuse_unknown(table: object, known: set[str], where: str) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: {table!r}: expected a table with: {', '.join(sorted(known))}")
    for key, value in table.items():
        if key not in known:
            raise ConfigError(
                f"{where}: {key} = {value!r}: unknown key; allowed are: {', '.join(sorted(known))}"
            )


def _override(settings: Any, table: object, where: str, prefix: str) -> Any:
    known = {item.name: item for item in fields(settings)}
    _refuse_unknown(table, set(known), f"{where}: {prefix.rstrip('.')}")
    assert isinstance(table, dict)
    for key, value in table.items():
        if not known[key].metadata["check"](value):
            came = re.sub("//[^/]*@", "//...@", repr(value))  # a URL may hold a password
            raise ConfigError(f"{where}: {prefix}{key} = {came}: expected {known[key].metadata['allowed']}")
    # What a file gives as lists, settings keep as tuples: nobody can change them.
    return replace(
        settings, **{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    )
