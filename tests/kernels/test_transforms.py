"""The program of a transform: every instruction beside plain Python, row by row and all rows at once."""

from __future__ import annotations

import datetime
import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_kernels import SIMULATED, back, examples, there
from scipy import special

from driftline_kernels import dictionary, memory, scalars
from driftline_kernels import transforms as kernel

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # as plain Python, numpy warns

MAX_SIZE = 8 if SIMULATED else 300
NUMBERS = st.lists(st.one_of(st.just(math.nan), st.floats(-1e3, 1e3)), min_size=1, max_size=MAX_SIZE)


def program(code: list[tuple[int, ...]], parameters: list[float], registers: int) -> kernel.Program:
    """Instructions without anything to read."""
    empty = np.empty((0, 4), np.int64)
    return kernel.Program(
        np.empty((0, kernel.WORDS), np.int64),
        np.array(code, np.int64),
        np.array(parameters, np.float64),
        empty,
        np.empty(0, np.int32),
        np.empty((0, 3), np.uint64),
        np.empty(0, np.int64),
        np.empty(0, np.uint8),
        registers,
        False,
    )


def all_of(instructions: list[tuple[int, list[float]]], x: Any, z: Any = None) -> np.ndarray:
    """What each instruction makes of registers 1 and 2, as float32 (instructions, rows); by one launch."""
    x = np.asarray(x, np.float64)
    registers = np.zeros((3 + len(instructions), len(x)))
    registers[1], registers[2] = x, 0 if z is None else z
    code, parameters = [], []
    for index, (operation, own) in enumerate(instructions):
        code.append((operation, 3 + index, 1, 2, len(parameters), len(own)))
        code.append((kernel.EMIT, index, 3 + index, 0, 0, 0))
        parameters += own
    done = program(code, parameters, len(registers))
    out = there(np.empty((len(x), len(instructions)), np.float32))
    kernel.run(there(registers), done._replace(code=there(done.code), parameters=there(done.parameters)), out)
    return back(out).T


def computed(operation: int, x: Any, parameters: list[float], z: Any = None) -> np.ndarray:
    """What one instruction makes of registers 1 and 2."""
    return all_of([(operation, parameters)], x, z)[0]


def equal(ours: np.ndarray, theirs: Any) -> None:
    np.testing.assert_allclose(ours, np.asarray(theirs, np.float32), rtol=1e-6)


@examples(60)
@given(NUMBERS, st.floats(-10, 10), st.floats(0.1, 10))
def test_arithmetic_of_one_number(values: list[float], p: float, q: float) -> None:
    x = np.array(values)
    with np.errstate(all="ignore"):
        cases: list[tuple[int, list[float], np.ndarray]] = [
            (kernel.FILL, [p], np.where(np.isnan(x), p, x)),
            (kernel.MISSING, [], np.isnan(x)),
            (kernel.CENTRE, [p, q], (x - p) / q),
            (kernel.SCALE, [p, q], x * p + q),
            (kernel.CLIP, [p, p + q], np.clip(x, p, p + q)),
            (kernel.LOG1P, [], np.log1p(x)),
            (kernel.POWER, [2.0], x**2),
            (kernel.SINE, [q], np.sin(2 * np.pi * x / q)),
            (kernel.COSINE, [q], np.cos(2 * np.pi * x / q)),
            (kernel.CONSTANT, [p], np.full(len(x), p)),
        ]
        ours = all_of([case[:2] for case in cases], x)
        for made, case in zip(ours, cases, strict=True):
            equal(made, case[2])


@examples(60)
@given(NUMBERS, st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(-5, 5)))
def test_powers_that_make_normal(values: list[float], power: float) -> None:
    x = np.array([*values, 0.0, -1.0, 1e-300, 1e300])
    box_cox, yeo_johnson = all_of([(kernel.BOX_COX, [power]), (kernel.YEO_JOHNSON, [power])], x)
    with np.errstate(all="ignore"):
        equal(box_cox, special.boxcox(x, power))
        signed = np.where(x < 0, -special.boxcox1p(-x, 2 - power), special.boxcox1p(x, power))
        equal(yeo_johnson, signed)


