"""One row of JSON per request on trees: how close serving a model over HTTP comes to a static response."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import models
from bench.common import HOST, SERVER_CORE, Effort, Sample, free_port, pinned, program, running
from bench.load import Load, load
from bench.requests import Request, binary_request, first_response, json_request, serving
from bench.results import Result, Table, Target

CONNECTIONS = (1, 16, 64)
SHARE_OF_NGINX = 0.45
TIMES_NGINX_P50 = 2.5

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {host}:{port};
    default_type application/json;
    {locations}
  }}
}}
"""
LOCATION = "location {path} {{ return 200 '{answer}'; }}"


def run(effort: Effort) -> Result:
    """Measure the three servers in turn, round by round."""
    model = models.xgboost()
    request = json_request(model.stem, models.rows(1, models.FEATURES), "probabilities")
    with (
        serving(model, request) as driftline,
        plain(model, request) as (plain_asgi, answer),
        nginx(answer, request) as static,
    ):
        binary = binary_request(model.stem, models.rows(1, models.FEATURES), "probabilities")
        servers = {
            "nginx, static 200": (static, request),
            "driftline": (driftline, request),
            "driftline, binary tensors": (driftline, binary),
            "plain ASGI": (plain_asgi, request),
        }
        loads: dict[tuple[str, int], list[Load]] = {}
        for _ in range(effort.rounds):
            for connections in CONNECTIONS:
                for server, (port, server_request) in servers.items():
                    point = load(port, server_request, connections, effort.seconds)
                    loads.setdefault((server, connections), []).append(point)
    return report(loads, list(servers))


def report(loads: dict[tuple[str, int], list[Load]], servers: list[str]) -> Result:
    """Return the medians and ratios of all rounds."""
    rows, figures, share_at = [], [], {}
    for connections in CONNECTIONS:
        limit = Sample.of([point.requests_per_second for point in loads[servers[0], connections]])
        for server in servers:
            points = loads[server, connections]
            rate = Sample.of([point.requests_per_second for point in points])
            p50, p99 = Sample.of([p.p50_ms for p in points]), Sample.of([p.p99_ms for p in points])
            share = share_at[server, connections] = rate / limit
            rows.append(
                [
                    server,
                    str(connections),
                    f"{rate:,.0f}",
                    f"{p50.median:.2f}",
                    f"{p99.median:.2f}",
                    f"{share:.3f}" if server != servers[0] else "1",
                ]
            )
            figures.append(
                {
                    "server": server,
                    "connections": connections,
                    "requests_per_second": rate,
                    "p50_ms": p50,
                    "p99_ms": p99,
                    "share_of_nginx": share,
                }
            )
    few, many = CONNECTIONS[0], CONNECTIONS[-1]
    p50_alone = [Sample.of([p.p50_ms for p in loads[server, few]]) for server in ("driftline", servers[0])]
    shares = [share_at[server, many] for server in ("driftline, binary tensors", "driftline")]
    return Result(
        "one row of 30 features as JSON, XGBoost of 100 trees, one core",
        Table(["server", "connections", "requests/s", "p50 ms", "p99 ms", "of nginx"], rows),
        [
            Target(
                f"of nginx's requests/s at {many} connections",
                share_at["driftline", many].median,
                "at least",
                SHARE_OF_NGINX,
            ),
            Target(
                f"times nginx's p50 at {few} connection",
                (p50_alone[0] / p50_alone[1]).median,
                "at most",
                TIMES_NGINX_P50,
            ),
            Target(
                f"binary tensors, of JSON's requests/s at {many} connections",
                (shares[0] / shares[1]).median,
                "at least",
                1.0,
            ),
        ],
        [
            "Server on one core, wrk with one thread on another; median ± half the range of the rounds, "
            "ratios within a round. nginx answers the same POST with a fixed text of the same size."
        ],
        {"points": figures},
    )


@contextmanager
def plain(model: Path, request: Request) -> Iterator[tuple[int, str]]:
    """Run the plain ASGI function on uvicorn; yield its port and its response."""
    port = free_port()
    options = ("--host", HOST, "--port", str(port), "--no-access-log", "--log-level", "warning")
    command = pinned(SERVER_CORE, sys.executable, "-m", "uvicorn", "bench.plain_asgi:app", *options)
    with running(command, {"MODEL": str(model)}) as process:
        yield port, first_response(process, port, request).decode()


@contextmanager
def nginx(answer: str, request: Request, core: int = SERVER_CORE) -> Iterator[int]:
    """Run an nginx that answers every request with `answer`; yield its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "nginx.conf")
        everything = LOCATION.format(path="/", answer=answer)
        settings.write_text(NGINX.format(folder=folder, host=HOST, port=port, locations=everything))
        command = pinned(core, program("nginx"), "-p", folder, "-c", settings, "-e", "stderr")
        with running(command) as process:
            first_response(process, port, request)
            yield port
