"""`driftline serve`: its flags are the settings of the server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from driftline.cli.shared import PATH, device_option, engine_of, options, python_option, trust_option
from driftline.config import Server, ServerFile
from driftline.errors import BadRequest

MODEL_NAME, MODEL_DIR = "model", Path("/mnt/models")
"""What KServe's own servers take for --model_name and --model_dir."""


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL[@ALIAS|:VERSION]]...")
@options(Server)
@click.option(
    "--model_dir",
    type=PATH,
    metavar="FOLDER",
    help="Serve the one model in this folder, as KServe mounts it; /mnt/models with --model_name.",
)
@click.option("--model_name", metavar="NAME", help="The model's name; `model` with --model_dir.")
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
    """Serve the named models, or all models in the registry.

    Without an alias or a version, the version with the alias `production` serves, else the newest. MODEL may
    also be the path of an .onnx file.
    """
    from driftline.registry.file import FileRegistry
    from driftline.registry.folder import mounted
    from driftline.registry.source import Reference, Registry
    from driftline.serving.process import serve as run

    settings = Server(**flags)
    settings.check()
    file = replace(file, engine=engine_of(trust, python, device))
    registry: Registry
    if model_dir is not None or model_name is not None:
        name = model_name or MODEL_NAME
        if models:
            raise BadRequest(f"expected --model_name and --model_dir, or MODELs, got {models[0]} too")
        registry = mounted(model_dir or MODEL_DIR, name)
        models = (name,)
    elif any(model.endswith(".onnx") for model in models):
        if len(models) > 1:
            raise BadRequest(f"expected one .onnx file or names of models, got {', '.join(models)}")
        registry = FileRegistry(Path(models[0]))
        models = ()
    else:
        registry = Registry.open(settings.registry, remember=not settings.require_registry)
    run(registry, [Reference.parse(model) for model in models], settings, file)
