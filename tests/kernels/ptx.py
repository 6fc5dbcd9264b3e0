"""Compile every CUDA kernel for the GPUs of an image, without one: `make ptx`.

They are compiled by one process and found again by this one, as servers find them that start from an image.
Prints what each takes of two generations of GPUs, and ends with 1 if a kernel has no signature, is not found
or spills registers. It needs numba-cuda and NVIDIA's assembler, and so runs in an environment of its own.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import driftline_kernels
from driftline_kernels import ahead_of_time, compiling, device, disk_cache

SHOWN = {"sm_80": (8, 0), "sm_90": (9, 0)}
"""An A100 and an H100."""


def main() -> int:
    """Compile all for the GPUs, and find them; the exit code."""
    names = sorted(kernels())
    if names != sorted(ahead_of_time.SIGNATURES):
        print(f"signatures of {sorted(ahead_of_time.SIGNATURES)}, kernels {names}")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        subprocess.run([sys.executable, __file__, "precompile"], env=environment, check=True)
        disk_cache.folders = lambda: (Path(folder),)
        libraries_of = {name: libraries(name) for name in names}
    print(f"| kernel | {' | '.join(f'{name}: registers | shared bytes | spilled bytes' for name in SHOWN)} |")
    print("| --- |" + " --- |" * 3 * len(SHOWN))
    spilled = 0
    for name in names:
        launch = ahead_of_time.launch_of(name)
        usage = [resources(libraries_of[name][0], gpu, launch) for gpu in SHOWN.values()]
        print(f"| `{name}` | {' | '.join(str(number) for numbers in usage for number in numbers)} |")
        spilled += sum(spills for _, _, spills in usage)
    return int(spilled > 0)


def kernels() -> set[str]:
    """Every kernel of the package, by module and name."""
    modules = [module.name for module in pkgutil.iter_modules(driftline_kernels.__path__)]
    return {
        f"{module}.{name}"
        for module in modules
        for name, held in vars(importlib.import_module(f"driftline_kernels.{module}")).items()
        if name.endswith("_cuda") and hasattr(held, "__wrapped__")
    }


def libraries(name: str) -> list[Any]:
    """What was kept of a kernel, for each signature; on every GPU, nothing of it has to be compiled."""
    cuda, codegen = device.load_cuda(), importlib.import_module("numba.cuda.codegen")
    grid = compiling.as_grid(device.kernel_of(ahead_of_time.launch_of(name)), cuda)
    kept = [grid._cache.read(signature).library for signature in ahead_of_time.SIGNATURES[name]]
    for library in kept:
        for gpu in ahead_of_time.COMPUTE_CAPABILITIES:
            with ahead_of_time.pretend_gpu(gpu), patch.object(codegen.driver, "_Linker", None):
                code = library.get_cubin().code
            assert code[:4] == b"\x7fELF", name
            assert library._entry_name.encode() in code, name
    return kept


def resources(library: Any, gpu: tuple[int, int], launch: Any) -> tuple[int, int, int]:
    """Registers of a thread, shared bytes of a block and spilled bytes of a kernel, as the assembler says."""
    with ahead_of_time.pretend_gpu(gpu):
        ptx = library.get_lto_ptx().rstrip("\x00")
    target = re.search(r"^\.target (sm_\w+)", ptx, re.MULTILINE)
    assert target, library.name
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [assembler(), "-v", f"-arch={target[1]}", file.name, "-o", os.devnull]
        command += [f"-maxrregcount={launch.registers}"] if launch.registers else []
        output = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", output)
    shared = re.search(r"(\d+) bytes smem", output)
    spills = [int(number) for number in re.findall(r"(\d+) bytes spill", output)]
    assert registers, output
    return int(registers[1]), launch.shared + (int(shared[1]) if shared else 0), sum(spills)


def assembler() -> str:
    """NVIDIA's ptxas, of this environment."""
    (path,) = Path(sys.prefix).glob("lib/python*/site-packages/nvidia/*/bin/ptxas")
    return str(path)


if __name__ == "__main__":
    if sys.argv[1:] == ["precompile"]:
        ahead_of_time.precompile()
    else:
        sys.exit(main())
