"""The commands beside other servers: the agent, and the report of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from driftline.cli.shared import TYPES, options, stdout
from driftline.config import Monitoring, ServerFile, Sidecar, bundle_settings
from driftline.errors import BadRequest
from driftline.load.files import check_folder, replace_file
from driftline.rules import without_secrets

INCOMPLETE = 1


def monitoring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every setting of a monitor; given ones go over what files say."""
    for item in reversed(fields(Monitoring)):
        if item.name != "enabled":
            kind = TYPES[str(item.type)]
            flag, text = f"--{item.name.replace('_', '-')}", f"[monitor] {item.name}; {item.default!r}"
            command = click.option(flag, type=kind, help=text, metavar=kind.__name__.upper())(command)
    return command


@click.command()
@options(Sidecar)
@monitoring_options
@click.pass_obj
def monitor(file: ServerFile, /, **flags: Any) -> None:
    """Monitor a model on another server: compare its requests and answers with a profile.

    Monitor settings are read as for a served model: [monitor] in the driftline.toml beside the profile,
    overridden by [models.NAME.monitor] in ./driftline.toml, overridden by flags.
    """
    monitor_flags = {item.name: flags.pop(item.name, None) for item in fields(Monitoring)}
    settings = Sidecar(**flags)
    settings.check()
    profile = Path(settings.profile)
    if not profile.is_file():
        raise BadRequest(f"--profile {profile}: expected a file, there is none")
    model_settings = file.settings_of(settings.name, bundle_settings(profile.with_name("driftline.toml")))
    overrides = {key: value for key, value in monitor_flags.items() if value is not None}
    monitoring = replace(model_settings.monitor, **overrides)
    monitoring.check()
    if settings.upstream:
        from driftline.sidecar.proxy.supervisor import (
            supervise,  # without what the agent needs, in its own process
        )

        supervise(settings, monitoring)
    else:
        from driftline.sidecar.process import monitor as watch

        watch(settings, monitoring)


@click.command()
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option("--model", default="", metavar="NAME", help="Only this model; by default all.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a web page with histograms to this .html file.",
)
@click.pass_context
def drift(ctx: click.Context, urls: tuple[str, ...], model: str, as_json: bool, output: Path | None) -> None:
    """Show the drift that the agents and servers at URL... see together.

    It covers their current windows. The exit code is 1 if one of them could not be reached.
    """
    from driftline.sidecar.fleet import fetch_fleet

    if output is not None:
        if output.suffix != ".html":
            raise BadRequest(f"--output {output}: expected a name that ends in .html")
        check_folder(output)
    fleet = fetch_fleet(urls, model)
    if output is not None:
        from driftline.monitor.reporting.render import page

        replace_file(output, page("Drift", [(group.title, group.report) for group in fleet.groups]))
    if as_json:
        import orjson

        groups = [group.to_dict() for group in fleet.groups]
        click.echo(orjson.dumps({"reports": groups, "away": fleet.failures}, option=orjson.OPT_INDENT_2))
    else:
        console = stdout()
        for group in fleet.groups:
            console.print(group.title, style="bold")
            console.print(group.report)
            console.print()
    for url, why in fleet.failures.items():
        click.echo(f"driftline: {without_secrets(url)} is left out: {why}", err=True)
    ctx.exit(INCOMPLETE if fleet.failures else 0)
