"""Operations that Numba can't compile from Python, in LLVM IR; `memory` has the same in Python."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic


@intrinsic
def load(typing: Any, address: Any, dtype: Any) -> Any:
    """Return the number of a type at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], context.get_data_type(dtype.dtype).as_pointer())
        value = builder.load(pointer)
        value.align = 1
        return value

    return dtype.dtype(types.int64, dtype), generate


@intrinsic
def _store(typing: Any, address: Any, value: Any) -> Any:
    """Write a number to an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], arguments[1].type.as_pointer())
        builder.store(arguments[1], pointer).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, value), generate


@intrinsic
def call(typing: Any, function: Any, argument: Any) -> Any:
    """Call the function at an address with another address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _pointer(typing: Any, address: Any, dtype: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    pointer: Any = types.CPointer
    return pointer(dtype.dtype)(types.int64, dtype), generate


_at: Any = _pointer
store: Any = _store


@numba.njit(forceinline=True)
def bytes_at(address: int) -> Any:
    """Return all bytes from an address on as an array; the reader knows where the data ends."""
    return carray(_at(address, np.uint8), 1 << 62)
