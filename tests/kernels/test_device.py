"""How kernels are compiled: late, for the device at hand, and never from stale code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from naive_kernels import SIMULATED

import driftline_kernels
from driftline_kernels.device import driver

PACKAGE = Path(driftline_kernels.__file__ or "").parent

pytestmark = pytest.mark.skipif(SIMULATED, reason="about compiled code")


def python(code: str, folder: Path = PACKAGE.parent) -> list[str]:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", "import sys; sys.path.insert(0, '.'); " + code]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_the_package_imports_no_numba_and_kernels_no_cuda() -> None:
    names = [path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    code = "import driftline_kernels; print('numba' in sys.modules); "
    code += "".join(f"import driftline_kernels.{name}; " for name in names)
    assert python(code + "print('numba.cuda' in sys.modules)") == ["False", "False"]


def test_compiled_code_is_kept_until_any_file_changes(tmp_path: Path) -> None:
    package = tmp_path / "driftline_kernels"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import numpy as np; from driftline_kernels import comoments as c; s = np.zeros((2, 2)); "
    code += "c.update(np.array([[3.0]]), np.array([[0.0, 1.0]]), s); "
    code += "print(s[0, 0], sum(c._update.stats.cache_hits.values()))"
    assert python(code, tmp_path) == ["9.0", "0"]
    assert python(code, tmp_path) == ["9.0", "1"]
    other = package / "standard.py"
    other.write_text(other.read_text().replace("LIMIT = 1000.0", "LIMIT = 2.0"))
    assert python(code, tmp_path) == ["4.0", "0"]


def test_where_nothing_can_be_written_drivers_compile_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.registry.CPUDispatcher.enable_caching", refuse)

    @driver
    def double(values: np.ndarray) -> None:
        for i in range(len(values)):
            values[i] *= 2

    values = np.arange(3.0)
    double(values)
    assert values.tolist() == [0, 2, 4]