@examples(60)
@given(NUMBERS, st.lists(st.integers(-9, 9), min_size=2, max_size=4 if SIMULATED else 9))
def test_shares_between_quantiles(values: list[float], quantiles: list[int]) -> None:
    known = sorted(map(float, quantiles))
    x = np.array([*values, *known, known[0] - 1, known[-1] + 1])
    steps = np.linspace(0, 1, len(known))
    falling = -np.array(known)[::-1]
    expected = (np.interp(x, known, steps) - np.interp(-x, falling, -steps[::-1])) / 2
    expected[x == known[-1]], expected[x == known[0]] = 1, 0
    assert np.allclose(computed(kernel.SHARE, x, [0.0, *known]), expected, 1e-6, 1e-7, equal_nan=True)
    near = computed(kernel.SHARE, [known[0] + 0.01, known[-1] - 0.01], [0.1, known[0], known[-1] + 1])
    assert near[0] == 0


@examples(60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=MAX_SIZE))
def test_quantiles_of_the_normal_distribution(shares: list[float]) -> None:
    x = np.array([*shares, 0.0, 1e-9, 0.075, 0.5, 0.925, 1.0, np.nan])
    end = statistics.NormalDist().inv_cdf(1e-7 - np.spacing(1))
    expected = np.clip(special.ndtri(x), end, -end)
    np.testing.assert_allclose(computed(kernel.PROBIT, x, []), expected, rtol=1e-6, atol=1e-7)


@examples(60)
@given(NUMBERS, st.lists(st.integers(-9, 9), min_size=1, max_size=5, unique=True), st.booleans())
def test_a_polynomial_for_each_piece(values: list[float], numbers: list[int], comes_round: bool) -> None:
    edges, terms = sorted(map(float, numbers)), 3
    x = np.array([*values, *edges])
    coefficients = np.random.default_rng(3).normal(size=(len(edges) + 1, terms))
    period = 7.5 if comes_round else 0.0
    wrapped = edges[0] + np.mod(x - edges[0], period) if comes_round else x
    piece = np.searchsorted(edges, wrapped, side="right")
    distance = wrapped - np.array(edges)[np.maximum(piece - 1, 0)]
    piece[np.isnan(x)] = 0
    expected = sum(coefficients[piece, power] * distance**power for power in range(terms))
    made = computed(kernel.PIECEWISE, x, [len(edges), period, *edges, *coefficients.ravel()])
    # Where one piece ends, rounding may put what came round into the next.
    near = np.isclose(distance, 0, atol=1e-9) | np.isclose(wrapped[:, None], edges, atol=1e-9).any(axis=1)
    kept = ~near if comes_round else slice(None)
    np.testing.assert_allclose(made[kept], np.float32(expected[kept]), rtol=1e-4, atol=1e-4)


@examples(60)
@given(NUMBERS)
def test_arithmetic_of_two_numbers(values: list[float]) -> None:
    x, z = np.array(values), np.array(values)[::-1]
    with np.errstate(all="ignore"):
        operations = (kernel.ADD, kernel.SUBTRACT, kernel.MULTIPLY, kernel.DIVIDE)
        ours = all_of([*((operation, []) for operation in operations), (kernel.ADD_SCALED, [0.5])], x, z)
        equal(ours, [x + z, x - z, x * z, x / z, z + x * 0.5])


@examples(60)
@given(NUMBERS, st.lists(st.floats(-1e3, 1e3), max_size=4 if SIMULATED else 9, unique=True))
def test_bins_and_known_numbers(values: list[float], edges: list[float]) -> None:
    x, edges = np.array([*values, *edges]), sorted(edges)
    bins = np.where(np.isnan(x), np.nan, np.searchsorted(edges, x, side="right"))
    binned, places = all_of([(kernel.BIN, edges), (kernel.FIND, [77, *edges])], x)
    equal(binned, bins)
    result = [77 if v != v else edges.index(v) if v in edges else len(edges) for v in x.tolist()]
    assert places.tolist() == result


