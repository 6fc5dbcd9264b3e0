"""Compile steps and their fitted states to a program of driftline_kernels.transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from driftline.errors import BadRequest
from driftline.features import spec
from driftline.features.raw import Input
from driftline.tensors import Array, shorten
from driftline_kernels import dictionary
from driftline_kernels import transforms as kernel

State = dict[str, Any]
"""The fitted state of a step, as in the file."""


@dataclass(frozen=True, slots=True)
class Number:
    """A column in a register."""

    register: int


@dataclass(frozen=True, slots=True)
class Text:
    """A raw column of strings, and the string that replaces missing ones."""

    source: int
    fill: str | None = None


@dataclass(frozen=True, slots=True)
class Time:
    """A raw column of times: a register of seconds."""

    register: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two columns, crossed."""

    left: Number | Text
    right: Number | Text


@dataclass(frozen=True, slots=True)
class OneHot:
    """Codes in a register, and the output column of each code; -1 for none."""

    register: int
    columns: tuple[int, ...]
    labels: tuple[str, ...]


Slot = Number | Text | Time | Pair | OneHot
"""The current value of a column; steps replace it."""


@dataclass(slots=True)
class Builder:
    """Builds a program, step by step.

    checks  the columns that instructions check, by the instruction's index
    bounds  of registers whose values are whole numbers from 0 to below the bound, or NaN
    """

    inputs: tuple[Input, ...]
    columns: dict[str, Slot] = field(default_factory=dict)
    features: dict[str, None] = field(default_factory=dict)
    reads: list[tuple[int, ...]] = field(default_factory=list)
    code: list[tuple[int, ...]] = field(default_factory=list)
    parameters: list[float] = field(default_factory=list)
    tables: list[dictionary.Dictionary] = field(default_factory=list)
    registers: int = 1  # kernel.FAULTS
    checks: dict[int, str] = field(default_factory=dict)
    bounds: dict[int, int] = field(default_factory=dict)
    _registers: dict[Any, int] = field(default_factory=dict)

    def __getitem__(self, column: str) -> Slot:
        """Return a column by name; a raw column is read when it is first used."""
        if column not in self.columns:
            index = next(index for index, field in enumerate(self.inputs) if field.name == column)
            kind = self.inputs[index].kind
            if kind == "string":
                self.columns[column] = Text(index)
            else:
                register = self._read(kernel.NUMBERS, index)
                self.columns[column] = Number(register) if kind == "number" else Time(register)
        return self.columns[column]

    def number(self, column: str) -> int:
        """Return the register of a column of numbers."""
        slot = self[column]
        if isinstance(slot, Number):
            return slot.register
        raise BadRequest(f"expected numbers in {column!r}, got {words_of(slot)}")

    def time(self, column: str) -> int:
        """Return the register of a raw column of times."""
        slot = self[column]
        if isinstance(slot, Time):
            return slot.register
        raise BadRequest(f"expected dates or times in {column!r}, got {words_of(slot)}")

    def put(self, name: str, slot: Slot) -> None:
        """Set a column that a step has made."""
        self.columns[name] = slot
        self.features.setdefault(name)

    def compute(self, operation: int, a: int, *parameters: float, b: int = 0, into: int | None = None) -> int:
        """Add an instruction; return the register that it writes, `into` or a new one."""
        into = self._register() if into is None else into
        self.bounds.pop(into, None)
        self.code.append((operation, into, a, b, len(self.parameters), len(parameters)))
        self.parameters.extend(map(float, parameters))
        return into

    def change(self, step: spec.Step, operation: int, *parameters: float) -> None:
        """Add an instruction that makes the step's output from its first column."""
        column = step.reads[0]
        register = self.number(column)
        is_only_use = sum(_uses(slot, register) for slot in self.columns.values()) == 1
        into = register if step.makes == column and is_only_use else None
        self.put(step.makes, Number(self.compute(operation, register, *parameters, into=into)))

    def codes(self, slot: Slot, categories: Sequence[Any]) -> int:
        """Return a register with each row's index among the categories, len(categories) for unknown ones."""
        if isinstance(slot, Number):  # not cached: its register may be overwritten
            return self._codes_of_numbers(slot, categories)
        if isinstance(slot, Pair):
            return self._codes_of_pairs(slot, categories)
        if not isinstance(slot, Text):
            raise BadRequest(f"expected categories, got {words_of(slot)}")
        key = (slot, tuple(map(str, categories)), tuple(map(type, categories)))
        if key not in self._registers:
            self._registers[key] = self._codes_of_text(slot, categories)
        return self._registers[key]

    def check(self, codes: int, count: int, column: str) -> None:
        """Add a check that fails rows whose code is unknown."""
        self.checks[len(self.code)] = column
        self.compute(kernel.CHECK, codes, count, into=kernel.FAULTS)

    def hashes(self, slot: Slot) -> int:
        """Return a register with the hashes of strings."""
        if isinstance(slot, Pair):
            return self.compute(kernel.MIX, self.hashes(slot.left), b=self.hashes(slot.right))
        if not isinstance(slot, Text):
            raise BadRequest(f"expected strings, got {words_of(slot)}")
        return self._read(kernel.HASHES, slot.source)

    def missing(self, column: str) -> int:
        """Return a register with 1 where a column is missing, else 0."""
        slot = self[column]
        if isinstance(slot, Text):
            code = self._read(kernel.CODES, slot.source, self._table([]), 1, 0)
            return code if slot.fill is None else self.compute(kernel.CONSTANT, 0, 0.0)
        if isinstance(slot, (Number, Time)):
            return self.compute(kernel.MISSING, slot.register)
        raise BadRequest(f"expected a raw column or numbers in {column!r}, got {words_of(slot)}")

    def finish(self) -> tuple[kernel.Program, tuple[str, ...]]:
        """Return the program and the names of its outputs.

        Raises BadRequest for a column that can't be an output, and for a duplicate name.
        """
        names: list[str] = []
        if any(isinstance(self.columns[name], OneHot) for name in self.features):
            self.code.append((kernel.CLEAR, 0, 0, 0, 0, 0))
        for name in self.features:
            slot = self.columns[name]
            if isinstance(slot, OneHot):
                start, count = len(self.parameters), len(slot.columns)
                self.code.append((kernel.ONE_HOT, len(names), slot.register, 0, start, count))
                self.parameters.extend(slot.columns)
                names.extend(f"{name}_{label}" for label in slot.labels)
            elif isinstance(slot, Number):
                self.code.append((kernel.EMIT, len(names), slot.register, 0, 0, 0))
                names.append(name)
            else:
                raise BadRequest(f"expected a step that makes numbers of {name!r}: it has {words_of(slot)}")
        for index, name in enumerate(names):
            if name in names[:index]:
                raise BadRequest(f"expected each output once, got {name!r} twice")
        return self.program(), tuple(names)

    def program(self) -> kernel.Program:
        """Return the program so far."""
        directory: list[tuple[int, ...]] = []
        slot, offset, start = 0, 0, 0
        offsets = []
        for table in self.tables:
            count = len(table.offsets) - 1
            directory.append((slot, slot + len(table.slots), offset, count))
            offsets.append(table.offsets + start)
            slot, offset, start = slot + len(table.slots), offset + count, start + len(table.utf8)
        return kernel.Program(
            _to_rows(self.reads, kernel.WORDS),
            _to_rows(self.code, kernel.WORDS),
            np.array(self.parameters, np.float64),
            _to_rows(directory, 4),
            _concatenate([table.slots for table in self.tables], np.int32),
            _concatenate_keys([table.keys for table in self.tables]),
            _concatenate(offsets, np.int64),
            _concatenate([table.utf8 for table in self.tables], np.uint8),
            self.registers,
            bool(self.checks),
        )

    def _register(self) -> int:
        self.registers += 1
        return self.registers - 1

    def _read(self, kind: int, source: int, table: int = 0, null: int = 0, unseen: int = 0) -> int:
        key = (kind, source, table, null, unseen)
        if key not in self._registers:
            self._registers[key] = self._register()
            self.reads.append((kind, self._registers[key], source, table, null, unseen))
        return self._registers[key]

    def _table(self, strings: Sequence[str]) -> int:
        data = [text.encode() for text in strings]
        offsets = np.cumsum([0, *map(len, data)])
        self.tables.append(dictionary.build(offsets, np.frombuffer(b"".join(data), np.uint8)))
        return len(self.tables) - 1

    def _codes_of_text(self, slot: Text, categories: Sequence[Any]) -> int:
        strings = [category for category in categories if category is not None]
        if not all(isinstance(category, str) for category in strings):
            raise BadRequest(f"expected strings as categories of strings, got {shorten(strings)}")
        unseen = len(categories)
        null = _index(categories, slot.fill, unseen)
        return self._read(kernel.CODES, slot.source, self._table(strings), null, unseen)

    def _codes_of_numbers(self, slot: Number, categories: Sequence[Any]) -> int:
        values = [category for category in categories if category is not None]
        if not all(isinstance(category, (int, float)) for category in values):
            raise BadRequest(f"expected numbers as categories of numbers, got {shorten(values)}")
        unseen = len(categories)
        order = sorted(range(len(values)), key=lambda index: float(values[index]))
        ascending = [float(values[index]) for index in order]
        null = len(values) if None in categories else len(values) + 1
        ranks = self.compute(kernel.FIND, slot.register, null + 1, *ascending)
        # FIND returns len(known) for unknown numbers, and one or two more than that for missing ones.
        codes = [*order, unseen, len(values), unseen]
        return self.compute(kernel.TABLE, ranks, *codes, into=ranks)

    def _codes_of_pairs(self, slot: Pair, categories: Sequence[Any]) -> int:
        if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in categories):
            raise BadRequest(f"expected pairs as categories of a cross, got {shorten(categories)}")
        left, right = (sides_of(categories, side) for side in (0, 1))
        a, b = self.codes(slot.left, left), self.codes(slot.right, right)
        radix = len(right) + 1
        keys = [_index(left, pair[0], 0) * radix + _index(right, pair[1], 0) for pair in categories]
        pairs = self.compute(kernel.PAIR, a, radix, b=b)
        return self._codes_of_numbers(Number(pairs), keys)


