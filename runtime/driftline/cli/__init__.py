"""The commands. Each checks what it was given, calls one room below and prints; nothing else happens here."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from driftline import __version__
from driftline.cli.convert import convert
from driftline.cli.deploy import compile_kernels, fetch
from driftline.cli.load import bench, tune
from driftline.cli.offline import profile, score
from driftline.cli.registry import promote, register, versions
from driftline.cli.serve import serve
from driftline.cli.shared import INTERRUPTED, PATH, SETTINGS, option, options
from driftline.cli.sidecar import drift, monitor
from driftline.config import Server, ServerFile
from driftline.errors import DriftlineError

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
@option("--config", f"Settings file; ./{SETTINGS} if it exists.", type=PATH, metavar="FILE")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def main(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """Serve machine-learning models over HTTP and watch the data that flows through them."""
    if config is None and os.path.lexists(SETTINGS):  # a link to nothing is a mistake
        config = Path(SETTINGS)
    file = ServerFile.read(config) if config else ServerFile()
    if ctx.invoked_subcommand not in SERVERS:
        ctx.with_resource(exiting_on_sigterm())
    ctx.obj = file
    registry = {key: value for key, value in file.server.items() if key == "registry"}
    ctx.default_map = dict.fromkeys(main.commands, registry) | {
        "serve": dict(file.server),
        "monitor": dict(file.sidecar),
    }


@main.command()
@click.option("--rows", type=click.IntRange(10), help="Replay this many flights, then stop; by default all.")
@options(Server, "registry", "host", "port")
@click.pass_context
def demo(ctx: click.Context, /, rows: int | None, **flags: Any) -> None:
    """Train and serve a model on real flights, and replay the rest of the year."""
    from driftline.demo.demo import run

    settings = Server(**flags)
    settings.check()
    ctx.exit(run(settings.registry, settings.host, settings.port, rows))


for command in (
    *(bench, compile_kernels, convert, drift, fetch, monitor),
    *(profile, promote, register, score, serve, tune, versions),
):
    main.add_command(command)


def open_standard_streams() -> None:
    """Open what of stdin, stdout and stderr is closed: a socket would have its number, and its client would
    get what a library has to say."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Leave on SIGTERM as on an error, so that what is half done is put away."""

    def exit_process(*_: object) -> NoReturn:
        raise SystemExit(TERMINATED)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, exit_process)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
