"""The commands that read files of rows: their scores, and what they are as a reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from driftline.cli.shared import (
    PATH,
    bundle_of,
    device_option,
    engine_of,
    open_registry,
    python_option,
    registry_option,
    row_progress,
    stderr,
    trust_option,
)
from driftline.config import ServerFile
from driftline.errors import BadRequest

if TYPE_CHECKING:
    from driftline.engine.bundle import Bundle
    from driftline.monitor.reference.profile import Profile


@click.command()
@click.argument("model", metavar="MODEL[@ALIAS|:VERSION]")
@click.argument("data", type=PATH)
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    help="Parquet, CSV or Arrow, by its extension.",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="COLUMN",
    help="Copy this column of DATA to the output, whether an input or not (an id); may be repeated.",
)
@device_option
@trust_option
@python_option
@registry_option
@click.pass_obj
def score(
    file: ServerFile,
    /,
    model: str,
    data: Path,
    output: Path,
    keep: tuple[str, ...],
    device: str | None,
    trust: bool,
    python: str | None,
    registry: str,
) -> None:
    """Score DATA (Parquet, CSV or Arrow) offline, by the same path as requests.

    MODEL may also be the path of an .onnx file or of a version's folder.
    """
    from driftline.engine.score import score

    bundle = open_bundle(model, registry, replace(file, engine=engine_of(trust, python, device)))
    with row_progress(data) as done:
        rows = score(bundle, data, output, keep, done)
    click.echo(f"{rows} rows are scored in {output}")


@click.command()
@click.argument("data", required=False, type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="The profile, for example profile.arrow.")
@click.option(
    "--column", "columns", multiple=True, metavar="COLUMN", help="Use only this column; may be repeated."
)
@click.option(
    "--numeric", multiple=True, metavar="COLUMN", help="Treat this column as numbers; may be repeated."
)
@click.option(
    "--categorical", multiple=True, metavar="COLUMN", help="Treat this column as categories; may be repeated."
)
@click.option(
    "--model", metavar="MODEL[@ALIAS|:VERSION]", help="Profile this model's inputs and its outputs."
)
@click.option(
    "--from-traffic",
    metavar="URL",
    help="Instead of DATA, profile the rows that this server receives for the model from now on.",
)
@click.option(
    "--rows", default=10_000, show_default=True, type=click.IntRange(1), help="Rows of traffic to profile."
)
@click.option(
    "--seconds",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    help="Wait at most this long for them.",
)
@trust_option
@python_option
@registry_option
@click.pass_obj
def profile(
    file: ServerFile,
    /,
    data: Path | None,
    output: Path,
    columns: tuple[str, ...],
    numeric: tuple[str, ...],
    categorical: tuple[str, ...],
    model: str | None,
    from_traffic: str | None,
    rows: int,
    seconds: float,
    trust: bool,
    python: str | None,
    registry: str,
) -> None:
    """Profile DATA (Parquet, CSV or Arrow): the reference that drift is measured from.

    Strings and booleans are categories, as are integers with at most 20 distinct values and none missing.
    Up to 128 MiB of data, the profile is exact; beyond that, quantiles are within 0.07 % of the rows.
    """
    from rich.console import Console

    from driftline.tables import check_target

    if (data is None) == (from_traffic is None):
        raise BadRequest("expected either DATA or --from-traffic URL")
    check_target(output, data)
    if from_traffic is not None:
        if model is None:
            raise BadRequest("--from-traffic: expected --model with it")
        reference = profile_of_traffic(from_traffic, model, rows, seconds)
    else:
        assert data is not None
        kinds = kinds_by_column(numeric, categorical)
        file = replace(file, engine=engine_of(trust, python))
        bundle = open_bundle(model, registry, file) if model else None
        reference = profile_of_file(data, kinds, columns, bundle)
    reference.save(output)
    Console().print(reference)
    click.echo(f"the profile of {reference.rows} rows and {len(reference.names)} columns is in {output}")


def kinds_by_column(numeric: tuple[str, ...], categorical: tuple[str, ...]) -> dict[str, str]:
    """Columns by their kind, as they were asked for."""
    for name in set(numeric) & set(categorical):
        raise BadRequest(f"column {name!r}: expected --numeric or --categorical, got both")
    return dict.fromkeys(numeric, "numeric") | dict.fromkeys(categorical, "categorical")


def profile_of_traffic(url: str, model: str, rows: int, seconds: float) -> Profile:
    """The profile of what a server is asked; if it is of fewer rows than were wanted, that is said."""
    from driftline.serving.monitoring.traffic import profile_of_traffic

    with stderr().status(f"waiting for {rows} rows, {seconds:g} s at most"):
        reference = profile_of_traffic(url, model, rows, seconds)
    if reference.rows < rows:
        shortfall = f"a profile of {reference.rows} rows, not {rows}"
        within = f"within {seconds:g} s, 256 MiB at most"
        click.echo(f"driftline: {shortfall}: it is of what comes {within}", err=True)
    return reference


def profile_of_file(
    data: Path, kinds: dict[str, str], columns: tuple[str, ...], bundle: Bundle | None
) -> Profile:
    """The profile of a file, with progress; what it warns of, said in a line."""
    import warnings

    from driftline.engine.profile import profile

    with warnings.catch_warnings(record=True) as caught, row_progress(data) as done:
        warnings.simplefilter("always", UserWarning)
        reference = profile(data, kinds, columns, bundle, done)
    for warning in caught:
        click.echo(f"driftline: {warning.message}", err=True)
    return reference


def open_bundle(model: str, registry: str, file: ServerFile) -> Bundle:
    """The files that a reference, an .onnx file's path or a version's folder stands for."""
    if Path(model).exists():
        return bundle_of(Path(model), file, "")
    source = open_registry(registry)
    version = source.resolve(model)
    return bundle_of(source.fetch(version), file, version.name)