def reads_first(program: kernel.Program) -> kernel.Program:
    """Return an equivalent program that reads into its first registers and never overwrites them.

    The registers read are thus one block, which can be copied to another device and stays intact. Only for
    programs that check nothing: the register of faults is treated like any other.
    """
    register_of = {int(into): index for index, into in enumerate(program.reads[:, 1])}
    reads, code = program.reads.copy(), program.code.copy()
    reads[:, 1] = range(len(reads))
    registers = len(reads)
    for instruction in code:
        operation, into, a, b = (int(word) for word in instruction[:4])
        instruction[2:4] = register_of.get(a, 0), register_of.get(b, 0)  # unused operands are 0
        if operation in (kernel.EMIT, kernel.ONE_HOT, kernel.CLEAR):
            continue  # they write columns
        if register_of.get(into, -1) < len(reads):
            register_of[into], registers = registers, registers + 1
        instruction[1] = register_of[into]
    return program._replace(reads=reads, code=code, registers=registers)


def sides_of(pairs: Sequence[Any], side: int) -> list[Any]:
    """Return the categories on one side of pairs, missing last."""
    categories = list(dict.fromkeys(pair[side] for pair in pairs if pair[side] is not None))
    return [*categories, *([None] if any(pair[side] is None for pair in pairs) else [])]


def _index(categories: Sequence[Any], category: Any, default: int) -> int:
    return list(categories).index(category) if category in categories else default


def _uses(slot: Slot, register: int) -> int:
    if isinstance(slot, (Number, Time, OneHot)):
        return int(slot.register == register)
    if isinstance(slot, Pair):
        return _uses(slot.left, register) + _uses(slot.right, register)
    return 0


def words_of(slot: Slot) -> str:
    """Describe a column for an error message."""
    return {
        Number: "numbers",
        Text: "strings",
        Time: "dates or times",
        Pair: "a cross of two columns",
        OneHot: "columns of zeros and ones: such a step goes last, or `into` another column",
    }[type(slot)]


def _to_rows(rows: list[tuple[int, ...]], width: int) -> Array:
    return np.array(rows, np.int64).reshape(-1, width)


def _concatenate_keys(arrays: list[Array]) -> Array:
    return np.concatenate([np.empty((0, 3), np.uint64), *arrays])


def _concatenate(arrays: list[Array], dtype: Any) -> Array:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype, copy=False)
