"""Settings and the files they come from, checked once, when they are read.

A bundle's `driftline.toml` holds the tables [batching], [engine] and [monitor]. The server's own
`driftline.toml` holds [server] and [sidecar] and, to override a bundle's, [models.NAME.batching] and so on.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from driftline.errors import BadRequest, ConfigError
from driftline.files import read_small
from driftline.rules import (
    BUCKETS,
    DEVICE,
    HOST,
    LOG_FORMAT,
    LOG_LEVEL,
    PORT,
    PORT_OR_NONE,
    SECONDS,
    SWITCH,
    UPSTREAM,
    WEBHOOK,
    Rule,
    number,
    one_of,
    setting,
    text,
    whole,
    without_secrets,
)

TRUST = "`--trust` does, or [models.NAME.engine] trust = true in the server's driftline.toml"
"""How to allow a model's code to run."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that a command has flags for."""

    def check(self) -> None:
        """Raise ConfigError that names the flag, for the first value that is not allowed."""
        for item in fields(self):
            _refuse_wrong(item, getattr(self, item.name), f"--{item.name.replace('_', '-')}")


@dataclass(frozen=True, slots=True)
class Batching:
    """How much runs together, and how much may wait."""

    max_batch_rows: int = setting(128, whole(0))
    """Rows that run together; 0: requests run whole and alone, whatever their shape."""
    max_delay_us: int = setting(0, whole(0))
    """How long the first request may wait for others, in microseconds."""
    max_queue_rows: int = setting(65_536, whole(1))
    """Rows that may wait; a request that finds the queue full gets 503."""
    max_queue_bytes: int = setting(256 * 2**20, whole(1))
    """Bytes that may wait."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs a model, and how."""

    device: str = setting("cpu", DEVICE)
    instances: int = setting(1, whole(1))
    """Batches that run at the same time."""
    threads: int = setting(0, whole(0))
    """Threads of one batch; 0: the cores this process may use, divided among the instances."""
    spinning: bool = setting(False, SWITCH)
    """Whether threads spin while they wait for work: faster, but it takes the cores from the event loop."""

    trust: bool = setting(False, SWITCH)
    """Whether code that comes with the model may run; its own driftline.toml can't set this."""
    python: str = setting("", text("the path of a Python interpreter"))
    """The interpreter for that code, each instance in its own process; the server's interpreter if empty."""
    memory_bytes: int = setting(0, whole(0))
    """Memory of such a process; 0: half of the machine's, divided among the instances."""

    tf32: bool = setting(False, SWITCH)
    """Whether a GPU may round what it multiplies to 10 bits: faster, but results differ from the CPU's."""
    cuda_graphs: bool = setting(False, SWITCH)
    """Whether a GPU's work for a batch of each shape is recorded, and replayed in one launch."""
    tensorrt: bool = setting(False, SWITCH)
    """Whether TensorRT runs as much of a model as it can on a GPU."""
    tensorrt_fp16: bool = setting(False, SWITCH)
    """Whether TensorRT may use half precision."""
    buckets: tuple[int, ...] = setting((), BUCKETS)
    """Rows of batches on a GPU, to which other batches are padded; beyond these, powers of two."""

    def threads_on(self, cores: int) -> int:
        """Return the threads of one batch on a machine with this many cores."""
        return self.threads or max(1, cores // self.instances)

    def memory_on(self, total: int) -> int:
        """Return the memory of one process of Python code on a machine with this many bytes."""
        return self.memory_bytes or total // 2 // self.instances


@dataclass(frozen=True, slots=True)
class Monitoring(Settings):
    """What is monitored, how closely, and how certain an alarm is."""

    enabled: bool = setting(True, SWITCH)
    false_alarm_rows: float = setting(1_000_000, number(1))
    """At least this many rows pass on average before a false alarm, while nothing changes."""
    tolerance: float = setting(0.02, number(0))
    """The drift of a column, as a PSI, that is harmless."""
    look_rows: int = setting(0, whole(0))
    """Rows between two looks of the detectors; 0: by time only."""
    look_seconds: float = setting(1.0, SECONDS)
    """Seconds between two looks; 0: by rows only."""
    window_rows: int = setting(0, whole(0))
    """Rows after which a window ends; 0: by time only."""
    window_seconds: float = setting(3600.0, SECONDS)
    """Seconds after which a window ends; 0: by rows only."""
    keep_windows: int = setting(24, whole(0))
    """Finished windows that are kept in memory."""
    history: str = setting("", text("a folder, or nothing"))
    """Where finished windows are written, as Parquet; nowhere if empty."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """All settings of one model."""

    batching: Batching = field(default_factory=Batching)
    engine: Engine = field(default_factory=Engine)
    monitor: Monitoring = field(default_factory=Monitoring)

    def override(self, tables: Mapping[str, Any], where: str) -> ModelSettings:
        """Return these settings with a TOML document's values; ConfigError begins with `where`."""
        names = {item.name for item in fields(self)}
        _refuse_unknown(tables, names, where)
        return replace(
            self,
            **{
                name: _override(getattr(self, name), table, where, f"{name}.")
                for name, table in tables.items()
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Settings):
    """Settings of a serving process; the flags of `driftline serve`, in this order."""

    registry: str = setting(
        "models",
        text("a folder or an http:// URL", "(?s).+"),
        "Where the models are: a folder or an MLflow server.",
        metavar="URI",
    )
    host: str = setting("127.0.0.1", HOST, "Address to listen on.")
    port: int = setting(8080, PORT, "Port to listen on; 0 for a free one.", "--http_port")
    grpc_port: int | None = setting(
        None, PORT_OR_NONE, "Port to listen on for gRPC as well; 0 for a free one.", "--grpc_port"
    )
    """No gRPC if not given."""
    workers: int = setting(1, whole(1), "Processes that share the port.")
    max_body_bytes: int = setting(64 * 2**20, whole(1), "Largest request body, in bytes.")
    model_control: str = setting(
        "none",
        one_of("none", "explicit"),
        "explicit: clients may load and unload models, as with Triton's --model-control-mode.",
    )
    """Models follow the registry either way."""
    exit_on_error: bool = setting(
        True, SWITCH, "Exit if a model can't be loaded at startup; otherwise serve the others."
    )
    require_registry: bool = setting(
        False, SWITCH, "Refuse to start from the cache if the MLflow server is unavailable."
    )
    poll_seconds: float = setting(
        0.0, SECONDS, "Interval at which the registry is polled; 0: 0.5 for a folder, 5 for MLflow."
    )
    stop_delay_seconds: float = setting(
        0.0, SECONDS, "Time to keep answering, not ready, after a stop signal, until clients have gone."
    )
    drain_seconds: float = setting(30.0, SECONDS, "Time to finish requests in flight after that.")
    log_format: str = setting("text", LOG_FORMAT, "Log lines for people or for machines.")
    log_level: str = setting("info", LOG_LEVEL, "The lowest level that is logged.")
    busy_poll_us: int = setting(
        100,
        whole(0),
        "Microseconds to poll for the next request before sleeping, if requests follow closely; 0: off.",
    )
    """They come fast if the last one came within this time after the one before."""
    access_log: bool = setting(False, SWITCH, "Log every request.")
    alarm_webhook: str = setting("", WEBHOOK, "Post alarms to this URL, as CloudEvents.", metavar="URL")
    track: bool = setting(
        False,
        SWITCH,
        "Write windows and alarms to an MLflow run for each version, at MLFLOW_TRACKING_URI or else the "
        "registry.",
    )
    log_payloads: str = setting(
        "none", one_of("none", "all", "request", "response"), "Log payloads: requests, responses or both."
    )
    log_sink: str = setting(
        "",
        text("an http:// or https:// URL, or a folder"),
        "Where to log them: a URL, as KServe's logger does, or a folder, as Parquet.",
        metavar="URL|FOLDER",
    )
    log_sample: float = setting(1.0, number(0, 1, "a fraction"), "Log this fraction of all requests.")
    log_cpu: float = setting(
        0.02,
        number(0.001, 1, "a fraction"),
        "The fraction of a core that logging may take from requests, besides half of the idle time. Payloads "
        "that would take more are not logged.",
    )
    """In each worker; of its idle time, logging takes at most half."""
    log_queue_bytes: int = setting(
        64 * 2**20,
        whole(1),
        "Bytes that may wait to be logged, in each worker; beyond that, the oldest are dropped.",
    )
    log_file_bytes: int = setting(32 * 2**20, whole(1), "Bytes after which a Parquet file is written.")
    log_file_seconds: float = setting(
        60.0, number(0.1, what="seconds"), "Seconds after which a Parquet file is written, full or not."
    )
    log_batch: int = setting(
        1, whole(1), "Events per post; 1 as KServe's logger, more as a CloudEvents batch."
    )
    log_namespace: str = setting(
        "", text("a text"), "The namespace that events name; by default the pod's.", metavar="NAME"
    )
    """Without a pod, `default`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar(Settings):
    """Settings of an agent beside another server; the flags of `driftline monitor`, in this order."""

    profile: str = setting(
        "", text("a file"), "The profile to compare with: the reference.", metavar="FILE", required=True
    )
    upstream: str = setting(
        "",
        UPSTREAM,
        "Pass requests to this server and monitor them.",
        metavar="URL",
    )
    listen: bool = setting(False, SWITCH, "Accept the events of KServe's logger, on --port.")
    files: str = setting(
        "",
        text("paths, or a folder"),
        "Read these files, and keep reading as they grow.",
        metavar="GLOB|FOLDER",
    )
    event_queue_bytes: int = setting(
        32 * 2**20, whole(1), "Bytes of events that may wait to be joined; beyond that, events are refused."
    )
    join_bytes: int = setting(
        32 * 2**20,
        whole(1),
        "Bytes of requests and answers that may wait for each other; beyond that, the oldest are dropped.",
    )
    join_seconds: float = setting(60.0, number(0.01, what="seconds"), "Seconds they wait for each other.")
    model: str = setting(
        "", text("a model's name"), "Monitor this model only; by default all traffic.", metavar="NAME"
    )
    host: str = setting("127.0.0.1", HOST, "Address to listen on.")
    port: int = setting(8081, PORT, "Port of drift reports and metrics; 0 for a free one.")
    proxy_port: int = setting(8080, PORT, "Port of requests to pass to --upstream; 0 for a free one.")
    copy_body_bytes: int = setting(2**20, whole(1), "Larger bodies pass unobserved.")
    copy_queue_bytes: int = setting(
        32 * 2**20, whole(1), "Bytes of copies that may wait to be observed; beyond that, copies are dropped."
    )
    checkpoint: str = setting(
        "",
        text("a file, or nothing"),
        "Keep the monitor's state in this file across restarts.",
        metavar="FILE",
    )
    checkpoint_seconds: float = setting(10.0, number(0.01, what="seconds"), "Time between checkpoints.")
    stop_delay_seconds: float = setting(
        0.0, SECONDS, "Time to keep passing requests after a stop signal, until clients have gone."
    )
    drain_seconds: float = setting(30.0, SECONDS, "Time to finish requests in flight after that.")
    log_format: str = setting("text", LOG_FORMAT, "Log lines for people or for machines.")
    log_level: str = setting("info", LOG_LEVEL, "The lowest level that is logged.")
    alarm_webhook: str = setting("", WEBHOOK, "Post alarms to this URL, as CloudEvents.", metavar="URL")

    @property
    def name(self) -> str:
        """What reports and metrics call the model: `model`, or the name of the profile's file.

        If that is profile.arrow, the name of its folder, or in models/NAME/VERSION/profile.arrow, NAME.
        """
        path = Path(self.profile).absolute()
        if self.model or path.stem != "profile":
            return self.model or path.stem
        folder = path.parent.parent if path.parent.name.isdecimal() else path.parent
        return folder.name or path.stem


@dataclass(frozen=True, slots=True)
class ServerFile:
    """The content of a server's `driftline.toml`; empty without a file."""

    path: Path | None = None
    server: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Engine settings from the command line, for every model."""

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
        """Return a model's settings: those of its bundle, with this file's for it."""
        settings = bundle.override(self.models.get(name, {}), f"{self.path}: models.{name}")
        return settings.override({"engine": self.engine}, "the command line")


def bundle_settings(path: Path) -> ModelSettings:
    """Return the settings in a bundle's `driftline.toml`; the defaults if there is none."""
    if not os.path.lexists(path):  # a broken link is a mistake
        return ModelSettings()
    settings = ModelSettings().override(read_toml(path), str(path))
    if settings.engine.trust:
        raise ConfigError(f"{path}: engine.trust = true: a model can't vouch for itself; {TRUST}")
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's content; ConfigError if it can't be read."""
    try:
        return tomllib.loads(read_small(path).decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # a long number or deep nesting
        raise ConfigError(f"{path}: {error}") from error


def check_least(name: str, value: Any, minimum: int, whole: bool = False) -> None:
    """Raise BadRequest unless an argument is a number from `minimum` on, Python's or numpy's."""
    is_number = isinstance(value, Integral if whole else Real)
    if not is_number or not value >= minimum:
        kind = "a whole number" if whole else "a number"
        raise BadRequest(f"{name} = {value!r}: expected {kind} from {minimum}")


def _refuse_unknown(table: object, allowed: set[str], where: str) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: {table!r}: expected a table with: {', '.join(sorted(allowed))}")
    for key, value in table.items():
        if key not in allowed:
            raise ConfigError(
                f"{where}: {key} = {value!r}: unknown key; allowed are: {', '.join(sorted(allowed))}"
            )


def _refuse_wrong(setting_field: Field[Any], value: object, name: str) -> None:
    rule: Rule = setting_field.metadata["rule"]
    if not rule.check(value):
        actual = without_secrets(value) if isinstance(value, str) else value
        raise ConfigError(f"{name} = {actual!r}: expected {rule.allowed}")


def _override(settings: Any, table: object, where: str, prefix: str) -> Any:
    fields_by_name = {item.name: item for item in fields(settings)}
    _refuse_unknown(table, set(fields_by_name), f"{where}: {prefix.rstrip('.')}")
    assert isinstance(table, dict)
    for key, value in table.items():
        _refuse_wrong(fields_by_name[key], value, f"{where}: {prefix}{key}")
    # Settings keep a file's lists as tuples, which can't be changed.
    return replace(
        settings, **{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    )
