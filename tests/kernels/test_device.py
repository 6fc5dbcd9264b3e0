"""What kernels import: as little as they can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from naive_kernels import SIMULATED

import driftline_kernels

PACKAGE = Path(driftline_kernels.__file__ or "").parent


@pytest.mark.skipif(SIMULATED, reason="the simulator is numba.cuda")
def test_the_package_imports_no_numba_and_kernels_no_cuda() -> None:
    names = [path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    code = "import sys, driftline_kernels.device; print('numba' in sys.modules); "
    code += "".join(f"import driftline_kernels.{name}; " for name in names)
    code += "print('numba.cuda' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=100
    )
    assert run.stdout.split() == ["False", "False"], run.stderr


@pytest.mark.parametrize(("set_by_hand", "warns"), [(None, "0"), ("1", "1")])
def test_numba_does_not_warn_of_small_batches(set_by_hand: str | None, warns: str) -> None:
    code = "from driftline_kernels import rows_cuda, device\n"  # it has bodies: Numba has read its settings
    code += "device.load_cuda()\nimport numba; print(numba.config.CUDA_LOW_OCCUPANCY_WARNINGS)"
    environment = {name: value for name, value in os.environ.items() if "LOW_OCCUPANCY" not in name}
    if set_by_hand is not None:
        environment["NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS"] = set_by_hand
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert run.stdout.split() == [warns], run.stderr
