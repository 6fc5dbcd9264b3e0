"""Kernels before Numba is there: Python runs the same bodies, and what is compiled later takes over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from naive_kernels import SIMULATED

import driftline_kernels
from driftline_kernels import compiling, moments

pytestmark = pytest.mark.skipif(SIMULATED, reason="about compiled code")

BEFORE = """
import sys
import numpy as np
from driftline_kernels import compiling
compiling.interpret()
from driftline_kernels import moments, strings
values = np.random.default_rng(0).normal(size=(50, 3))
offsets, data = np.array([0, 40, *range(44, 161, 4)]), np.arange(160, dtype=np.uint8)

def results():
    found = moments.start(3)
    moments.update(values, found)
    return found.tobytes() + strings.build_table(offsets, data).slots.tobytes()

first = results()
assert compiling.interpreted() and "numba" not in sys.modules
"""


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=Path(driftline_kernels.__file__ or "").parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_python_runs_kernels_until_they_are_compiled_with_the_same_bits() -> None:
    code = BEFORE + "compiling.load(); compiling.load(); again = results(); "
    code += "print(first == again, compiling.interpreted(), 'numba' in sys.modules)"
    assert python(code) == "True False True"


def test_what_was_called_meanwhile_is_compiled_before_it_takes_over() -> None:
    code = BEFORE + "compiling.load(); called = moments._update, strings._build, strings._look_up; "
    code += "before = [len(one.overloads) for one in called]; results(); "
    code += "print(before, [len(one.overloads) for one in called])"
    assert python(code) == "[1, 1, 0] [1, 1, 0]"


def test_results_are_right_while_kernels_are_loaded_and_all_who_load_wait() -> None:
    code = BEFORE + (
        "from threading import Thread\n"
        "late = []\n"
        "load = lambda: (compiling.load(), late.append(compiling.interpreted()))\n"
        "threads = [Thread(target=load) for _ in range(3)]\n"
        "[thread.start() for thread in threads]\n"
        "wrong = 0\n"
        "while len(late) < 3: wrong += results() != first\n"
        "[thread.join() for thread in threads]\n"
        "print(wrong, late)"
    )
    assert python(code) == "0 [False, False, False]"


def test_kernels_that_are_compiled_stay_so() -> None:
    assert hasattr(moments._update, "overloads")
    compiling.interpret()
    assert not compiling.interpreted()
    compiling.load()
