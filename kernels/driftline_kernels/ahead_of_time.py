"""Compile grids for GPUs that need not be present: when an image is built, for processes started from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from numba import types

from driftline_kernels import compiling, device

COMPUTE_CAPABILITIES = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
"""Those of A100, A10, L4 and L40, H100 and H200, B200, RTX PRO 6000."""

BYTE, I32, I64 = types.uint8, types.int32, types.int64
F32, F64 = types.float32, types.float64


def array(dtype: Any, dimensions: int = 1) -> Any:
    """Return the type of a contiguous array."""
    return types.Array(dtype, dimensions, "C")


MATRIX, TABLE = array(F32, 2), array(F64, 2)
BINS = (MATRIX, array(BYTE, 2))
SIGNATURES: Mapping[str, tuple[tuple[Any, ...], ...]] = {
    "rows_cuda._observe_cuda": (
        (
            *(MATRIX, I64, I64, I64, I64, I64, *BINS, array(I64, 2), array(F64), TABLE),
            *(TABLE, TABLE, MATRIX, array(F64)),
        ),
    ),
    "rows_cuda._settle_cuda": ((array(F64), TABLE),),
    "categories._count_cuda": ((array(I32), array(I64)),),
    "detector._look_cuda": (
        (array(I64, 2), TABLE, TABLE, array(F64), array(F64), array(F32, 4), TABLE, TABLE, TABLE),
    ),
    "moments._merge_cuda": ((TABLE, TABLE),),
    "moving._move_cuda": ((array(BYTE), array(BYTE), I64, array(I64, 2), MATRIX),),
    "strings._look_up_cuda": (
        (array(I32), array(BYTE), array(BYTE), I64, array(I32), array(I64), array(BYTE), I64, array(I32)),
    ),
    "strings._look_up_integers_cuda": (
        (array(I64), array(BYTE), I64, array(I32), array(I64), I64, array(I32)),
    ),
    "transforms._run_cuda": ((I64, TABLE, array(I64, 2), array(F64), MATRIX),),
}
"""The argument types that grids are launched with. Others are compiled at the first launch with them."""


def precompile() -> None:
    """Compile every grid for COMPUTE_CAPABILITIES, and save them. ImportError without numba-cuda."""
    launches = {name: launch_of(name) for name in SIGNATURES}
    cuda = device.load_cuda()
    dispatcher = import_module("numba.cuda.dispatcher")
    for name, launch in launches.items():
        function = device.kernel_of(launch)
        compiled = compiling.as_grid(function, cuda)
        for signature in SIGNATURES[name]:
            with pretend_gpu(COMPUTE_CAPABILITIES[0]):
                kernel = dispatcher._Kernel(function, signature, **compiled.targetoptions)
            for capability in COMPUTE_CAPABILITIES:
                with pretend_gpu(capability):
                    kernel.library.get_cubin()
            compiled._cache.save_overload(signature, kernel)


def launch_of(name: str) -> Any:
    """Return a grid by its module and name."""
    module, _, function = name.partition(".")
    return getattr(import_module(f"{__package__}.{module}"), function)


@contextmanager
def pretend_gpu(capability: tuple[int, int]) -> Iterator[None]:
    """Replace Numba's "current device", of which it only needs the compute capability to compile. Not for a
    process that uses a GPU."""
    stub = SimpleNamespace(compute_capability=capability)
    replacements: dict[tuple[Any, str], Any] = {
        (import_module("numba.cuda.dispatcher"), "get_current_device"): lambda: stub,
        (import_module("numba.cuda.cudadrv.devices"), "get_context"): lambda: SimpleNamespace(device=stub),
    }
    originals = {(module, name): getattr(module, name) for module, name in replacements}
    try:
        for (module, name), replacement in replacements.items():
            setattr(module, name, replacement)
        yield
    finally:
        for (module, name), original in originals.items():
            setattr(module, name, original)
