"""Profiles: fitted, saved, loaded, merged, checked against a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from driftline.errors import BadRequest
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference import fitting
from driftline.monitor.reference.column import Categorical, Numeric
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reference.ranks import CUTS, cut_ranks
from driftline.tensors import DATATYPES, Signature, TensorSpec
from driftline_kernels import rows

ROWS = 4_000


def data(rows: int = ROWS, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    holes = random.standard_normal(rows)
    holes[random.random(rows) < 0.1] = np.nan
    return {
        "normal": random.standard_normal(rows).astype(np.float32),
        "heavy": random.standard_cauchy(rows),
        "tied": random.poisson(2.0, rows).astype(np.float32),
        "holes": holes,
        "constant": np.full(rows, 7.0),
        "infinite": np.where(random.random(rows) < 0.05, np.inf, random.standard_normal(rows)),
        "place": random.choice(["EWR", "JFK", "LGA"], rows),
        "tail": random.zipf(1.7, rows).astype(str),
        "weekday": random.integers(0, 7, rows),
        "distance": random.integers(0, 3000, rows),
        "late": random.random(rows) < 0.2,
    }


@pytest.fixture(scope="module")
def profile() -> Profile:
    return Profile.fit(data())


def test_types_are_inferred_by_the_rule(profile: Profile) -> None:
    kinds = {one.name: one.kind if isinstance(one, Categorical) else "numeric" for one in profile.references}
    assert kinds == {
        **dict.fromkeys(("normal", "heavy", "tied", "holes", "constant", "infinite", "distance"), "numeric"),
        **dict.fromkeys(("place", "tail"), "string"),
        "weekday": "integer",
        "late": "boolean",
    }
    forced = Profile.fit({"weekday": data()["weekday"]}, kinds={"weekday": "numeric"})
    assert isinstance(forced["weekday"], Numeric)


@pytest.mark.parametrize("name", ["normal", "heavy", "tied", "holes", "constant", "infinite", "distance"])
def test_numeric_bins_hold_what_they_say(profile: Profile, name: str) -> None:
    reference, values = profile[name], data()[name].astype(np.float32)
    assert isinstance(reference, Numeric)
    finite = values[np.isfinite(values)]
    inner = np.bincount(
        np.searchsorted(reference.edges, finite, side="right"), minlength=len(reference.edges) + 1
    )
    special = [np.isnan(values).sum(), np.isposinf(values).sum(), np.isneginf(values).sum()]
    np.testing.assert_array_equal(reference.counts, [*inner, *special])
    assert reference.rows == ROWS
    assert reference.mean == pytest.approx(finite.mean(dtype=np.float64), rel=1e-6)
    assert reference.sd == pytest.approx(finite.std(dtype=np.float64), rel=1e-6)
    assert (reference.minimum, reference.maximum) == (finite.min(), finite.max())
    assert (np.diff(reference.edges) > 0).all()


def test_bins_of_a_continuous_column_hold_equal_shares(profile: Profile) -> None:
    counts = profile["normal"].counts
    assert set(counts[1:33]) <= {ROWS // 32 - 1, ROWS // 32, ROWS // 32 + 1}
    assert counts[0] == counts[33] == 0  # below the least, above the greatest


def test_a_value_that_repeats_has_a_bin_of_its_own(profile: Profile) -> None:
    reference, values = profile["tied"], data()["tied"]
    assert isinstance(reference, Numeric)
    for value in (0, 1, 2, 3, 4):
        bin_ = int(np.searchsorted(reference.edges, np.float32(value), side="right"))
        assert reference.edges[bin_ - 1] == value
        assert reference.edges[bin_] == np.nextafter(np.float32(value), np.float32(np.inf))
        assert reference.counts[bin_] == (values == value).sum()


def test_the_reference_itself_has_the_rank_bins_it_was_cut_into(profile: Profile) -> None:
    ranks = [0, *cut_ranks(ROWS), ROWS, ROWS + 1]
    for reference in profile.references:
        m = reference.rows
        np.testing.assert_allclose(reference.split.sum(axis=1), 1)
        assert reference.gaps.sum() == pytest.approx(m + 1)
        if m == ROWS:
            np.testing.assert_array_equal(reference.gaps, np.diff(ranks))
        # A cut within equal rows is a Beta draw, some standard deviations from where it is expected.
        spread = np.sqrt(m) if reference.name != "normal" else 1
        np.testing.assert_allclose(
            np.cumsum(reference.counts @ reference.split), np.cumsum(reference.gaps), atol=4 * spread + 1
        )


def test_a_closed_set_of_categories_counts_all_rows(profile: Profile) -> None:
    reference, values = profile["place"], data()["place"]
    assert isinstance(reference, Categorical)
    assert reference.categories == ("EWR", "JFK", "LGA")
    np.testing.assert_array_equal(
        reference.counts[:3], [(values == name).sum() for name in reference.categories]
    )
    assert list(reference.counts[3:]) == [0, 0]
    assert reference.split[reference.unseen, CUTS] == 1


def test_a_long_tail_is_named_by_one_half_and_counted_in_the_other(profile: Profile) -> None:
    reference, values = profile["tail"], data()["tail"]
    assert isinstance(reference, Categorical)
    # Of each pair one names and one is counted, and every value that is not counted has named.
    unseen = int(reference.counts[reference.unseen])
    assert unseen > 0
    assert set(reference.categories) < set(values)
    for value, counted in zip(reference.categories, reference.counts.tolist(), strict=False):
        assert counted < (values == value).sum()
    assert reference.rows == len(values) // 2


def test_a_saved_profile_is_the_same(profile: Profile, tmp_path: Path) -> None:
    profile.save(tmp_path / "profile.arrow")
    loaded = Profile.load(tmp_path / "profile.arrow")
    assert loaded.names == profile.names
    for reference, loaded_reference in zip(profile.references, loaded.references, strict=True):
        for field in ("counts", "split", "gaps"):
            np.testing.assert_array_equal(getattr(reference, field), getattr(loaded_reference, field))
        if isinstance(reference, Numeric):
            assert isinstance(loaded_reference, Numeric)
            np.testing.assert_array_equal(reference.edges, loaded_reference.edges)
    assert loaded.whole.names == profile.whole.names
    for field in ("scaling", "features", "comoments"):
        np.testing.assert_array_equal(getattr(profile.whole, field), getattr(loaded.whole, field))
    assert [path.name for path in tmp_path.iterdir()] == ["profile.arrow"]


def test_a_file_that_is_no_profile_or_from_the_future_is_refused(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "profile.arrow"
    path.write_bytes(b"garbage")
    with pytest.raises(BadRequest, match=r"profile\.arrow: expected a profile"):
        Profile.load(path)
    profile.save(path)
    table = pa.ipc.open_file(path).read_all()
    head = table.schema.metadata[b"driftline.profile"].replace(b'"format": 2', b'"format": 3')
    newer = table.replace_schema_metadata({**table.schema.metadata, b"driftline.profile": head})
    with pa.ipc.new_file(path, newer.schema) as writer:
        writer.write_table(newer)
    with pytest.raises(BadRequest, match="a profile of format 3; this driftline reads up to format 2"):
        Profile.load(path)


def test_a_file_of_the_first_format_is_read(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "profile.arrow"
    profile.save(path)
    table = pa.ipc.open_file(path).read_all().drop_columns(["source"])
    head = table.schema.metadata[b"driftline.profile"].replace(b'"format": 2', b'"format": 1')
    older = table.replace_schema_metadata({**table.schema.metadata, b"driftline.profile": head})
    with pa.ipc.new_file(path, older.schema) as writer:
        writer.write_table(older)
    assert Profile.load(path).fingerprint == profile.fingerprint


def test_columns_of_a_matrix_can_have_names(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        np.random.default_rng(0).random((300, 3), np.float32), columns=["age", "rooms", "price"]
    )
    matrix = frame.to_numpy()
    names = {"x": frame.columns}
    Profile.fit({"x": matrix, "y": matrix[:, 0]}, {"x_1": "numeric"}, names).save(tmp_path / "profile.arrow")
    profile = Profile.load(tmp_path / "profile.arrow")
    assert profile.names == ("age", "rooms", "price", "y")
    assert profile.whole.names == profile.names
    assert [one.source for one in profile.references] == ["x_0", "x_1", "x_2", "y"]
    plain = Profile.fit({"x": matrix, "y": matrix[:, 0]})
    assert profile.fingerprint != plain.fingerprint
    live = {"x": matrix[:200] + 1, "y": matrix[:200, 1]}
    reports = []
    for reference, columns in (
        (plain, live),
        (profile, live),
        (profile, (frame[:200] + 1).assign(y=live["y"])),
    ):
        monitor = Monitor(reference)
        monitor.observe(columns)
        reports.append(monitor.report())
    assert [one.name for one in reports[1].columns] == ["age", "rooms", "price", "y"]
    for one, two, three in zip(*(found.columns for found in reports), strict=True):
        assert one.statistics == two.statistics == three.statistics


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"x": ["a", "b"]}, "names of 'x': expected 3, got 2"),
        ({"x": ["a", "b", "c", "d"]}, "names of 'x': expected 3, got 4"),
        ({"z": ["a", "b"]}, "names of 'z': expected 0, got 2"),
        ({"x": ["a", "b", "y"]}, "column 'y': expected one of this name, there would be several"),
    ],
)
def test_names_that_do_not_fit_are_refused(names: dict[str, list[str]], message: str) -> None:
    rows = np.random.default_rng(0).random((200, 3))
    with pytest.raises(BadRequest, match=message):
        Profile.fit({"x": rows, "y": rows[:, 0]}, names=names)


def test_every_form_of_data_gives_the_same_profile() -> None:
    columns = {name: values for name, values in data(500).items() if name != "late"}
    table = pa.table({name: pa.array(values, from_pandas=False) for name, values in columns.items()})
    profiles = [Profile.fit(form) for form in (columns, table, table.to_batches()[0], pd.DataFrame(columns))]
    for other in profiles[1:]:
        assert other.names == profiles[0].names
        for one, two in zip(profiles[0].references, other.references, strict=True):
            np.testing.assert_array_equal(one.counts, two.counts)


def test_a_matrix_under_one_name_is_its_columns() -> None:
    matrix = np.random.default_rng(0).standard_normal((200, 3))
    assert Profile.fit({"input": matrix}).names == ("input_0", "input_1", "input_2")


def test_batches_are_sketched_within_their_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [data(50_000, seed) for seed in range(4)]
    monkeypatch.setattr(fitting, "MAX_BYTES", 1000)
    profile = Profile.fit_batches(batches)
    everything = np.concatenate([batch["normal"] for batch in batches])
    reference = profile["normal"]
    assert isinstance(reference, Numeric)
    exact = np.bincount(
        np.searchsorted(reference.edges, everything, side="right"), minlength=len(reference.counts)
    )
    assert np.abs(np.cumsum(reference.counts) - np.cumsum(exact)).max() <= 0.0015 * len(everything)
    assert profile["place"].rows == len(everything)
    tied = profile["tied"]
    assert isinstance(tied, Numeric)
    assert {0.0, 1.0, 2.0, 3.0} <= set(tied.edges.tolist())


def test_a_profile_of_partitions_is_that_of_all_their_rows() -> None:
    days = [data(1_000, seed) for seed in range(3)]
    everything = {name: np.concatenate([day[name] for day in days]) for name in days[0]}
    for one, two in zip(
        Profile.fit_batches(days).references, Profile.fit(everything).references, strict=True
    ):
        assert one.name == two.name
        np.testing.assert_array_equal(one.counts, two.counts)
        np.testing.assert_array_equal(one.split, two.split)


def test_an_empty_profile_has_columns_and_no_rows(tmp_path: Path) -> None:
    kinds = {"x": "numeric", "place": "string", "code": "integer", "late": "boolean"}
    profile = Profile.empty(kinds)
    profile.save(tmp_path / "profile.arrow")
    for one in (profile, Profile.load(tmp_path / "profile.arrow")):
        assert (one.names, one.rows) == (tuple(kinds), 0)
        assert [reference.counts.tolist() for reference in one.references] == [[0, 0, 0, 0], *([[0, 0]] * 3)]
        state = one.whole.state(one.whole.tables(np.empty((1, 0), np.float32)))
        rows.observe(np.array([[1], [np.nan], [3]], np.float32), state)
        assert state.counts.tolist() == [[2, 1, 0, 0]]
        assert state.moments.tolist() == [[2, 2, 2, 1, 3]]


def test_a_profile_shows_itself(profile: Profile) -> None:
    names = "normal, heavy, tied, holes, constant, infinite, ..."
    assert repr(profile) == f"Profile(4,000 rows: {names})"
    text = StringIO()
    Console(file=text, width=120).print(profile)
    lines = {line.split()[0]: line for line in text.getvalue().splitlines()}
    assert "always 7" in lines["constant"]
    assert f"{np.isnan(data()['holes']).mean():.1%}" in lines["holes"]
    assert "infinite" in lines["infinite"]
    assert "EWR 3" in lines["place"]
    page = Profile.fit({"<b>": np.array(["&", "x"] * 100)})._repr_html_()
    assert "&lt;b&gt;" in page
    assert "&amp; 50%" in page
    odd = Profile.fit({"x": np.array(["two\nlines", ""] * 100)})
    assert str(odd).splitlines()[-1].endswith(r"'' 50%, 'two\nlines' 50%")
    ways = re.findall(r"<t[hd] style=\"[^\"]*text-align:(\w+)", page)
    assert ways == 2 * ["left", "left", "right", "right", "left"]


def test_what_cannot_be_profiled_is_named() -> None:
    with pytest.raises(BadRequest, match="column 'a': expected one or two dimensions"):
        Profile.fit({"a": np.zeros((2, 2, 2))})
    with pytest.raises(BadRequest, match="expected columns of one length"):
        Profile.fit({"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(BadRequest, match="expected columns with rows, got none"):
        Profile.fit({"a": np.zeros(0)})
    with pytest.raises(BadRequest, match="column 'a': expected numbers, got strings"):
        Profile.fit({"a": np.array(["x"] * 100)}, kinds={"a": "numeric"})
    with pytest.raises(BadRequest, match="column 'z' as 'numeric'"):
        Profile.fit({"a": np.zeros(100)}, kinds={"z": "numeric"})
    with pytest.raises(BadRequest, match="column 'a': expected numbers as before, got strings"):
        Profile.fit_batches([{"a": np.zeros(100)}, {"a": np.array(["x"])}])
    with pytest.raises(BadRequest, match="got more or fewer: b"):
        Profile.fit_batches([{"a": np.zeros(100)}, {"a": np.zeros(1), "b": np.zeros(1)}])


def test_few_rows_and_odd_columns_are_allowed_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="a profile of 3 rows is weak"):
        profile = Profile.fit({"x": np.array([1.0, np.nan, 3.0]), "missing": np.full(3, np.nan)})
    assert profile["missing"].counts.sum() == 3
    for reference in profile.references:
        assert np.isfinite(reference.split).all()
        assert reference.gaps.sum() == pytest.approx(4, abs=1e-6)


def test_a_profile_is_checked_against_a_signature() -> None:
    profile = Profile.fit(
        {"x_0": np.arange(200.0), "x_1": np.arange(200.0), "place": np.array(["a", "b"] * 100)}
    )
    numbers = TensorSpec("x", DATATYPES["FP32"], (-1, 2))
    place = TensorSpec("place", DATATYPES["BYTES"], (-1,))
    profile.validate(Signature((numbers, place), (), batched=True))
    profile.validate(Signature((place,), (TensorSpec("x", DATATYPES["FP32"], (-1, -1)),), batched=True))
    with pytest.raises(BadRequest, match="column 'x_0': the model has no such column; it has: x, place"):
        profile.validate(Signature((TensorSpec("x", DATATYPES["FP32"], (-1, 1)), place), (), batched=True))
    with pytest.raises(BadRequest, match="column 'x_0': the model has strings, the profile numbers"):
        profile.validate(Signature((TensorSpec("x", DATATYPES["BYTES"], (-1, 2)), place), (), batched=True))


@pytest.mark.parametrize(
    ("names", "good"),
    [("ab", True), ("ba", False), ("bz", False), ("az", True), ("xy", True), (("x_0", "x_1"), True)],
)
def test_a_profile_has_no_column_where_the_model_has_another(names: Sequence[str], good: bool) -> None:
    profile = Profile.fit({"x": np.zeros((200, 2)), "b_y": np.zeros(200)}, names={"x": names})
    matrix = TensorSpec("x", DATATYPES["FP32"], (-1, 2), column_names=("a", "b"))
    model = Signature((matrix,), (TensorSpec("b_y", DATATYPES["FP32"], (-1,)),), batched=True)
    if good:
        profile.validate(model)
    else:
        with pytest.raises(BadRequest, match=r"^column 'x_0': the model calls it 'a', the profile 'b', "):
            profile.validate(model)


def test_a_dataset_is_read_batch_by_batch(tmp_path: Path) -> None:
    table = pa.table({"a": np.arange(200.0)})
    for part in range(2):
        pq.write_table(table.slice(100 * part, 100), tmp_path / f"{part}.parquet")
    folder = ds.dataset(tmp_path)
    whole = Profile.fit(table).fingerprint
    assert Profile.fit_batches(folder).fingerprint == whole
    assert Profile.fit_batches(folder.scanner()).fingerprint == whole
    assert Profile.fit_batches(table).fingerprint == whole


@pytest.mark.parametrize("data", [pd.DataFrame({"a": [1.0]}), {"a": [1.0]}, "training.parquet", 1])
def test_one_table_is_no_batches(data: object) -> None:
    with pytest.raises(BadRequest, match="batches: expected tables, one after the other, got one"):
        Profile.fit_batches(data)
