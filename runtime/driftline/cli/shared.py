"""What several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from driftline.config import ModelSettings, Server

if TYPE_CHECKING:
    from rich.console import Console

DEFAULTS = Server()
SETTINGS = "driftline.toml"
PIPED_WIDTH = 160


def option(flag: str, help_text: str, *same: str, **settings: Any) -> Callable[[Any], Any]:
    """An option that can be set in the environment too: `--log-format` is DRIFTLINE_LOG_FORMAT.

    `same` are other flags that mean it.
    """
    name = flag.partition("/")[0].lstrip("-")
    variable = "DRIFTLINE_" + name.replace("-", "_").upper()
    return click.option(flag, *same, help=help_text, envvar=variable, show_default=True, **settings)


registry_option = option("--registry", "Where the models are.", default=DEFAULTS.registry, metavar="URI")
host_option = option("--host", "Address to listen on.", default=DEFAULTS.host)
port_option = option(
    "--port", "Port to listen on; 0 for a free one.", default=DEFAULTS.port, type=click.IntRange(0, 65535)
)
log_format_option = option(
    "--log-format",
    "For a person or a machine.",
    default=DEFAULTS.log_format,
    type=click.Choice(["text", "json"]),
)
log_level_option = option(
    "--log-level",
    "The least that is logged.",
    default=DEFAULTS.log_level,
    type=click.Choice(["debug", "info", "warning", "error"]),
)
trust_option = option("--trust", "Run the Python code that models may consist of.", is_flag=True)
python_option = option(
    "--python", "The interpreter that runs it; driftline's own if not given.", metavar="PATH"
)
device_option = option(
    "--device",
    "Where models run: cpu, cuda, cuda:N, cuda:N,M, cuda:all, or auto; their settings say so if not given.",
    metavar="NAME",
)


def engine_of(trust: bool, python: str | None, device: str | None = None) -> dict[str, object]:
    """What the command line says of every model's engine; ConfigError for a device that can't be used."""
    said: dict[str, object] = ({"trust": True} if trust else {}) | ({"python": python} if python else {})
    if device is None:
        return said
    from driftline.engine.device import settled

    ModelSettings().override({"engine": {"device": device}}, "the command line")
    return said | {"device": settled(device, lambda why: click.echo(f"driftline: {why}", err=True))}


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
