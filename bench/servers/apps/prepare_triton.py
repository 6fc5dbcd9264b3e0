"""Triton's model repository, and the stub of this Python version beside its Python backend."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

CONFIG = """
backend: "python"
max_batch_size: 128
input [ {{ name: "input", data_type: TYPE_FP32, dims: [ {width} ] }} ]
output [ {{ name: "{output}", data_type: TYPE_FP32, dims: [ -1 ] }} ]
instance_group [ {{ kind: KIND_CPU, count: 1 }} ]
dynamic_batching {{ }}
"""

here, spec = Path(__file__).parent, find_spec("pytriton")
assert spec
assert spec.origin
triton = Path(spec.origin).parent / "tritonserver"
stub = triton / "backends" / "python" / "triton_python_backend_stub"
if not stub.exists():
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(triton / "python_backend_stubs" / version / stub.name, stub)

version = Path(os.environ["FOLDER"], "models", "model", "1")
version.mkdir(parents=True)
shutil.copy(here / "serve_triton.py", version / "model.py")
shutil.copy(here / "session.py", version)  # the stub does not look at PYTHONPATH
text = CONFIG.format(width=os.environ["WIDTH"], output=os.environ["OUTPUT"])
(version.parent / "config.pbtxt").write_text(text)
