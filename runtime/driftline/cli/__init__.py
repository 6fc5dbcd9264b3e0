"""The commands. Each checks what it was given, calls one room below and prints; nothing else happens here."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from driftline import __version__
from driftline.cli.convert import convert
from driftline.cli.deploy import compile_kernels, fetch
from driftline.cli.load import INTERRUPTED, bench, tune
from driftline.cli.serve import serve
from driftline.cli.shared import (
    SETTINGS,
    device_option,
    engine_of,
    option,
    options,
    python_option,
    registry_option,
    stderr,
    trust_option,
)
from driftline.cli.sidecar import drift, monitor
from driftline.config import Server, ServerFile
from driftline.errors import BadRequest, DriftlineError, ModelError

if TYPE_CHECKING:
    from driftline.engine.bundle import Bundle
    from driftline.monitor.profile import Profile
    from driftline.registry.files import Check
    from driftline.registry.source import Registry, Version


TERMINATED = 128 + signal.SIGTERM
"""The exit code, as a shell has it of a process that a signal ended."""

STDERR = 2
"""Its file descriptor, and the last of the three."""

SERVERS = ("monitor", "serve")
"""They stop on signals in their own ways."""


class Commands(click.Group):
    """Shows an error as one line and exits with 2; a traceback only with --debug. Ctrl-C exits with 130."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        open_standard_streams()
        try:
            return super().invoke(ctx)
        except DriftlineError as error:
            if ctx.params["debug"]:
                raise
            click.echo(f"driftline: {error}", err=True)
            ctx.exit(2)
        except OSError as error:  # no room on a disk, no more files: whoever met it had no better words
            if ctx.params["debug"] or error.errno == errno.EPIPE:  # click ends quietly where nobody reads on
                raise
            click.echo(f"driftline: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("driftline: interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="driftline")
