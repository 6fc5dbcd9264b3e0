"""Features that Python makes until Numba is loaded are the compiled ones, to the bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("interpreted.py")


@pytest.mark.parametrize("form", [(), ("--arrow",)], ids=["numpy", "arrow"])
def test_what_python_makes_has_the_bits_of_what_is_compiled(form: tuple[str, ...]) -> None:
    command = [sys.executable, "-W", "error", PROGRAM, *form]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout) == (0, "54 [] True\n"), run.stderr
