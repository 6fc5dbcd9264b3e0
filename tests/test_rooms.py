"""The rooms of the house: which may import which, and what an import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import driftline
import driftline_kernels

FLOORS = [
    ["driftline_kernels", "errors", "arrays", "blocks", "files", "csv_files", "machine", "backoff", "rules"],
    ["tensors", "config", "tables", "mlmodel", "answers", "logs", "sockets", "child_process", "http"],
    ["registry", "columns"],
    ["monitor", "protocols", "batching", "features"],
    ["sidecar", "engine"],
    ["serving", "load", "convert"],
    ["demo"],
    ["cli"],  # alone at the top: each command opens a room below
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS, 1) for room in rooms}
FACE = {"__init__", "__main__"}
SOURCES = [Path(package.__file__ or "").parent for package in (driftline, driftline_kernels)]
MODULES = [path for source in SOURCES for path in sorted(source.rglob("*.py"))]


def name_of(path: Path) -> str:
    """A file's module: a package is its __init__."""
    source = next(source for source in SOURCES if path.is_relative_to(source))
    return ".".join(path.relative_to(source.parent).with_suffix("").parts)


def room_of(module: str) -> str:
    """`driftline.engine.session` is in `engine`; what the public face itself holds is in `__init__`."""
    package, *parts = module.split(".")
    if package == "driftline_kernels":
        return package
    return parts[0] if parts else "__init__"


def imports(tree: ast.AST, module: str) -> Iterator[str]:
    """The names of all that a file imports, wherever in it that stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            home = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{home}.{name.name}" for name in node.names)


def violations(source: str, module: str) -> list[str]:
    """What a file imports and may not."""
    room, found = room_of(module), []
    for name in imports(ast.parse(source), module):
        if name.split(".")[0] not in ("driftline", "driftline_kernels"):
            continue
        target = room_of(name)
        if target != room and name != "driftline.__version__":
            if room == "driftline_kernels" or FLOOR.get(target, len(FLOORS)) >= FLOOR[room]:
                found.append(f"{module} imports {name}")
    return found


def test_every_room_stands_on_a_floor() -> None:
    assert {room_of(name_of(path)) for path in MODULES} - FACE <= set(FLOOR)


def test_every_module_is_on_the_map() -> None:
    map_ = (Path(__file__).parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = dict(section.split("\n", 1) for section in map_.split("\n## ")[1:])
    runtime = SOURCES[0]
    missing = [
        str(path.relative_to(runtime))
        for path in MODULES
        if path.is_relative_to(runtime) and path.stem not in FACE
        if f"`{path.name}`" not in rooms.get(path.relative_to(runtime).parts[0], map_)
    ]
    assert missing == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_rooms_import_only_from_below(path: Path) -> None:
    module = name_of(path)
    if room_of(module) not in FACE:
        assert violations(path.read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("driftline.engine.model", "from driftline.serving.host import Host"),
        ("driftline.engine.model", "import driftline.serving.host"),
        ("driftline.engine.model", "from driftline import serving"),
        ("driftline.engine.model", "from driftline import Model"),
        ("driftline.engine.model", "import driftline"),
        ("driftline.engine.model", "from ..serving import host"),
        ("driftline.engine.__init__", "from ..serving import host"),
        ("driftline.engine.model", "def f():\n    from driftline.serving import host"),
        ("driftline.engine.model", "if TYPE_CHECKING:\n    from driftline.cli import main"),
        ("driftline.batching.cost", "from driftline.monitor import window"),
        ("driftline.tensors", "from driftline.config import Server"),
        ("driftline.errors", "import driftline_kernels"),
        ("driftline_kernels.bins", "from driftline.errors import BadRequest"),
        ("driftline.demo.scenario", "from driftline.cli import main"),
    ],
)
def test_a_wrong_import_is_seen(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


def test_a_right_import_is_not() -> None:
    source = "import numpy\nfrom . import session\nfrom driftline import __version__\n"
    source += "from driftline.batching.cost import Cost\nfrom driftline_kernels import bins"
    assert violations(source, "driftline.engine.model") == []


HEAVY = ("numba", "pyarrow", "pandas", "rich", "prometheus_client", "httpx")


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("driftline", ()), ("driftline.cli", ()), ("driftline.serving.process", ("onnxruntime",))],
)
def test_a_start_does_not_wait_for_imports_that_it_does_not_need(
    module: str, allowed: tuple[str, ...]
) -> None:
    heavy = {*HEAVY, "onnxruntime"} - {*allowed}
    code = f"import sys, {module}; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_room_needs_scipy() -> None:
    for path in MODULES:
        names = imports(ast.parse(path.read_text(encoding="utf-8")), name_of(path))
        assert not [name for name in names if name.split(".")[0] == "scipy"], path
