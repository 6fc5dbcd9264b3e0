"""The commands that containers need before they serve."""

from __future__ import annotations

from pathlib import Path

import click

from driftline.config import Server
from driftline.errors import BadRequest


@click.command()
@click.argument("pairs", nargs=-1, required=True, metavar="MODEL FOLDER...")
@click.option(
    "--registry",
    default=Server().registry,
    show_default=True,
    metavar="URI",
    envvar=["DRIFTLINE_REGISTRY", "MLFLOW_TRACKING_URI"],
    help="Where the models are: a folder or an MLflow server.",
)
def fetch(pairs: tuple[str, ...], registry: str) -> None:
    """Copy a version's files into a folder, to be served from there with --model_dir.

    MODEL is models:/NAME, models:/NAME@ALIAS or models:/NAME/VERSION, as in MLflow, or a reference as in the
    other commands. Files that an earlier fetch left in FOLDER are removed. Several models may be given, each
    followed by its folder, since KServe calls storage initializers that way.
    """
    from driftline.registry.fetching import fetch as fetch_version

    if len(pairs) % 2:
        raise BadRequest(f"{pairs[-1]}: expected a folder after each model, got none")
    for model, folder in zip(pairs[::2], pairs[1::2], strict=True):
        version = fetch_version(registry, model, Path(folder))
        click.echo(f"{version.name} {version.number} is in {folder}")


@click.command("compile")
@click.option("--gpus", is_flag=True, help="Compile for NVIDIA GPUs, too; none needs to be present.")
def compile_kernels(gpus: bool) -> None:
    """Compile all kernels ahead of time, for example in an image.

    They are kept in NUMBA_CACHE_DIR if set, else beside driftline's code, else in the user's cache.
    """
    from driftline.engine.precompile import precompile

    click.echo(f"all kernels are compiled; they are kept in {precompile(gpus)}")
