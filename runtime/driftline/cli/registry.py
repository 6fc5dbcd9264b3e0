"""The commands of a registry: what is in it, what comes in, and which version an alias stands for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftline.cli.shared import (
    PATH,
    bundle_of,
    engine_of,
    open_registry,
    python_option,
    registry_option,
    row_progress,
    trust_option,
)
from driftline.config import ServerFile
from driftline.errors import BadRequest, DriftlineError, ModelError

if TYPE_CHECKING:
    from driftline.registry.files import Check
    from driftline.registry.source import Registry, Version


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--name", required=True, help="The model's name.")
@click.option("--alias", help="Point this alias at the new version.")
@click.option(
    "--check",
    type=PATH,
    metavar="DATA",
    help="Refuse the model if its predictions differ from DATA, which has inputs and outputs by name.",
)
@click.option(
    "--tolerance",
    default=1e-5,
    show_default=True,
    type=click.FloatRange(0),
    help="Allowed difference from DATA's predictions.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    help="Load the model once, on the CPU, and refuse it if it can't be served. Use --no-verify if it needs "
    "something that this machine lacks, such as a GPU.",
)
@trust_option
@python_option
@registry_option
@click.pass_obj
def register(
    file: ServerFile,
    /,
    files: tuple[Path, ...],
    name: str,
    alias: str | None,
    check: Path | None,
    tolerance: float,
    verify: bool,
    trust: bool,
    python: str | None,
    registry: str,
) -> None:
    """Create a new version of a model from files or a folder.

    FILES is a folder, or an .onnx file and what belongs to it: external data, profile.arrow, transform.json,
    driftline.toml. A model that is Python code is run only with --trust.
    """
    if check is not None and not verify:
        raise BadRequest("expected one of --check and --no-verify: to check a model is to load it")
    source = open_registry(registry)
    if alias is not None:
        source.check_alias(alias)
    previous = previous_version(source, name, alias)
    file = replace(file, engine=engine_of(trust, python))
    if check is not None:
        with row_progress(check) as done:
            version = source.register(files, name, parity_check(check, tolerance, file, name, done))
    elif verify:
        version = source.register(files, name, load_check(file, name))
    else:
        version = source.register(files, name)
    click.echo(f"{name} {version.number} is registered in {source.uri}")
    warn_of_differences(source, name, version.number, previous, load=verify)
    if alias is not None:
        source.promote(name, version.number, alias)
        click.echo(f"{name}@{alias} is version {version.number}")


def parity_check(
    data: Path, tolerance: float, file: ServerFile, name: str, done: Callable[[int], None]
) -> Check:
    """A check that a version's folder predicts what a file says."""
    from driftline.engine.parity import check

    return lambda folder: check(bundle_of(folder, file, name), data, tolerance, done)


def load_check(file: ServerFile, name: str) -> Check:
    """A check that a version's folder can be served."""

    def check(folder: Path) -> None:
        from driftline.engine.verify import verify

        try:
            loaded = verify(bundle_of(folder, file, name))
        except ModelError as error:
            raise ModelError(f"{error}; --no-verify registers it all the same") from error
        if not loaded:
            click.echo(f"driftline: {name} is Python code, which was not run; --trust runs it", err=True)

    return check


@click.command()
@click.argument("name")
@click.argument("version")
@click.option("--alias", default="production", show_default=True, help="The alias to point at the version.")
@registry_option
def promote(name: str, version: str, alias: str, registry: str) -> None:
    """Point an alias at a version.

    Servers that follow it swap within a second, or within five from an MLflow registry without a webhook.
    """
    from driftline.registry.source import parse_version

    number = parse_version(version)
    source = open_registry(registry)
    previous = previous_version(source, name, alias, before=number)
    source.promote(name, number, alias)
    click.echo(f"{name}@{alias} is version {number}")
    warn_of_differences(source, name, number, previous, load=True)


def previous_version(source: Registry, name: str, alias: str | None, before: int | None = None) -> int | None:
    """The version that a new one follows: the alias points at it, or else it is the newest, older than
    `before`. None if there is none, or only a download would tell how it differs."""
    from driftline.registry.directory import DirectoryRegistry
    from driftline.registry.source import PRODUCTION

    if not isinstance(source, DirectoryRegistry):
        return None
    with suppress(DriftlineError):
        if (number := source.aliases(name).get(alias or PRODUCTION)) is not None:
            return number
        numbers = (version.number for version in source.versions(name))
        return max((number for number in numbers if before is None or number < before), default=None)
    return None


def warn_of_differences(source: Registry, name: str, number: int, previous: int | None, load: bool) -> None:
    """Say in a line each what clients and the monitor will notice of a version behind a former one."""
    from driftline.engine.bundle import Bundle
    from driftline.engine.difference import differences
    from driftline.registry.source import Version

    if previous is None or previous == number:
        return
    with suppress(DriftlineError, OSError):  # it is done all the same
        new, old = (Bundle.open(source.fetch(Version(name, version))) for version in (number, previous))
        for difference in differences(new, old, f"version {previous}", load):
            click.echo(f"driftline: {name} {number} {difference}", err=True)


@click.command()
@click.argument("name", required=False)
@registry_option
@click.pass_context
def versions(ctx: click.Context, name: str | None, registry: str) -> None:
    """Show the registered versions and the aliases that point at them.

    Models that can't be read are reported, and the exit code is 2.
    """
    from rich.console import Console

    source = open_registry(registry)
    rows: list[Version] = []
    failures: list[DriftlineError] = []
    for model in [name] if name else source.models():
        try:
            rows += source.versions(model)
        except DriftlineError as error:
            failures.append(error)
    if rows or not failures:
        Console().print(versions_table(rows) if rows else f"no models in {source.uri}")
    for failure in failures:
        click.echo(f"driftline: {failure}", err=True)
    ctx.exit(2 if failures else 0)


def versions_table(rows: list[Version]) -> Any:
    """Versions as a table for the terminal."""
    from datetime import datetime

    from rich.table import Table

    table = Table("model", "version", "aliases", "created", box=None, header_style="bold", pad_edge=False)
    for version in rows:
        created = datetime.fromtimestamp(version.created).astimezone().isoformat(" ", "seconds")
        table.add_row(version.name, str(version.number), ", ".join(version.aliases), created)
    return table
