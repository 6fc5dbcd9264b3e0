"""What several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftline.config import ModelSettings, Server, ServerFile, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from driftline.engine.bundle import Bundle
    from driftline.registry.source import Registry

SETTINGS = "driftline.toml"
PATH = click.Path(path_type=Path)
INTERRUPTED = 130
"""The exit code behind Ctrl-C, as a shell has it."""

PIPED_WIDTH = 160
TYPES = {"bool": bool, "int": int, "float": float, "str": str}


def option(flag: str, help_text: str, *aliases: str, **settings: Any) -> Callable[[Any], Any]:
    """An option that can be set in the environment too: `--log-format` is DRIFTLINE_LOG_FORMAT.

    `aliases` are other flags that mean it.
    """
    name = flag.partition("/")[0].lstrip("-")
    variable = "DRIFTLINE_" + name.replace("-", "_").upper()
    return click.option(flag, *aliases, help=help_text, envvar=variable, show_default=True, **settings)


_SERVICE = re.compile(r"(tcp|udp|sctp)://.*")


class Ranged(click.Option):
    """Shows which numbers are allowed, as click does for its own ranges."""

    def __init__(self, *names: Any, allowed: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self._allowed = allowed

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What its help says in brackets."""
        return {**super().get_help_extra(ctx), "range": self._allowed}

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Its value in the environment.

        Beside a Service called `driftline`, Kubernetes tells every pod DRIFTLINE_PORT=tcp://ADDRESS:PORT.
        """
        value = super().resolve_envvar_value(ctx)
        return None if value is not None and _SERVICE.fullmatch(value) else value


def options(kind: type[Settings], *names: str) -> Callable[[Any], Any]:
    """A flag for every setting of a kind, or for those named; `kind(**flags).check()` is to follow."""

    def add(command: Any) -> Any:
        for item in reversed(fields(kind)):
            if not names or item.name in names:
                command = _flag(item)(command)
        return command

    return add


def _flag(item: Field[Any]) -> Callable[[Any], Any]:
    rule, flag_options = item.metadata["rule"], dict(item.metadata["flag"])
    flag = f"--{item.name.replace('_', '-')}"
    if item.type == "bool":
        flag += f"/--no{flag[1:]}"
    kind = str(item.type).removesuffix(" | None")
    if kind in ("int", "float"):
        flag_options |= {"cls": Ranged, "allowed": rule.allowed}
    if not flag_options.get("required"):
        flag_options["default"] = item.default
    flag_options["type"] = click.Choice(rule.choices) if rule.choices else TYPES[kind]
    return option(flag, flag_options.pop("help"), *item.metadata["aliases"], **flag_options)


registry_option = options(Server, "registry")
trust_option = option("--trust", "Allow running models that are Python code.", is_flag=True)
python_option = option(
    "--python", "The Python interpreter that runs them; by default driftline's own.", metavar="PATH"
)
device_option = option(
    "--device",
    "Where models run: cpu, cuda, cuda:N, cuda:N,M, cuda:all or auto; by default as in their settings.",
    metavar="NAME",
)


def engine_of(trust: bool, python: str | None, device: str | None = None) -> dict[str, object]:
    """What the command line says of every model's engine; ConfigError for a device that can't be used."""
    engine: dict[str, object] = ({"trust": True} if trust else {}) | ({"python": python} if python else {})
    if device is None:
        return engine
    from driftline.engine.cuda.device import resolve

    ModelSettings().override({"engine": {"device": device}}, "the command line")
    return engine | {"device": resolve(device, lambda why: click.echo(f"driftline: {why}", err=True))}


def open_registry(uri: str) -> Registry:
    """The registry at a URI."""
    from driftline.registry.source import Registry

    return Registry.open(uri)


def bundle_of(path: Path, file: ServerFile, name: str) -> Bundle:
    """The files of a version, with what the server's file says of its model."""
    from driftline.engine.bundle import Bundle

    bundle = Bundle.open(path)
    return replace(bundle, settings=file.settings_of(name, bundle.settings))


def stderr() -> Console:
    """Where progress is shown, so that what a command prints can be piped."""
    from rich.console import Console

    return Console(stderr=True)


def stdout() -> Console:
    """Where tables are shown; what is piped is not cut to a terminal's width."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


@contextmanager
def row_progress(data: Path) -> Iterator[Callable[[int], None]]:
    """On a terminal, a progress bar for the rows of a file; call what it gives with the number just done.

    A failure removes it. If kernels have to be compiled first, that is said.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from driftline.tables import Source
    from driftline_kernels import compiling

    def announce() -> None:
        compiling.on_compile = None
        console.print("compiling kernels; this happens once")

    console = stderr()
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(str(data), total=Source(data).rows)
        compiling.on_compile = announce
        try:
            yield lambda rows: progress.update(task, advance=rows)
        except BaseException:
            progress.live.transient = True
            raise
        finally:
            compiling.on_compile = None
        progress.update(task, total=progress.tasks[task].completed)
