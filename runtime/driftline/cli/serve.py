"""`driftline serve`: its many flags, each a setting of the server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from driftline.cli.shared import (
    DEFAULTS,
    device_option,
    engine_of,
    host_option,
    log_format_option,
    log_level_option,
    option,
    python_option,
    registry_option,
    trust_option,
)
from driftline.config import Server, ServerFile
from driftline.errors import BadRequest

MODEL_NAME, MODEL_DIR = "model", Path("/mnt/models")
"""What KServe's own servers take for --model_name and --model_dir."""


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL[@ALIAS|:VERSION]]...")
@registry_option
@host_option
@option(
    "--port",
    "Port to listen on; 0 for a free one.",
    "--http_port",
    default=DEFAULTS.port,
    type=click.IntRange(0, 65535),
)
@option("--workers", "Processes that answer on the port.", default=DEFAULTS.workers, type=click.IntRange(1))
@option(
    "--max-body-bytes",
    "A request's body may have so many.",
    default=DEFAULTS.max_body_bytes,
    type=click.IntRange(1),
)
@option(
    "--require-registry/--no-require-registry",
    "Refuse to start from the cache if an MLflow server is away.",
    default=DEFAULTS.require_registry,
)
@option(
    "--poll-seconds",
    "Time between two looks at the registry; 0: 0.5 for a folder, 5 for MLflow.",
    default=DEFAULTS.poll_seconds,
    type=click.FloatRange(0, 86_400),
)
@option(
    "--drain-seconds",
    "Time to finish what is in flight when stopped.",
    default=DEFAULTS.drain_seconds,
    type=click.FloatRange(0, 86_400),
)
@log_format_option
@log_level_option
@option(
    "--busy-poll-us",
    "Look so many microseconds for the next request, where they come soon, before sleeping; 0: sleep.",
    default=DEFAULTS.busy_poll_us,
    type=click.IntRange(0),
)
@option("--access-log/--no-access-log", "Log every request.", default=DEFAULTS.access_log)
@option(
    "--alarm-webhook", "Post alarms there, as CloudEvents.", default=DEFAULTS.alarm_webhook, metavar="URL"
)
@option(
    "--track/--no-track",
    "Write windows and alarms to an MLflow run for each version: at MLFLOW_TRACKING_URI, else the registry.",
    default=DEFAULTS.track,
)
@click.option(
    "--model_dir",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Serve the one model whose files lie there, as KServe mounts them; /mnt/models with --model_name.",
)
@click.option("--model_name", metavar="NAME", help="What it is called; `model` with --model_dir.")
@option(
    "--log-payloads",
    "Log what is asked and answered.",
    default=DEFAULTS.log_payloads,
    type=click.Choice(["none", "all", "request", "response"]),
)
@option(
    "--log-sink",
    "To a URL, as events of KServe's logger, or a folder, as Parquet.",
    default=DEFAULTS.log_sink,
    metavar="URL|FOLDER",
)
@option(
    "--log-sample",
    "Of this part of all requests.",
    default=DEFAULTS.log_sample,
    type=click.FloatRange(0, 1),
)
@option(
    "--log-cpu",
    "Logging takes this part of a core from the requests at most, and of the time that they leave. What "
    "would take more is not logged.",
    default=DEFAULTS.log_cpu,
    type=click.FloatRange(0.001, 1),
)
@option(
    "--log-queue-bytes",
    "So many may wait to be logged, in each worker; for more, the oldest go.",
    default=DEFAULTS.log_queue_bytes,
    type=click.IntRange(1),
)
@option(
    "--log-file-bytes",
    "A Parquet file is full with so many.",
    default=DEFAULTS.log_file_bytes,
    type=click.IntRange(1),
)
@option(
    "--log-file-seconds",
    "And is written after so many seconds, full or not.",
    default=DEFAULTS.log_file_seconds,
    type=click.FloatRange(0.1, 86_400),
)
@option(
    "--log-batch",
    "Events a post; 1 as KServe's logger, more are a CloudEvents batch.",
    default=DEFAULTS.log_batch,
    type=click.IntRange(1),
)
@option(
    "--log-namespace",
    "The namespace that events name; the pod's if not given.",
    default=DEFAULTS.log_namespace,
    metavar="NAME",
)
@device_option
@trust_option
@python_option
@click.pass_obj
def serve(
    file: ServerFile,
    /,
    models: tuple[str, ...],
    model_dir: Path | None,
    model_name: str | None,
    device: str | None,
    trust: bool,
    python: str | None,
    **flags: Any,
) -> None:
    """Serve models: those named, else all of the registry, each in its version `production`, else its newest.

    MODEL may also be the path of an .onnx file.
    """
    from driftline.registry.file import FileRegistry
    from driftline.registry.folder import mounted
    from driftline.registry.source import Reference, Registry
    from driftline.serving.process import serve as run

    settings = Server(**flags)
    file = replace(file, engine=engine_of(trust, python, device))
    registry: Registry
    if model_dir is not None or model_name is not None:
        name = model_name or MODEL_NAME
        if models:
            raise BadRequest(f"expected --model_name and --model_dir, or MODELs, came {models[0]} too")
        registry = mounted(model_dir or MODEL_DIR, name)
        models = (name,)
    elif any(model.endswith(".onnx") for model in models):
        if len(models) > 1:
            raise BadRequest(f"expected one .onnx file or names of models, came {', '.join(models)}")
        registry = FileRegistry(Path(models[0]))
        models = ()
    else:
        registry = Registry.open(settings.registry, remember=not settings.require_registry)
    run(registry, [Reference.parse(model) for model in models], settings, file)
