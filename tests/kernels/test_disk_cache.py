"""Compiled drivers are kept where that can be, and nothing fails where it can't."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from naive_kernels import SIMULATED

import driftline_kernels
from driftline_kernels import disk_cache

PACKAGE = Path(driftline_kernels.__file__ or "").parent

pytestmark = pytest.mark.skipif(SIMULATED, reason="about compiled code")

UPDATE = """
import sys, tempfile
import numpy as np
if len(sys.argv) > 1:
    tempfile.tempdir = sys.argv[1]
sys.path.insert(0, ".")
from driftline_kernels import comoments
sums = np.zeros((2, 2))
comoments.update(np.array([[3.0]]), np.array([[0.0, 1.0]]), sums)
print(sums[0, 0], sum(comoments._update.stats.cache_hits.values()))
"""


class Machine:
    """A copy of the package, and folders that can be written or, lying under a file, not even be made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "driftline_kernels"
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        self.no = folder / "file" / "below"
        self.no.parent.write_text("")

    def read_only(self) -> None:
        """Let nothing more be written beside the package's files."""
        (self.package / "__pycache__").write_text("")

    def update(
        self,
        cache: Path | None = None,
        home: Path | None = None,
        temporary: Path | None = None,
        code: str = UPDATE,
    ) -> str:
        """A driver's result in a fresh interpreter, and how often it was found on disk."""
        environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
        environment |= {"XDG_CACHE_HOME": str(home or self.no), "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"NUMBA_CACHE_DIR": str(cache)} if cache else {}
        command = [sys.executable, "-W", "error", "-c", code, str(temporary or self.no)]
        run = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert run.returncode == 0, run.stderr
        return run.stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def kept(folder: Path) -> list[str]:
    return [path.name.partition("-")[0] for path in folder.iterdir()]


def test_drivers_are_kept_beside_the_package_until_any_file_changes(machine: Machine) -> None:
    assert machine.update() == "9.0 0"
    assert machine.update() == "9.0 1"
    assert kept(machine.package / "__pycache__") == ["comoments._update"]
    other = machine.package / "standard.py"
    other.write_text(other.read_text().replace("LIMIT = 1000.0", "LIMIT = 2.0"))
    assert machine.update() == "4.0 0"
    assert kept(machine.package / "__pycache__") == ["comoments._update"]


def test_who_waits_for_a_compilation_can_be_told(machine: Machine) -> None:
    code = UPDATE.replace(
        "from driftline_kernels import comoments\n",
        (
            "from driftline_kernels import comoments, compiling\n"
            "compiling.on_compile = lambda: print('compiling', end=' ')\n"
        ),
    )
    assert machine.update(code=code) == "compiling 9.0 0"
    assert machine.update(code=code) == "9.0 1"


def test_else_in_the_users_cache_and_else_among_temporary_files(machine: Machine, tmp_path: Path) -> None:
    machine.read_only()
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    temporary.mkdir()
    assert [machine.update(home=home, temporary=temporary) for _ in range(2)] == ["9.0 0", "9.0 1"]
    assert kept(home / "driftline") == ["comoments._update"]
    assert [machine.update(temporary=temporary) for _ in range(2)] == ["9.0 0", "9.0 1"]
    (own,) = temporary.iterdir()
    assert kept(own) == ["comoments._update"]
    assert own.stat().st_mode & 0o777 == 0o700


def test_where_nothing_can_be_written_drivers_compile_all_the_same(machine: Machine) -> None:
    machine.read_only()
    assert machine.update(cache=machine.no) == "9.0 0"


def test_what_an_image_holds_is_read_wherever_is_written(machine: Machine, tmp_path: Path) -> None:
    machine.update()
    assert machine.update(cache=tmp_path / "cache") == "9.0 1"
    assert not (tmp_path / "cache").exists()
    assert machine.update(cache=machine.no) == "9.0 1"


def test_a_folder_that_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    assert disk_cache.make_private(ours) == disk_cache.make_private(ours) == ours
    ours.chmod(0o777)
    with pytest.raises(PermissionError, match="only its owner"):
        disk_cache.make_private(ours)
    ours.chmod(0o700)
    (tmp_path / "link").symlink_to(ours)
    with pytest.raises(PermissionError, match="only its owner"):
        disk_cache.make_private(tmp_path / "link")


def test_a_broken_file_is_no_reason_to_fail(machine: Machine) -> None:
    machine.update()
    (file,) = (machine.package / "__pycache__").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    assert machine.update() == "9.0 0"
    assert machine.update() == "9.0 1"
