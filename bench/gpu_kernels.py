"""Every kernel on fresh random data: does a device compute what the CPU's loops compute?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftline.engine.cuda.device import Device
from driftline_kernels import (
    bins,
    categories,
    detector,
    moments,
    moving,
    rows,
    strings,
    transforms,
)

BINS = "bins and moments"
"""The part of counting rows that has to read them, and to do little else."""

EDGES, FEATURES, KNOWN = 31, 32, 200
"""Edges of a column's bins, Fourier features, categories."""


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel and its arguments.

    kernel     its name in `make ptx`
    part       which of its parts, if not all
    call       launches it, or loops on the CPU
    arguments  arrays, named tuples of them, numbers; on the CPU
    written    the positions of those that it writes
    rounding   by which its results may differ, for each row
    """

    kernel: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    written: tuple[int, ...]
    rounding: float = 0.0
    part: str = ""

    @property
    def name(self) -> str:
        """The name of the kernel and its part."""
        return f"{self.kernel}: {self.part}" if self.part else self.kernel

    @property
    def nbytes(self) -> int:
        """The bytes of all its arrays, which have to be read or written at least once."""
        return sum(array.nbytes for array in arrays(self.arguments))


def cases(number: int, columns: int, seed: int | None = None) -> Iterator[Case]:
    """Yield a case of `number` rows for each kernel, or several for its parts."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((number, columns)).astype(np.float32)
    values[::7, 0], values[3::11, -1] = np.nan, np.inf
    edges = np.sort(random.standard_normal((columns, EDGES)).astype(np.float32))
    scaling = np.tile([0.1, 1.5], (columns, 1))
    weights = random.standard_normal((columns + 1, FEATURES)).astype(np.float32)
    for part, features, correlate in (
        (BINS, 0, False),
        ("products, too", 0, True),
        ("features, too", FEATURES, False),
        ("", FEATURES, True),
    ):
        state = rows.start(bins.prepare(edges), EDGES, scaling, weights[:, :features].copy(), correlate)
        yield Case("rows_cuda._observe_cuda", observe, (values, state), (1,), 2e-6, part)
    first_half, second_half = (moments.start(columns) for _ in range(2))
    moments.update(values[: number // 2], first_half)
    moments.update(values[number // 2 :], second_half)
    yield Case("moments._merge_cuda", moments.merge, (first_half, second_half), (0,), 1e-9)
    kind, last = moving.KINDS[values.dtype], columns - 1
    moves = np.array([(0, kind, column, columns, last - column) for column in range(columns)], np.int64)
    bytes_of = (values.reshape(-1).view(np.uint8), np.empty(0, np.uint8))
    yield Case("moving._move_cuda", moving.move, (bytes_of, number, moves, np.zeros_like(values)), (3,))
    codes = random.integers(-1, KNOWN, number).astype(np.int32)
    counted = np.zeros(KNOWN + 1, np.int64)
    yield Case("categories._count_cuda", categories.count, (codes, counted), (1,))
    yield _look(random, number, columns)
    yield from _strings(random, number)
    yield transform(random, number, columns)


def observe(values: Any, state: rows.State) -> None:
    """Count rows, wherever they and the state are; `rows.settle` afterwards."""
    rows.observe_on_device(values, len(values), rows.Parts.of(state))


def _look(random: np.random.Generator, number: int, columns: int) -> Case:
    half_lives, bin_count = np.array([500.0, 5000.0]), 17
    counts = random.multinomial(number, np.full(bin_count, 1 / bin_count), columns)
    gaps = np.full((columns, bin_count), 100.0)
    shares = np.full((columns, bin_count), 1 / bin_count)
    state = detector.start(columns, len(half_lives), bin_count)
    detector.look(random.permuted(counts, axis=1), gaps, shares, np.full(columns, 0.1), half_lives, state)
    arguments = (counts, gaps, shares, np.full(columns, 0.1), half_lives, state)
    return Case("detector._look_cuda", detector.look, arguments, (5,), 1e-8)


def _strings(random: np.random.Generator, number: int) -> Iterator[Case]:
    known = [f"category {place}" for place in range(KNOWN)]
    table = strings.build_table(*_text(known))
    offsets, data = _text([f"category {place}" for place in random.integers(0, 2 * KNOWN, number)])
    valid = np.empty(0, np.uint8)
    arguments = (offsets, data, valid, 0, table, KNOWN, np.zeros(number, np.int32))
    yield Case("strings._look_up_cuda", strings.look_up, arguments, (6,))
    integers = random.integers(-KNOWN, KNOWN, number)
    integer_table = strings.build_integer_table(np.arange(KNOWN, dtype=np.int64))
    integer_arguments = (integers, valid, 0, integer_table, KNOWN, np.zeros(number, np.int32))
    yield Case("strings._look_up_integers_cuda", strings.look_up_integers, integer_arguments, (5,))


def _text(values: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return Arrow's offsets and bytes."""
    offsets = np.cumsum([0, *map(len, values)]).astype(np.int32)
    return offsets, np.frombuffer("".join(values).encode(), np.uint8).copy()


def transform(random: np.random.Generator, number: int, columns: int) -> Case:
    """Return a case that imputes and standardises columns, from registers to features."""
    registers = np.zeros((1 + columns, number))
    registers[1:] = random.standard_normal((columns, number))
    registers[1:, ::9] = np.nan
    code = []
    for column in range(columns):
        register = column + 1
        code.append((transforms.FILL, register, register, 0, 0, 1))
        code.append((transforms.CENTRE, register, register, 0, 1, 2))
        code.append((transforms.EMIT, column, register, 0, 0, 0))
    nothing = np.empty((0, transforms.WORDS), np.int64)
    program = transforms.Program(
        nothing, np.array(code, np.int64), np.array([0.25, 0.1, 1.5]), np.empty((0, 4), np.int64),
        np.empty(0, np.int32), np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.uint8),
        1 + columns, False,
    )  # fmt: skip
    out = np.zeros((number, columns), np.float32)
    return Case("transforms._run_cuda", transforms.run, (registers, program, out), (2,), 1e-6)


def arrays(value: Any) -> Iterator[np.ndarray]:
    """Yield all arrays in some arguments."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from arrays(item)


def map_arrays(value: Any, send: Callable[[np.ndarray], Any]) -> Any:
    """Return arguments with their arrays sent elsewhere."""
    if isinstance(value, np.ndarray):
        return send(value)
    if isinstance(value, rows.State):
        return rows.to_device(value, send)
    if isinstance(value, tuple):
        parts = [map_arrays(item, send) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def copy_in(device: Device, array: np.ndarray) -> Any:
    """Copy an array to a device."""
    copy = device.empty(array.shape, array.dtype)
    device.copy_in(np.ascontiguousarray(array), copy)
    return copy


def copy_out(device: Device, value: Any) -> Any:
    """Copy arrays from a device."""
    if isinstance(value, rows.State):
        return [copy_out(device, value.counts), copy_out(device, value.sums)]  # the rest is only read
    if isinstance(value, tuple):
        return [copy_out(device, item) for item in value]
    copy = np.empty(value.shape, value.dtype)
    device.copy_out(value, copy)
    device.wait(device.mark())
    return copy


def check(device: Device, case: Case) -> None:
    """Raise AssertionError, with the kernel's name, if a device's results differ from the CPU's."""
    with device.active():
        arguments = map_arrays(case.arguments, lambda array: copy_in(device, array))
        case.call(*arguments)
        for value in arguments:
            if isinstance(value, rows.State):
                rows.settle(rows.Parts.of(value))
        results = [copy_out(device, arguments[place]) for place in case.written]
    reference = map_arrays(case.arguments, np.copy)
    if isinstance(reference[-1], rows.State):
        reference = (*reference[:-1], rows.State(*map(np.copy, case.arguments[-1])))
    case.call(*reference)
    for result, place in zip(results, case.written, strict=True):
        expected = reference[place]
        if isinstance(expected, rows.State):
            expected = [expected.counts, expected.sums]
        number = max(len(array) for array in arrays(case.arguments))
        for actual, reference_array in zip(
            result if isinstance(result, list) else [result],
            expected if isinstance(expected, (list, tuple)) else [expected],
            strict=True,
        ):
            if actual.dtype.kind in "iu":
                np.testing.assert_array_equal(actual, reference_array, err_msg=case.name)
            else:
                tolerances = {"rtol": 100 * case.rounding, "atol": number * case.rounding}
                np.testing.assert_allclose(actual, reference_array, **tolerances, err_msg=case.name)
