"""Compute a model's input from raw columns: a program of instructions over registers runs block by block.

A register is a column of float64: numbers, codes of categories, or times in seconds; NaN is missing. An
instruction is (operation, target, a, b, start, count): it reads registers a and b, has `count` parameters
from `start` on, and writes register `target`, or output columns from `target` on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from driftline_kernels import memory
from driftline_kernels.device import BLOCK, blocks_for, body, driver, grid, on_cpu
from driftline_kernels.dictionary import code_at
from driftline_kernels.scalars import (
    box_cox,
    cosine,
    floor,
    hash_bits,
    index_among,
    log1p,
    part_of,
    piecewise,
    probit,
    share_below,
    short_hash,
    sine,
    yeo_johnson,
)
from driftline_kernels.strings import avalanche, hash_of

cuda: Any = None  # numba.cuda, bound before the first launch

WORDS = 6
"""Numbers of an instruction."""

EMIT, ONE_HOT, CONSTANT, FILL, MISSING, CENTRE, SCALE, CLIP, LOG1P, POWER, BIN, FIND, TABLE = range(13)
ADD, SUBTRACT, MULTIPLY, DIVIDE, PART, SINE, COSINE, PAIR, MIX, BUCKET, CHECK, CLEAR = range(13, 25)
BOX_COX, YEO_JOHNSON, SHARE, PROBIT, ADD_SCALED, PIECEWISE = range(25, 31)
"""The operations; see `execute`, `calculate` and `encode`."""

NUMBERS, CODES, HASHES = range(3)
"""How a source is read into a register."""

FAULTS = 0
"""The register of a program with checks that holds 1 + the instruction that a row failed, or 0."""


class Program(NamedTuple):
    """A program for `apply` and `run`, as flat arrays on one device.

    reads       (r, 6) int64; kind, target register, source, table, codes of null and unseen
    code        (n, 6) int64; the instructions
    parameters  (p,) float64
    directory   (t, 4) int64; for each table of strings its first slot, the slot after its last, its first
                string, the number of its strings
    slots       int32, keys uint64, offsets int64, utf8 uint8: tables of driftline_kernels.dictionary,
                concatenated
    registers   how many the instructions use
    checked     whether a row can fail
    """

    reads: Any
    code: Any
    parameters: Any
    directory: Any
    slots: Any
    keys: Any
    offsets: Any
    utf8: Any
    registers: int
    checked: bool


def apply(sources: Any, program: Program, out: Any) -> int:
    """Write the features of all rows, up to the first block with a row that fails a check.

    sources  (inputs, memory.FIELDS) int64; where the columns are in this process's memory
    out      (rows, width) float32, C-contiguous

    Returns row * len(code) + instruction of the first failed check, or -1.
    """
    return int(_apply(sources, *program, out))


def read(sources: Any, program: Program, registers: Any, rows: int | None = None) -> None:
    """Read sources into `registers` (registers, rows) float64, on the CPU.

    rows  the number of rows, if it is less than the registers hold
    """
    rows = registers.shape[1] if rows is None else rows
    tables = (program.directory, program.slots, program.keys, program.offsets, program.utf8)
    _read(sources, program.reads, *tables, 0, rows, registers)


def run(registers: Any, program: Program, out: Any, rows: int | None = None) -> None:
    """Execute instructions on registers that have been read.

    registers  (registers, rows) float64, written, on cpu or cuda
    out        (rows, width) float32 on the same device, written
    rows       how many rows, from the first; None for all
    """
    rows = registers.shape[1] if rows is None else rows
    if on_cpu(registers):
        _run(registers, program.code, program.parameters, rows, out)
    else:
        _run_cuda(blocks_for(rows), rows, registers, program.code, program.parameters, out)


@body
def execute(code: Any, parameters: Any, registers: Any, first: int, stop: int, out: Any) -> None:
    """Execute all instructions on rows first:stop, of `registers` and of `out`."""
    for index in range(len(code)):
        operation, target, a, b = code[index, 0], code[index, 1], code[index, 2], code[index, 3]
        p = parameters[code[index, 4] : code[index, 4] + code[index, 5]]
        x = registers[a]
        if operation == EMIT:
            for row in range(first, stop):
                out[row, target] = x[row]
        elif operation == CLEAR:  # before any ONE_HOT: clearing all columns at once is faster
            for row in range(first, stop):
                for column in range(out.shape[1]):
                    out[row, column] = 0
        elif operation == ONE_HOT:  # p: the column after `target` of each code, -1 for none
            for row in range(first, stop):
                offset = np.int64(p[np.uint64(x[row])])
                if offset >= 0:
                    out[row, target + offset] = 1
        elif operation == CHECK:  # codes from p on are unknown
            for row in range(first, stop):
                if x[row] >= p[0] and registers[target, row] == 0:
                    registers[target, row] = index + 1
        else:
            calculate(operation, x, registers[b], p, first, stop, registers[target])


@body
def calculate(operation: int, x: Any, z: Any, p: Any, first: int, stop: int, y: Any) -> None:
    """Execute an instruction that computes numbers from numbers."""
    if operation == CONSTANT:
        for row in range(first, stop):
            y[row] = p[0]
    elif operation == FILL:
        for row in range(first, stop):
            y[row] = x[row] if x[row] == x[row] else p[0]
    elif operation == MISSING:
        for row in range(first, stop):
            y[row] = 0.0 if x[row] == x[row] else 1.0
    elif operation == CENTRE:
        for row in range(first, stop):
            y[row] = (x[row] - p[0]) / p[1]
    elif operation == SCALE:
        for row in range(first, stop):
            y[row] = x[row] * p[0] + p[1]
    elif operation == CLIP:
        for row in range(first, stop):
            low = p[0] if x[row] < p[0] else x[row]
            y[row] = p[1] if low > p[1] else low
    elif operation == LOG1P:
        for row in range(first, stop):
            y[row] = log1p(x[row])
    elif operation == POWER:
        for row in range(first, stop):
            y[row] = x[row] ** p[0]
    elif operation == BOX_COX:  # p: its lambda
        for row in range(first, stop):
            y[row] = box_cox(x[row], p[0])
    elif operation == YEO_JOHNSON:
        for row in range(first, stop):
            y[row] = yeo_johnson(x[row], p[0])
    elif operation == PROBIT:
        for row in range(first, stop):
            y[row] = probit(x[row])
    elif operation == ADD:
        for row in range(first, stop):
            y[row] = x[row] + z[row]
    elif operation == ADD_SCALED:
        for row in range(first, stop):
            y[row] = z[row] + x[row] * p[0]
    elif operation == SUBTRACT:
        for row in range(first, stop):
            y[row] = x[row] - z[row]
    elif operation == MULTIPLY:
        for row in range(first, stop):
            y[row] = x[row] * z[row]
    elif operation == DIVIDE:
        for row in range(first, stop):
            y[row] = x[row] / z[row]
    elif operation == SINE:
        for row in range(first, stop):
            y[row] = sine(2 * np.pi * x[row] / p[0])
    elif operation == COSINE:
        for row in range(first, stop):
            y[row] = cosine(2 * np.pi * x[row] / p[0])
    else:
        encode(operation, x, z, p, first, stop, y)


@body
def encode(operation: int, x: Any, z: Any, p: Any, first: int, stop: int, y: Any) -> None:
    """Execute an instruction on codes, bins, hashes or times."""
    if operation == TABLE:  # p: the value of each code
        for row in range(first, stop):
            y[row] = p[np.uint64(x[row])] if x[row] == x[row] else np.nan
    elif operation == BIN:  # p: edges, ascending
        for row in range(first, stop):
            y[row] = np.searchsorted(p, x[row], side="right") if x[row] == x[row] else np.nan
    elif operation == FIND:  # p: the code of NaN, then known numbers, ascending
        for row in range(first, stop):
            y[row] = index_among(p[1:], x[row], np.int64(p[0]))
    elif operation == SHARE:  # p: the margin at the ends, then quantiles, ascending
        for row in range(first, stop):
            y[row] = share_below(p[1:], x[row], p[0])
    elif operation == PIECEWISE:
        for row in range(first, stop):
            y[row] = piecewise(p, x[row])
    elif operation == PART:
        part = np.int64(p[0])
        for row in range(first, stop):
            y[row] = part_of(x[row], part)
    elif operation == PAIR:  # of codes, z < p
        for row in range(first, stop):
            y[row] = x[row] * p[0] + z[row]
    elif operation == MIX:  # of hashes
        for row in range(first, stop):
            y[row] = short_hash(avalanche(hash_bits(x[row]) * np.uint64(31) + hash_bits(z[row])))
            if x[row] != x[row] or z[row] != z[row]:
                y[row] = np.nan
    elif operation == BUCKET:
        for row in range(first, stop):
            y[row] = x[row] - p[0] * floor(x[row] / p[0])


@body
def read_codes(
    source: Any,
    first: int,
    rows: int,
    slots: Any,
    keys: Any,
    offsets: Any,
    utf8: Any,
    null: int,
    unseen: int,
    codes: Any,
) -> None:
    """Read the codes of some rows of a column of strings."""
    text = source[memory.TEXT]
    for row in range(rows):
        index = source[memory.FIRST] + first + row
        if source[memory.VALIDITY] != 0 and not memory.is_set(source[memory.VALIDITY], index):
            codes[row] = null
        else:
            start, stop = span(source, index)
            codes[row] = code_at(text + start, stop - start, slots, keys, offsets, utf8, unseen)


@body
def read_hashes(source: Any, first: int, rows: int, hashes: Any) -> None:
    """Read the hashes of some rows of a column of strings; NaN for null."""
    text = memory.bytes_at(source[memory.TEXT])
    for row in range(rows):
        index = source[memory.FIRST] + first + row
        if source[memory.VALIDITY] != 0 and not memory.is_set(source[memory.VALIDITY], index):
            hashes[row] = np.nan
        else:
            start, stop = span(source, index)
            hashes[row] = short_hash(hash_of(text, start, stop))


@body
def span(source: Any, index: int) -> tuple[Any, Any]:
    """Return where a string starts and stops."""
    if source[memory.KIND] == memory.STRING:
        address = source[memory.VALUES] + 4 * index
        return np.int64(memory.load(address, np.int32)), np.int64(memory.load(address + 4, np.int32))
    address = source[memory.VALUES] + 8 * index
    return memory.load(address, np.int64), memory.load(address + 8, np.int64)


@driver
def _read(
    sources: Any,
    reads: Any,
    directory: Any,
    slots: Any,
    keys: Any,
    offsets: Any,
    utf8: Any,
    first: int,
    rows: int,
    registers: Any,
) -> None:
    """Read some rows of all sources into registers, from the registers' first row on."""
    for index in range(len(reads)):
        kind, target, source = reads[index, 0], reads[index, 1], reads[index, 2]
        table, null, unseen = reads[index, 3], reads[index, 4], reads[index, 5]
        if kind == NUMBERS:
            memory.read_numbers(sources[source], first, rows, registers[target])
        elif kind == HASHES:
            read_hashes(sources[source], first, rows, registers[target])
        else:
            start, size = directory[table, 2], directory[table, 3]
            slot, stop = directory[table, 0], directory[table, 1]
            table_keys = keys[start : start + size]
            table_offsets = offsets[start + table : start + table + size + 1]
            read_codes(
                sources[source],
                first,
                rows,
                slots[slot:stop],
                table_keys,
                table_offsets,
                utf8,
                null,
                unseen,
                registers[target],
            )


@driver
def _run(registers: Any, code: Any, parameters: Any, rows: int, out: Any) -> None:
    execute(code, parameters, registers, 0, rows, out)


@driver
def _apply(
    sources: Any,
    reads: Any,
    code: Any,
    parameters: Any,
    directory: Any,
    slots: Any,
    keys: Any,
    offsets: Any,
    utf8: Any,
    count: int,
    checked: bool,
    out: Any,
) -> Any:
    rows = len(out)
    registers = np.empty((count, min(rows, BLOCK)))
    for first in range(0, rows, BLOCK):
        block_rows = min(BLOCK, rows - first)
        _read(sources, reads, directory, slots, keys, offsets, utf8, first, block_rows, registers)
        if checked:
            registers[FAULTS, :block_rows] = 0
        _run(registers, code, parameters, block_rows, out[first : first + block_rows])
        if checked:
            for row in range(block_rows):
                if registers[FAULTS, row] > 0:
                    return (first + row) * len(code) + np.int64(registers[FAULTS, row]) - 1
    return -1


@grid
def _run_cuda(rows: int, registers: Any, code: Any, parameters: Any, out: Any) -> None:
    row = cuda.grid(1)
    if row < rows:
        execute(code, parameters, registers, row, row + 1, out)
