"""What is given back is gone, and what is needed again comes back."""

import subprocess
import sys

PROGRAM = """
import numpy as np
from driftline.serving import memory
from driftline_kernels import numbers
def resident():
    return sum(
        int(line.split()[1]) for line, name in lines() if line.startswith("Rss:") and memory.COMPILER in name
    )
def lines():
    name = ""
    for line in open("/proc/self/smaps"):
        if line.split()[0].count("-") and not line.split()[0].endswith(":"):
            name = line if " r-xp " in line else ""
        yield line, name
import numba
square = numba.njit(lambda x: x * x)
assert square(3) == 9
before = resident()
memory.release_compiler_code()
after = resident()
cube = numba.njit(lambda x: x * x * x)
assert (square(4), cube(3)) == (16, 27)
print(before, after, len(memory.code_ranges(memory.COMPILER)))
"""


def test_the_compilers_code_goes_and_comes_back() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after, ranges = map(int, ran.stdout.split())
    assert ranges == 1
    assert before > 10_000  # kB
    assert after < before / 10
