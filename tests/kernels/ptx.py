"""Compile every CUDA kernel for two generations of cards, without one: `make ptx`.

Prints what each takes of a card, and ends with 1 if a kernel has no signature here or spills registers. It
needs numba-cuda and NVIDIA's assembler, and so runs in an environment of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from numba import cuda, types
from numba.cuda import dispatcher

import driftline_kernels
from driftline_kernels import device

CARDS = ("sm_80", "sm_90")
"""An A100 and an H100."""

F32, F64, I64, I32, BYTE = types.float32, types.float64, types.int64, types.int32, types.uint8


def array(dtype: Any, dimensions: int = 1) -> Any:
    """A contiguous array."""
    return types.Array(dtype, dimensions, "C")


VALUES = array(F32, 2)
BINS = (array(F32, 2), array(BYTE, 2))
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "blocks._count_cuda": (VALUES, I64, I64, *BINS, array(I64, 2)),
    "blocks._update_cuda": (VALUES, I64, I64, array(F64), array(F64, 2)),
    "blocks._observe_cuda": (VALUES, I64, I64, *BINS, array(I64, 2), array(F64), array(F64, 2)),
    "categories._count_cuda": (array(I32), array(I64)),
    "comoments._update_cuda": (VALUES, I64, array(F64, 2), array(F64, 2)),
    "detector._look_cuda": (
        *(array(I64, 2), array(F64, 2), array(F64, 2), array(F64), array(F64)),
        *(array(F64, 4), array(F64, 2), array(F64, 2), array(F64, 2)),
    ),
    "fourier._update_cuda": (VALUES, I64, array(F64, 2), array(F32, 2), array(F64)),
    "moments._merge_cuda": (array(F64, 2), array(F64, 2)),
    "moving._move_cuda": (VALUES, I64, array(I64, 2), types.boolean, VALUES),
    "strings._hash64_cuda": (array(I64), array(BYTE), array(types.uint64)),
    "strings._look_up_cuda": (
        *(array(I32), array(BYTE), array(BYTE), I64, array(I32), array(I64), array(BYTE), I64, array(I32)),
    ),
    "strings._look_up_integers_cuda": (
        *(array(I64), array(BYTE), I64, array(I32), array(I64), I64, array(I32)),
    ),
    "transforms._run_cuda": (I64, array(F64, 2), array(I64, 2), array(F64), VALUES),
}


def main() -> int:
    """Compile all for the cards, each in a process of its own; the exit code."""
    names = sorted(kernels())
    if names != sorted(SIGNATURES):
        print(f"signatures of {sorted(SIGNATURES)}, kernels {names}")
        return 1
    found = {card: told(card) for card in CARDS}
    print(f"| kernel | {' | '.join(f'{card}: registers | shared bytes | spilled bytes' for card in CARDS)} |")
    print("| --- |" + " --- |" * 3 * len(CARDS))
    for name in names:
        print(f"| `{name}` | {' | '.join(str(number) for card in CARDS for number in found[card][name])} |")
    return int(any(spilled for card in CARDS for _, _, spilled in found[card].values()))


def told(card: str) -> dict[str, tuple[int, int, int]]:
    """What another process says of all kernels: Numba keeps what it has compiled for one card only."""
    said = subprocess.run([sys.executable, __file__, card], stdout=subprocess.PIPE, text=True, check=True)
    return {name: tuple(numbers) for name, numbers in json.loads(said.stdout).items()}


def kernels() -> dict[str, Any]:
    """Every kernel of the package, by module and name."""
    for module in pkgutil.iter_modules(driftline_kernels.__path__):
        importlib.import_module(f"driftline_kernels.{module.name}")
    device.load_cuda()
    found = {}
    for module in pkgutil.iter_modules(driftline_kernels.__path__):
        for name, held in vars(sys.modules[f"driftline_kernels.{module.name}"]).items():
            if name.endswith("_cuda") and hasattr(held, "__wrapped__"):
                found[f"{module.name}.{name}"] = held
    return found


def resources(name: str, card: str) -> tuple[int, int, int]:
    """Registers of a thread, shared bytes of a block and spilled bytes of a kernel, as the assembler says."""
    signature, capability = types.void(*SIGNATURES[name]), (int(card[3]), int(card[4]))
    # What a kernel calls is compiled for "the current device", which there is none of.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    function = device.kernel_of(kernels()[name])
    ptx, _ = cuda.compile(function, signature, device=False, abi="numba", cc=capability, output="ptx")
    assert f".target {card}" in ptx, name
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [assembler(), "-v", f"-arch={card}", file.name, "-o", os.devnull]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    shared = re.search(r"(\d+) bytes smem", said)
    spills = [int(number) for number in re.findall(r"(\d+) bytes spill", said)]
    assert registers, said
    return int(registers[1]), int(shared[1]) if shared else 0, sum(spills)


def assembler() -> str:
    """NVIDIA's ptxas, of this environment."""
    (found,) = Path(sys.prefix).glob("lib/python*/site-packages/nvidia/*/bin/ptxas")
    return str(found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps({name: resources(name, sys.argv[1]) for name in SIGNATURES}))
    else:
        sys.exit(main())
