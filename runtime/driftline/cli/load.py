"""The commands that put a server under load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from driftline.cli.shared import INTERRUPTED, PATH, SETTINGS, registry_option, stderr, stdout
from driftline.config import ServerFile
from driftline.errors import BadRequest

if TYPE_CHECKING:
    from driftline.load.bench import Bench, Point
    from driftline.load.request import Request

CONNECTIONS = 64
OPEN_CONNECTIONS = 256
P99_MS = 20.0
SECONDS = click.FloatRange(0.1, 3600)


@click.command()
@click.argument("url")
@click.option(
    "--model", metavar="NAME[:VERSION]", help="The model to query; not needed if there is only one."
)
@click.option(
    "--rows",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Rows in a generated request.",
)
@click.option("--binary", is_flag=True, help="Send and receive tensors as bytes instead of JSON.")
@click.option("--body", type=PATH, metavar="FILE", help="Send this body instead of a generated one.")
@click.option("--path", metavar="PATH", help="Where to post --body; by default the model's path.")
@click.option("--content-type", metavar="TYPE", help="Content type of --body; by default application/json.")
@click.option(
    "--connections",
    multiple=True,
    type=click.IntRange(1, 10_000),
    help=f"Run a closed loop over this many connections; may be repeated; default {CONNECTIONS}. "
    f"With --rate or --find-knee, use at most this many; default {OPEN_CONNECTIONS}.",
)
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=click.FloatRange(0.01, 1e6),
    help="Run an open loop: this many requests a second, however long they take; may be repeated.",
)
@click.option(
    "--find-knee", is_flag=True, help="Find the highest rate that meets --p99-ms, starting from --rate."
)
@click.option(
    "--p99-ms", type=click.FloatRange(0.01, 1e6), help=f"The target of --find-knee; default {P99_MS:g}."
)
@click.option(
    "--seconds", default=10.0, show_default=True, type=SECONDS, help="Seconds of load for each line."
)
@click.option(
    "--warm-up",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 3600),
    help="Seconds of warm-up before that.",
)
@click.option("--timeout", default=10.0, show_default=True, type=SECONDS, help="Seconds an answer may take.")
@click.option(
    "--sender",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "h2load", "wrk", "own"]),
    help="What sends closed loops; auto: the first that is installed, else own.",
)
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Write all figures to this file.")
@click.option("--plot", "plot_file", type=PATH, metavar="FILE.svg", help="Write a plot to this file.")
@click.pass_context
def bench(
    ctx: click.Context,
    /,
    url: str,
    model: str | None,
    rows: int,
    binary: bool,
    body: Path | None,
    path: str | None,
    content_type: str | None,
    connections: tuple[int, ...],
    rates: tuple[float, ...],
    find_knee: bool,
    p99_ms: float | None,
    seconds: float,
    warm_up: float,
    timeout: float,
    sender: str,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Put the server at URL under load and show how long its answers take.

    The request is generated from the model's metadata, or given with --body. In an open loop, durations
    count from when a request was due, so requests that wait for a stalled server count in full.

    The server monitors these requests like any others: of a model with a profile they raise real alarms,
    which its webhook gets, too.
    """
    from driftline.load.bench import Bench
    from driftline.load.files import check_folder
    from driftline.load.show import watching

    if plot_file is not None and plot_file.suffix.lower() != ".svg":
        raise BadRequest(f"--plot {plot_file}: expected a file that ends in .svg")
    for file in filter(None, (json_file, plot_file)):
        check_folder(file)
    loops = Loops.of(connections, rates, find_knee, p99_ms)
    request = make_request(url, model, rows, binary, body, path, content_type)
    request.try_once()
    with watching(stderr()) as watch:
        benchmark = Bench(request, seconds, warm_up, timeout, sender, watch, [])
        interrupted, knee = False, None
        try:
            knee = loops.run(benchmark)
        except KeyboardInterrupt:
            interrupted = True
    show(benchmark, json_file, plot_file, loops.target, knee, interrupted)
    answered = any(point.outcome.answered for point in benchmark.points)
    ctx.exit(INTERRUPTED if interrupted else 0 if answered else 1)


