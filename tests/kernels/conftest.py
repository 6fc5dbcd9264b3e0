"""Makes the references beside these tests importable; in the simulator, threads are few."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    from driftline_kernels import device

    device.THREADS = (
        32  # each is a thread of Python; before any kernel is imported, which all take it as it is
    )