@option(
    "--config", f"Settings; ./{SETTINGS} if it is there.", type=click.Path(path_type=Path), metavar="FILE"
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def main(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """Serve machine-learning models over HTTP and watch the data that flows through them."""
    if config is None and Path(SETTINGS).exists():
        config = Path(SETTINGS)
    file = ServerFile.read(config) if config else ServerFile()
    if ctx.invoked_subcommand not in SERVERS:
        ctx.with_resource(unwinding())
    ctx.obj = file
    registry = {key: value for key, value in file.server.items() if key == "registry"}
    ctx.default_map = dict.fromkeys(main.commands, registry) | {
        "serve": dict(file.server),
        "monitor": dict(file.sidecar),
    }


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The model's name.")
@click.option("--alias", help="Promote the new version to this alias.")
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="Refuse the files if they predict otherwise than DATA says: inputs, and outputs by their names.",
)
@click.option(
    "--tolerance",
    default=1e-5,
    show_default=True,
    type=click.FloatRange(0),
    help="The difference to DATA's predictions that is allowed.",
)
@click.option(
    "--verify/--no-verify",
    "wanted",
    default=True,
    help="Load the model once, on the CPU, and refuse what can't be served. Use --no-verify if it "
    "needs what this machine lacks, a GPU say.",
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
    wanted: bool,
    trust: bool,
    python: str | None,
    registry: str,
) -> None:
    """Make a new version of a model out of FILES: an .onnx file and what belongs to it, or a folder.

    What may belong to it, by these names: external data, profile.arrow, transform.json, driftline.toml.
    A model that is Python code is run only with --trust.
    """
    if check is not None and not wanted:
        raise BadRequest("expected one of --check and --no-verify: to check a model is to load it")
    source = open_registry(registry)
    if alias is not None:
        source.check_alias(alias)
    file = replace(file, engine=engine_of(trust, python))
    if check is not None:
        with rows_done(check) as done:
            version = source.register(files, name, parity(check, tolerance, file, name, done))
    elif wanted:
        version = source.register(files, name, verified(file, name))
    else:
        version = source.register(files, name)
    click.echo(f"{name} {version.number} is registered in {source.uri}")
    if alias is not None:
        source.promote(name, version.number, alias)
        click.echo(f"{name}@{alias} is version {version.number}")


@main.command()
@click.argument("name")
@click.argument("version")
@click.option("--alias", default="production", show_default=True, help="The alias to point at the version.")
@registry_option
def promote(name: str, version: str, alias: str, registry: str) -> None:
    """Point an alias at a version; servers that follow it swap within a second."""
    from driftline.registry.source import parse_version

    number = parse_version(version)
    open_registry(registry).promote(name, number, alias)
    click.echo(f"{name}@{alias} is version {number}")


@main.command()
@click.argument("name", required=False)
@registry_option
def versions(name: str | None, registry: str) -> None:
    """Show what is registered, and which alias points where."""
    from rich.console import Console

    source = open_registry(registry)
    names = [name] if name else source.models()
    rows = [version for model in names for version in source.versions(model)]
    Console().print(versions_table(rows) if rows else f"no models in {source.uri}")


@main.command()
@click.argument("model", metavar="MODEL[@ALIAS|:VERSION]")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Parquet, CSV or Arrow, by ending.",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="COLUMN",
    help="Copy a column of DATA to the output, an input or, as an id, none; may be repeated.",
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
    """Score DATA (Parquet, CSV or Arrow) offline, on the way that requests go.

    MODEL may also be the path of an .onnx file or of a version's folder.
    """
    from driftline.engine.score import score

    bundle = open_bundle(model, registry, replace(file, engine=engine_of(trust, python, device)))
    with rows_done(data) as done:
        rows = score(bundle, data, output, keep, done)
    click.echo(f"{rows} rows are scored in {output}")


@main.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The profile; profile.arrow, say."
)
@click.option(
    "--column", "columns", multiple=True, metavar="COLUMN", help="Use only this column; may be repeated."
)
@click.option(
    "--numeric", multiple=True, metavar="COLUMN", help="This column is of numbers; may be repeated."
)
@click.option(
    "--categorical", multiple=True, metavar="COLUMN", help="This column is of categories; may be repeated."
)
@click.option("--model", metavar="MODEL[@ALIAS|:VERSION]", help="Profile its inputs, and its outputs too.")
@click.option(
    "--from-traffic", metavar="URL", help="Instead of DATA: what this server asks the model from now on."
)
@click.option(
    "--rows", default=10_000, show_default=True, type=click.IntRange(1), help="So many rows of traffic."
)
@click.option(
    "--seconds",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    help="Wait no longer for them.",
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

    Strings and booleans are categories, and so are integers of at most 20 different values, none missing.
    Up to 128 MiB the profile is exact; of more data, quantiles are within 0.07 % of the rows.
    """
    from rich.console import Console

    from driftline.tables import check_target

    if (data is None) == (from_traffic is None):
        raise BadRequest("expected either DATA or --from-traffic URL")
    check_target(output, data)
    if from_traffic is not None:
        from driftline.serving.traffic import profile_of_traffic

        if model is None:
            raise BadRequest("--from-traffic: expected --model with it")
        with stderr().status(f"waiting for {rows} rows, {seconds:g} s at most"):
            found = profile_of_traffic(from_traffic, model, rows, seconds)
        if found.rows < rows:
            came = f"a profile of {found.rows} rows, not {rows}"
            within = f"within {seconds:g} s, 256 MiB at most, of several workers to one"
            click.echo(f"driftline: {came}: it is of what comes {within}", err=True)
    else:
        assert data is not None
        kinds = kinds_of(numeric, categorical)
        file = replace(file, engine=engine_of(trust, python))
        bundle = open_bundle(model, registry, file) if model else None
        found = profile_of_file(data, kinds, columns, bundle)
    found.save(output)
    Console().print(found)
    click.echo(f"the profile of {found.rows} rows and {len(found.names)} columns is in {output}")


@main.command()
@click.option("--rows", type=click.IntRange(10), help="Replay so many flights, then stop; all if not given.")
@options(Server, "registry", "host", "port")
@click.pass_context
def demo(ctx: click.Context, /, rows: int | None, **flags: Any) -> None:
    """Train a model on real flights, register it, serve it, replay the rest of the year as live traffic."""
    from driftline.demo.demo import run

    settings = Server(**flags)
    settings.check()
    ctx.exit(run(settings.registry, settings.host, settings.port, rows))


main.add_command(bench)
main.add_command(compile_kernels)
main.add_command(convert)
main.add_command(fetch)
main.add_command(drift)
main.add_command(monitor)
main.add_command(serve)
main.add_command(tune)


def open_standard_streams() -> None:
    """Open what of stdin, stdout and stderr is closed: a socket would have its number, and its client would
    get what a library has to say."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


@contextmanager
def unwinding() -> Iterator[None]:
    """Leave on SIGTERM as on an error, so that what is half done is put away."""

    def leave(*_: object) -> NoReturn:
        raise SystemExit(TERMINATED)

    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def open_registry(uri: str) -> Registry:
    """The registry at a URI."""
    from driftline.registry.source import Registry

    return Registry.open(uri)


def open_bundle(model: str, registry: str, file: ServerFile) -> Bundle:
    """The files that a reference, an .onnx file's path or a version's folder stands for."""
    if Path(model).exists():
        return bundle_of(Path(model), file, "")
    source = open_registry(registry)
    version = source.resolve(model)
    return bundle_of(source.fetch(version), file, version.name)


@contextmanager
def rows_done(data: Path) -> Iterator[Callable[[int], None]]:
    """A progress bar for the rows of a file; call what it gives with the number of rows just done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from driftline.tables import Source

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeElapsedColumn())
    with Progress(*columns, console=stderr()) as progress:
        task = progress.add_task(str(data), total=Source(data).rows)
        yield lambda rows: progress.update(task, advance=rows)
        progress.update(task, total=progress.tasks[task].completed)


def kinds_of(numeric: tuple[str, ...], categorical: tuple[str, ...]) -> dict[str, str]:
    """Columns by their kind, as they were asked for."""
    for name in set(numeric) & set(categorical):
        raise BadRequest(f"column {name!r}: expected --numeric or --categorical, came both")
    return dict.fromkeys(numeric, "numeric") | dict.fromkeys(categorical, "categorical")


def profile_of_file(
    data: Path, kinds: dict[str, str], columns: tuple[str, ...], bundle: Bundle | None
) -> Profile:
    """The profile of a file, with progress; what it warns of, said in a line."""
    import warnings

    from driftline.engine.profile import profile

    with warnings.catch_warnings(record=True) as caught, rows_done(data) as done:
        warnings.simplefilter("always", UserWarning)
        found = profile(data, kinds, columns, bundle, done)
    for warning in caught:
        click.echo(f"driftline: {warning.message}", err=True)
    return found


def parity(data: Path, tolerance: float, file: ServerFile, name: str, done: Callable[[int], None]) -> Check:
    """A check that a version's folder predicts what a file says."""
    from driftline.engine.parity import check

    return lambda folder: check(bundle_of(folder, file, name), data, tolerance, done)


def verified(file: ServerFile, name: str) -> Check:
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


def bundle_of(path: Path, file: ServerFile, name: str) -> Bundle:
    """The files of a version, with what the server's file says of its model."""
    from driftline.engine.bundle import Bundle

    bundle = Bundle.open(path)
    return replace(bundle, settings=file.settings_of(name, bundle.settings))


def versions_table(rows: list[Version]) -> Any:
    """Versions as a table for the terminal."""
    from datetime import datetime

    from rich.table import Table

    table = Table("model", "version", "aliases", "created", box=None, header_style="bold", pad_edge=False)
    for version in rows:
        created = datetime.fromtimestamp(version.created).astimezone().isoformat(" ", "seconds")
        table.add_row(version.name, str(version.number), ", ".join(version.aliases), created)
    return table
