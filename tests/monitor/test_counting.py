"""Rows of any form fall into the bins that plain Python puts them into."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.monitor.counting import Counter, WindowCounts
from driftline.monitor.reading import BLOCK_ROWS, Reader
from driftline.monitor.reference.column import Categorical, Reference
from driftline.monitor.reference.profile import Profile

ROWS = 500
PLACES = ("EWR", "JFK", "LGA", "Zürich", "")


def data(rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    """Every kind of column; None and NaN are missing."""
    random = np.random.default_rng(seed)
    holes = random.standard_normal(rows)
    holes[random.random(rows) < 0.1] = np.nan
    holes[random.random(rows) < 0.05] = np.inf
    holes[random.random(rows) < 0.05] = -np.inf
    place = random.choice(PLACES, rows).astype(object)
    place[random.random(rows) < 0.1] = None
    return {
        "normal": random.standard_normal(rows).astype(np.float32),
        "holes": holes,
        "tied": random.poisson(2.0, rows).astype(np.float64),
        "distance": random.integers(-1000, 1000, rows),
        "place": place,
        "day": random.integers(0, 7, rows),
        "late": random.random(rows) < 0.2,
    }


def live(rows: int = ROWS) -> dict[str, Any]:
    """What is observed: other rows, values that the reference never had among them."""
    columns = data(rows, seed=1)
    columns["normal"][:3] = [9, -9, 1e30]
    columns["place"][:2] = ["BOS", "JF"]
    columns["day"][:3] = [7, -1, 2**40]
    return columns


@pytest.fixture(scope="module")
def profile() -> Profile:
    return Profile.fit(data())


def bin_of(reference: Reference, value: Any) -> int:
    """One value's bin, by the definition."""
    is_missing = value is None or value != value
    if isinstance(reference, Categorical):
        if is_missing:
            return reference.missing
        categories = reference.categories
        return categories.index(str(value)) if str(value) in categories else reference.unseen
    with np.errstate(over="ignore"):
        number = np.float32(np.nan if is_missing else value)
    if np.isfinite(number):
        return sum(bool(edge <= number) for edge in reference.edges)
    return reference.missing + (0 if np.isnan(number) else 1 if number > 0 else 2)


def plain_counts(profile: Profile, columns: dict[str, Any]) -> dict[str, np.ndarray]:
    """By column, in the reference's bins."""
    counts = {}
    for reference in profile.references:
        bins = [bin_of(reference, value) for value in np.asarray(columns[reference.name]).tolist()]
        counts[reference.name] = np.bincount(bins, minlength=len(reference.counts))
    return counts


def counted(profile: Profile, *batches: object) -> dict[str, np.ndarray]:
    counter = Counter(profile)
    for batch in batches:
        for matrix, codes in Reader(counter.numeric, counter.categorical).blocks(batch):
            counter.add(matrix, codes)
    return WindowCounts(counter).window(0, datetime.now(UTC)).counts


def same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for name, counts in expected.items():
        np.testing.assert_array_equal(actual[name], counts, err_msg=name)


def table(columns: dict[str, Any]) -> pa.Table:
    return pa.table({name: pa.array(values, from_pandas=False) for name, values in columns.items()})


def with_nulls(columns: dict[str, Any]) -> pa.Table:
    """NaN as null, in every column of numbers."""
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})


def chunked(columns: dict[str, Any]) -> pa.Table:
    whole = with_nulls(columns)
    return pa.concat_tables([whole.slice(0, 7), whole.slice(7, 0), whole.slice(7, 130), whole.slice(137)])


def sliced(columns: dict[str, Any]) -> pa.Table:
    """A view into a longer table, so that offsets are not 0 nor bitmaps at a byte's start."""
    extra = {name: np.concatenate([values[:13], values, values[:5]]) for name, values in columns.items()}
    return with_nulls(extra).slice(13, len(columns["day"]))


FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "arrays": lambda columns: columns,
    "float64 numbers": lambda columns: {**columns, "normal": columns["normal"].astype(np.float64)},
    "strided arrays": lambda columns: {name: np.repeat(one, 2)[::2] for name, one in columns.items()},
    "fewer bits": lambda columns: {**columns, "distance": columns["distance"].astype(np.int16)},
    "a table": table,
    "a table with nulls": with_nulls,
    "a table in chunks": chunked,
    "a slice of a table": sliced,
    "a record batch": lambda columns: with_nulls(columns).to_batches()[0],
    "large strings": lambda columns: {
        **columns,
        "place": pa.array(columns["place"].tolist(), pa.large_string()),
    },
    "a dictionary": lambda columns: {
        **columns,
        "place": pa.array(columns["place"].tolist(), pa.string()).dictionary_encode(),
    },
    "a DataFrame": pd.DataFrame,
    "pandas categories": lambda columns: pd.DataFrame(columns).astype({"place": "category"}),
    "more columns, in another order": lambda columns: {
        **dict(reversed(columns.items())),
        "extra": columns["normal"],
    },
    "categories as floats": lambda columns: {**columns, "day": columns["day"].astype(np.float64)},
    "booleans as integers": lambda columns: {**columns, "late": columns["late"].astype(np.uint8)},
}


@pytest.mark.parametrize("form", FORMS)
def test_columns_of_every_form_are_counted_alike(profile: Profile, form: str) -> None:
    columns = live()
    same(counted(profile, FORMS[form](columns)), plain_counts(profile, columns))


def test_the_reference_s_rows_are_counted_as_the_reference_has_them(profile: Profile) -> None:
    actual = counted(profile, data())
    for reference in profile.references:
        np.testing.assert_array_equal(actual[reference.name], reference.counts, err_msg=reference.name)


@given(st.lists(st.integers(0, ROWS), max_size=6))
def test_any_chunking_gives_the_same_counts(profile: Profile, cuts: list[int]) -> None:
    columns = live()
    ends = [0, *sorted(cuts), ROWS]
    parts = [{name: values[start:end] for name, values in columns.items()} for start, end in pairwise(ends)]
    same(counted(profile, *parts), plain_counts(profile, columns))


def test_more_rows_than_a_block(profile: Profile) -> None:
    columns = live(BLOCK_ROWS + 123)
    same(counted(profile, with_nulls(columns)), plain_counts(profile, columns))


def test_fractions_and_what_is_no_number_among_integer_categories() -> None:
    profile = Profile.fit({"day": np.tile(np.arange(-1, 6), 20)})
    values = np.array([0, 2.5, np.nan, np.inf, -np.inf, 1e300, -1.0, 5.0, 6.0])
    actual = counted(profile, {"day": values})["day"]
    np.testing.assert_array_equal(actual, [1, 1, 0, 0, 0, 0, 1, 5, 1])


def test_integers_beyond_int64_are_no_category() -> None:
    profile = Profile.fit({"day": np.tile(np.arange(-1, 6), 20)})
    actual = counted(profile, {"day": np.array([2**64 - 1, 3], np.uint64)})["day"]
    np.testing.assert_array_equal(actual, [0, 0, 0, 0, 1, 0, 0, 1, 0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normal": None}, "column 'normal': expected as in the profile, got none"),
        ({"place": None}, "column 'place': expected as in the profile, got none"),
        ({"normal": ["a"] * ROWS}, "column 'normal': expected numbers as in the profile, got strings"),
        (
            {"place": np.zeros(ROWS)},
            "column 'place': expected strings as in the profile, got numbers",
        ),
        ({"day": ["a"] * ROWS}, "column 'day': expected integers as in the profile, got strings"),
        ({"late": ["a"] * ROWS}, "column 'late': expected booleans as in the profile, got strings"),
    ],
)
def test_an_error_names_the_column(profile: Profile, change: dict[str, Any], words: str) -> None:
    columns = {name: values for name, values in {**live(), **change}.items() if values is not None}
    with pytest.raises(BadRequest, match=words):
        counted(profile, columns)


def test_another_counter_holds_rows_of_its_own(profile: Profile) -> None:
    """Rows that wait to be counted were once in memory that both wrote to."""
    first = Counter(profile)
    blocks = [next(iter(Reader(first.numeric, first.categorical).blocks(data(3, seed)))) for seed in (1, 2)]
    first.add(*blocks[0])
    second = first.empty_copy()
    second.add(*blocks[1])
    for counter, seed in ((first, 1), (second, 2)):
        actual = WindowCounts(counter).window(3, datetime.now(UTC)).counts
        for name, expected in plain_counts(profile, data(3, seed)).items():
            np.testing.assert_array_equal(actual[name], expected)