@dataclass(frozen=True, slots=True)
class Loops:
    """Which loads are put on the server.

    connections  of closed loops; of open ones, at most so many
    rates        of open loops; the first of a search
    target       the 99th percentile of the rate that is looked for, in milliseconds; None if none is
    """

    connections: tuple[int, ...]
    rates: tuple[float, ...]
    target: float | None

    @classmethod
    def of(
        cls, connections: tuple[int, ...], rates: tuple[float, ...], find_knee: bool, p99_ms: float | None
    ) -> Loops:
        """As options say; BadRequest for those that don't go together."""
        if (rates or find_knee) and len(connections) > 1:
            raise BadRequest("expected one --connections with --rate or --find-knee, got several")
        if find_knee and len(rates) > 1:
            raise BadRequest("expected one --rate with --find-knee, to begin with; got several")
        if p99_ms and not find_knee:
            raise BadRequest("--p99-ms: expected --find-knee with it")
        return cls(connections, rates, (p99_ms or P99_MS) if find_knee else None)

    def run(self, bench: Bench) -> Point | None:
        """Measure all of them; the knee if it is looked for."""
        limit = self.connections[0] if self.connections else OPEN_CONNECTIONS
        if self.target is not None:
            return bench.find_knee(self.target, self.rates[0] if self.rates else None, limit)
        for rate in self.rates:
            bench.open(rate, limit)
        for count in () if self.rates else self.connections or (CONNECTIONS,):
            bench.closed(count)
        return None


def make_request(
    url: str,
    model: str | None,
    rows: int,
    binary: bool,
    body: Path | None,
    path: str | None,
    content_type: str | None,
) -> Request:
    """The request that was given, or one to the model that was meant."""
    from driftline.load.request import JSON, Request, check_url, model_path, only_model, request_of

    url = check_url(url)
    if body is None:
        if path or content_type:
            raise BadRequest("--path, --content-type: expected --body FILE with them")
        return request_of(url, model, rows, binary)
    try:
        content = body.read_bytes()
    except OSError as error:
        raise BadRequest(f"{body}: {error.strerror}") from error
    path = path or model_path(model or only_model(url)) + "/infer"
    if not path.startswith("/") or not path.isascii() or any(mark in path for mark in " \r\n"):
        raise BadRequest(f"--path {path!r}: expected a path such as /v2/models/m/infer")
    if content_type and not (content_type.isascii() and content_type.isprintable()):
        raise BadRequest(f"--content-type {content_type!r}: expected a media type such as {JSON}")
    headers = {"Content-Type": content_type or JSON}
    return Request(url, path, headers, content, f"{path}, {body}")


def show(
    benchmark: Bench,
    json_file: Path | None,
    plot_file: Path | None,
    p99_ms: float | None,
    knee: Point | None,
    interrupted: bool,
) -> None:
    """The table, and the files that were asked for."""
    from driftline.load.files import replace_file
    from driftline.load.plot import plot
    from driftline.load.show import as_json, remarks, table

    request, points = benchmark.request, benchmark.points
    about = f"{request.description}: {len(request.body):,} bytes to {request.url}"
    console = stdout()
    console.print(about, table(points), sep="\n\n", markup=False, soft_wrap=True)
    console.print(*remarks(points, p99_ms, knee, interrupted), sep="\n", markup=False, soft_wrap=True)
    if json_file:
        replace_file(json_file, as_json(request, points, p99_ms, knee))
        console.print(f"figures are in {json_file}", markup=False, soft_wrap=True)
    if plot_file:
        replace_file(plot_file, plot(points, about, p99_ms))
        console.print(f"the picture is in {plot_file}", markup=False, soft_wrap=True)


@click.command()
@click.argument("model", metavar="MODEL[@ALIAS|:VERSION]")
@registry_option
@click.option(
    "--p99-ms",
    default=P99_MS,
    show_default=True,
    type=click.FloatRange(0.01, 1e6),
    help="Milliseconds within which 99 % of requests must be answered.",
)
@click.option(
    "--rows", default=1, show_default=True, type=click.IntRange(1, 100_000), help="Rows in a request."
)
@click.option("--seconds", default=2.0, show_default=True, type=SECONDS, help="Seconds of load at each rate.")
@click.option("--output", type=PATH, metavar="FILE", help="Where to write; by default ./driftline.toml.")
@click.pass_obj
def tune(
    file: ServerFile,
    /,
    model: str,
    registry: str,
    p99_ms: float,
    rows: int,
    seconds: float,
    output: Path | None,
) -> None:
    """Find the settings of MODEL that sustain the highest rate within --p99-ms.

    Serves the model under load on this machine with different max_batch_rows, instances and threads, which
    takes minutes, and writes the best to driftline.toml. Gains of less than 5 % are ignored.

    MODEL may also be the path of an .onnx file.
    """
    from driftline.load.show import watching
    from driftline.load.toml import Edit
    from driftline.load.tune import Tuning, trials_table

    console = stdout()
    with watching(stderr()) as watch:
        tuning = Tuning.of(model, registry, file, p99_ms, rows, seconds, watch)
        edit = Edit(output or file.path or Path(SETTINGS), tuning.name)
        try:
            tuning.run()
        finally:
            if tuning.trials:
                console.print(trials_table(tuning.trials), soft_wrap=True)
    edit.write(tuning.best.settings.tables())
    console.print(tuning.conclusion(), f"it is in {edit.path}", sep="\n", markup=False, soft_wrap=True)
