"""The commands beside other servers: the agent, and the report of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from driftline.cli.shared import log_format_option, log_level_option, option, stdout
from driftline.config import Monitoring, ServerFile, Sidecar, bundle_settings
from driftline.errors import BadRequest

DEFAULTS = Sidecar()
SOME_AWAY = 1
WATCHING = Monitoring()


def monitoring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every setting of a monitor; given ones go over what files say."""
    for item in reversed(fields(Monitoring)):
        if item.name != "enabled":
            kind = {"int": int, "float": float, "str": str}[str(item.type)]
            flag, text = f"--{item.name.replace('_', '-')}", f"[monitor] {item.name}; {item.default!r}"
            command = click.option(flag, type=kind, help=text, metavar=kind.__name__.upper())(command)
    return command


@click.command()
@option("--profile", "What the data was: the reference.", required=True, metavar="FILE")
@option("--upstream", "Pass requests to this server and watch them.", default="", metavar="URL")
@option("--listen/--no-listen", "Take what KServe's logger sends, on --port.", default=DEFAULTS.listen)
@option("--files", "Read these, and go on as they grow.", default=DEFAULTS.files, metavar="GLOB|FOLDER")
@option(
    "--event-queue-bytes",
    "Bytes of events that may wait to be joined; more are refused.",
    default=DEFAULTS.event_queue_bytes,
    type=click.IntRange(1),
)
@option(
    "--join-bytes",
    "Bytes of requests and answers that may wait for each other; for more, the oldest are dropped.",
    default=DEFAULTS.join_bytes,
    type=click.IntRange(1),
)
@option(
    "--join-seconds",
    "How long they wait for each other.",
    default=DEFAULTS.join_seconds,
    type=click.FloatRange(0.01),
)
@option("--model", "Watch this model only; all that passes if not given.", default="", metavar="NAME")
@option("--host", "Address to listen on.", default=DEFAULTS.host)
@option(
    "--port", "Of drift and metrics; 0 for a free one.", default=DEFAULTS.port, type=click.IntRange(0, 65535)
)
@option(
    "--proxy-port",
    "Of what is passed to --upstream; 0 for a free one.",
    default=DEFAULTS.proxy_port,
    type=click.IntRange(0, 65535),
)
@option(
    "--copy-body-bytes",
    "A body of more passes unobserved.",
    default=DEFAULTS.copy_body_bytes,
    type=click.IntRange(1),
)
@option(
    "--copy-queue-bytes",
    "Bytes of copies that may wait to be observed; more are dropped.",
    default=DEFAULTS.copy_queue_bytes,
    type=click.IntRange(1),
)
@option("--checkpoint", "Keep what was counted there, over a restart.", default="", metavar="FILE")
@option(
    "--checkpoint-seconds",
    "Time between two checkpoints.",
    default=DEFAULTS.checkpoint_seconds,
    type=click.FloatRange(0.01),
)
@option(
    "--drain-seconds",
    "Time to finish what passes when stopped.",
    default=DEFAULTS.drain_seconds,
    type=click.FloatRange(0, 86_400),
)
@log_format_option
@log_level_option
@option("--alarm-webhook", "Post alarms there, as CloudEvents.", default="", metavar="URL")
@monitoring_options
@click.pass_obj
def monitor(file: ServerFile, /, **flags: Any) -> None:
    """Watch a model that another server serves: its requests and answers, against a profile.

    Settings of the monitor are those of a model: driftline.toml beside the profile has [monitor], the
    server's own [models.NAME.monitor], and flags go over both.
    """
    given = {item.name: flags.pop(item.name, None) for item in fields(Monitoring)}
    settings = Sidecar(**flags)
    settings.check()
    profile = Path(settings.profile)
    if not profile.is_file():
        raise BadRequest(f"--profile {profile}: expected a file, there is none")
    name = settings.model or profile.stem
    known = file.settings_of(name, bundle_settings(profile.with_name("driftline.toml")))
    tables = {"monitor": {key: value for key, value in given.items() if value is not None}}
    monitoring = known.override(tables, "the command line").monitor
    if settings.upstream:
        from driftline.sidecar.front import watch_between  # without what the agent needs, in its own process

        watch_between(settings, monitoring)
    else:
        from driftline.sidecar.process import monitor as watch

        watch(settings, monitoring)


@click.command()
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option("--model", default="", metavar="NAME", help="Only this model; all if not given.")
@click.option("--json", "as_json", is_flag=True, help="All figures, as JSON.")
@click.pass_context
def drift(ctx: click.Context, urls: tuple[str, ...], model: str, as_json: bool) -> None:
    """Show the drift that agents and servers at URL... see together, in their current windows.

    The exit code is 1 if one of them could not be asked.
    """
    from driftline.sidecar.fleet import ask

    fleet = ask(urls, model)
    if as_json:
        import orjson

        groups = [group.to_dict() for group in fleet.groups]
        click.echo(orjson.dumps({"reports": groups, "away": fleet.away}, option=orjson.OPT_INDENT_2))
    else:
        console = stdout()
        for group in fleet.groups:
            told = "1 monitor" if len(group.pages) == 1 else f"{len(group.pages)} monitors"
            console.print(f"{group.model}, as {told} have seen it", style="bold")
            console.print(group.report)
            console.print()
    for url, why in fleet.away.items():
        click.echo(f"driftline: {url} is left out: {why}", err=True)
    ctx.exit(SOME_AWAY if fleet.away else 0)