@examples(60)
@given(
    st.lists(
        st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)),
        min_size=1,
        max_size=MAX_SIZE,
    )
)
def test_parts_of_times(times: list[datetime.datetime]) -> None:
    epoch = datetime.datetime(1970, 1, 1)
    seconds = [math.floor((time - epoch) / datetime.timedelta(seconds=1)) for time in times]
    wanted = {
        scalars.YEAR: [time.year for time in times],
        scalars.MONTH: [time.month for time in times],
        scalars.DAY: [time.day for time in times],
        scalars.HOUR: [time.hour for time in times],
        scalars.MINUTE: [time.minute for time in times],
        scalars.SECOND: [time.second for time in times],
        scalars.WEEKDAY: [time.weekday() for time in times],
        scalars.YEARDAY: [time.timetuple().tm_yday for time in times],
        scalars.QUARTER: [(time.month + 2) // 3 for time in times],
    }
    assert all_of([(kernel.PART, [part]) for part in wanted], seconds).tolist() == list(wanted.values())
    assert np.isnan(computed(kernel.PART, [math.nan, math.inf], [scalars.DAY])).all()


def test_codes_become_numbers_pairs_and_columns() -> None:
    codes = [0, 2, 1, 3]
    assert computed(kernel.TABLE, codes, [5, 6, 7, 8]).tolist() == [5, 7, 6, 8]
    assert computed(kernel.PAIR, codes, [10], [4, 3, 2, 1]).tolist() == [4, 23, 12, 31]
    assert computed(kernel.BUCKET, [0, 7, 2**52 - 1], [7]).tolist() == [0, 0, (2**52 - 1) % 7]
    mixed = computed(kernel.MIX, [1, 2, math.nan, 1], [], [2, 1, 1, 2])
    assert mixed[0] == mixed[3] != mixed[1]
    assert np.isnan(mixed[2])
    registers = np.array([[0.0] * 4, codes])
    code = [(kernel.CLEAR, 0, 0, 0, 0, 0), (kernel.ONE_HOT, 1, 1, 0, 0, 4), (kernel.CHECK, 0, 1, 0, 4, 1)]
    done = program(code, [1, -1, 0, 2, 3], 2)
    registers, out = there(registers), there(np.full((4, 4), 9, np.float32))
    kernel.run(registers, done._replace(code=there(done.code), parameters=there(done.parameters)), out)
    assert back(out).tolist() == [[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert back(registers)[kernel.FAULTS].tolist() == [0, 0, 0, 3]


@pytest.mark.skipif(SIMULATED, reason="addresses are the CPU's")
@examples(100)
@given(st.lists(st.binary(max_size=40), unique=True), st.lists(st.binary(max_size=40)))
def test_strings_are_found_by_their_address(known: list[bytes], others: list[bytes]) -> None:
    def laid(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        return np.cumsum([0, *map(len, texts)]), np.frombuffer(b"".join(texts) + b"?", np.uint8)

    table = dictionary.build(*laid(known))
    texts = [*known, *others, b"", b"\0", b"a\0"]
    offsets, data = laid(texts)
    offsets = offsets.astype(np.int32)
    source = np.zeros((1, memory.FIELDS), np.int64)
    source[0, memory.KIND], source[0, memory.VALUES] = memory.STRING, offsets.ctypes.data
    source[0, memory.TEXT] = data.ctypes.data
    done = program([(kernel.EMIT, 0, 1, 0, 0, 0)], [], 2)._replace(
        reads=np.array([[kernel.CODES, 1, 0, 0, -1, len(known)]]),
        directory=np.array([[0, len(table.slots), 0, len(known)]]),
        **table._asdict(),
    )
    out = np.empty((len(texts), 1), np.float32)
    assert kernel.apply(source, done, out) == -1
    assert out[:, 0].tolist() == [known.index(text) if text in known else len(known) for text in texts]
