"""Profiles of files, as the command makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from onnx_models import identity, save_model, scale, with_transform

import driftline
from driftline.cli import main
from driftline.engine.model import Model
from driftline.monitor.reference.column import Categorical, Numeric
from driftline.monitor.reference.profile import Profile
from driftline.tables import BATCH_ROWS

WRITE = {
    ".parquet": pa.parquet.write_table,
    ".csv": pa.csv.write_csv,
    ".arrow": pa.feather.write_feather,
}


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["profile", *map(str, arguments)])


def flights(rows: int = 1_000) -> Any:
    random = np.random.default_rng(0)
    delay = random.normal(10, 30, rows).astype(np.float32)
    return pa.table(
        {
            "delay": pa.array(delay, mask=random.random(rows) < 0.1),
            "place": random.choice(["EWR", "JFK", "LGA"], rows),
            "late": delay > 30,
            "month": random.integers(1, 13, rows),
        }
    )


@pytest.mark.parametrize("ending", WRITE)
def test_every_format_gives_the_profile_of_the_table(tmp_path: Path, ending: str) -> None:
    table = flights()
    data, output = tmp_path / f"data{ending}", tmp_path / "profile.arrow"
    WRITE[ending](table, data)
    result = command(data, "-o", output)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["column", "kind", "rows", "missing", "values"]
    assert lines[2][:4] == ["delay", "numeric", "1,000", f"{table['delay'].null_count / 10:.1f}%"]
    assert [line[:3] for line in lines[3:6]] == [
        ["place", "string", "1,000"],
        ["late", "boolean", "1,000"],
        ["month", "integer", "1,000"],
    ]
    assert result.stdout.endswith(f"the profile of 1000 rows and 4 columns is in {output}\n")
    expected, actual = Profile.fit(table), Profile.load(output)
    for one, two in zip(expected.references, actual.references, strict=True):
        np.testing.assert_array_equal(one.counts, two.counts)
        np.testing.assert_array_equal(one.gaps, two.gaps)


def test_a_folder_is_its_files_together(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    table = flights(2 * BATCH_ROWS)
    for index, start in enumerate((0, 1000, BATCH_ROWS)):
        stop = (1000, BATCH_ROWS, table.num_rows)[index]
        pa.parquet.write_table(table.slice(start, stop - start), folder / f"{index}.parquet")
    assert command(folder, "-o", tmp_path / "profile.arrow").exit_code == 0
    actual = Profile.load(tmp_path / "profile.arrow")
    assert actual.rows == table.num_rows
    np.testing.assert_array_equal(actual["delay"].counts, Profile.fit(table)["delay"].counts)


def test_columns_and_kinds_can_be_chosen(tmp_path: Path) -> None:
    data, output = tmp_path / "data.parquet", tmp_path / "profile.arrow"
    pa.parquet.write_table(flights(), data)
    chosen = ("--column", "month", "--column", "late", "--numeric", "month", "--numeric", "late")
    assert command(data, "-o", output, *chosen).exit_code == 0
    profile = Profile.load(output)
    assert profile.names == ("late", "month")
    assert all(isinstance(reference, Numeric) for reference in profile.references)
    assert command(data, "-o", output, "--column", "month", "--categorical", "month").exit_code == 0
    assert isinstance(Profile.load(output)["month"], Categorical)


@pytest.mark.parametrize("names", ["abc", ["x_0", "x_1", "x_2"]])
def test_a_models_inputs_and_outputs_are_profiled(tmp_path: Path, names: list[str]) -> None:
    model, data, output = (
        scale(tmp_path / "double.onnx", 2.0),
        tmp_path / "data.csv",
        tmp_path / "profile.arrow",
    )
    values = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
    table = {"label": np.arange(500), **dict(zip(names, values.T, strict=True))}
    pa.csv.write_csv(pa.table(table), data)
    columns = [part for name in names for part in ("--column", name)]
    assert command(data, "-o", output, "--model", model, *columns).exit_code == 0
    profile = Profile.load(output)
    assert profile.names == (*names, "y_0", "y_1", "y_2", "total")
    profile.validate(Model.load(model).signature)
    expected = {"x": values, "y": 2 * values, "total": (2 * values).sum(axis=1)}
    for one, same in zip(Profile.fit(expected).references, profile.references, strict=True):
        assert one.source == same.source
        np.testing.assert_array_equal(one.counts, same.counts)


def test_columns_of_a_matrix_have_the_names_of_the_data(tmp_path: Path) -> None:
    model = scale(tmp_path / "double.onnx", 2.0)
    data, output = tmp_path / "data.csv", tmp_path / "profile.arrow"
    rows = np.random.default_rng(0).integers(0, 50, (500, 3)).astype(np.float32)
    pa.csv.write_csv(pa.table(dict(zip(["age", "rooms", "y_5"], rows.T, strict=True))), data)
    assert command(data, "-o", output, "--model", model).exit_code == 0
    assert Profile.load(output).names[:3] == ("x_0", "x_1", "x_2")  # an output could be called y_5
    pa.csv.write_csv(pa.table(dict(zip(["age", "rooms", "floor"], rows.T, strict=True))), data)
    assert command(data, "-o", output, "--model", model, "--categorical", "rooms").exit_code == 0
    profile = Profile.load(output)
    assert profile.names[:3] == ("age", "rooms", "floor")
    assert isinstance(profile["rooms"], Categorical)


def test_tensors_of_many_dimensions_are_left_out(tmp_path: Path) -> None:
    import onnx

    kind = onnx.TensorProto.FLOAT
    cube = onnx.helper.make_node("Reshape", ["x", "shape"], ["cube"])
    total = onnx.helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0)
    outputs = {"cube": (kind, ("N", 2, 2)), "total": (kind, ("N",))}
    constants = {"shape": np.array([-1, 2, 2]), "axes": np.array([1])}
    model = save_model(tmp_path / "m.onnx", [cube, total], {"x": (kind, ("N", 4))}, outputs, constants)
    data, output = tmp_path / "data.parquet", tmp_path / "profile.arrow"
    pa.parquet.write_table(pa.table({name: np.arange(200.0, dtype=np.float32) for name in "abcd"}), data)
    assert command(data, "-o", output, "--model", model).exit_code == 0
    assert Profile.load(output).names == ("a", "b", "c", "d", "total")


def test_a_model_of_strings(tmp_path: Path) -> None:
    model = identity(tmp_path / "same.onnx", "BYTES", ("N",))
    data, output = tmp_path / "data.parquet", tmp_path / "profile.arrow"
    pa.parquet.write_table(pa.table({"x": ["a", "b"] * 100}), data)
    assert command(data, "-o", output, "--model", model).exit_code == 0
    assert [reference.counts.tolist() for reference in Profile.load(output).references] == [
        [100, 100, 0, 0]
    ] * 2


def test_few_rows_warn_in_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    pa.csv.write_csv(flights(50), data)
    result = command(data, "-o", tmp_path / "profile.arrow")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1].startswith("driftline: a profile of 50 rows is weak")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv", "-o", "out.arrow"], "none.csv"),
        (["data.txt", "-o", "out.arrow"], "data.txt: expected a file, or a folder of files, that end in"),
        (["data.csv", "-o", "none/out.arrow"], "expected a file in a folder, none is none"),
        (["data.csv", "-o", "out.arrow", "--column", "x"], "column 'x': there is none; the data has: delay"),
        (["data.csv", "-o", "out.arrow", "--numeric", "x"], "column 'x' as 'numeric': expected one of delay"),
        (["data.csv", "-o", "out.arrow", "--numeric", "place"], "column 'place': expected numbers"),
        (["data.csv", "-o", "out.arrow", "--categorical", "delay"], "column 'delay' as 'categorical'"),
        (
            ["data.csv", "-o", "out.arrow", "--categorical", "late", "--numeric", "late"],
            "column 'late': expected --numeric or --categorical, got both",
        ),
        (["data.csv", "-o", "out.arrow", "--model", "m"], "m"),
        (["empty.parquet", "-o", "out.arrow"], "a profile: expected columns with rows, got none"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pa.csv.write_csv(flights(), "data.csv")
    pa.parquet.write_table(flights().slice(0, 0), "empty.parquet")
    result = command(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert not Path("out.arrow").exists()


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_moments_that_a_model_takes_as_text_are_left_out(tmp_path: Path, suffix: str) -> None:
    """Each would be a category that never came before."""
    moments = np.datetime64("2026-01-01", "s") + np.arange(200) * np.timedelta64(3600, "s")
    table = pa.table({"when": moments, "x": np.arange(200) / 7, "place": ["a", "b"] * 100})
    steps = [driftline.DatePart("when", "hour"), driftline.Pass("x"), driftline.OneHot("place")]
    (tmp_path / "m").mkdir()
    model = with_transform(tmp_path / "m", driftline.Transform(steps).fit(table))
    data, output = tmp_path / f"data{suffix}", tmp_path / "profile.arrow"
    WRITE[suffix](table, data)
    result = command(data, "--model", model, "-o", output)
    assert result.exit_code == 0, result.stderr
    assert "driftline: 'when' left out: a date or time as text is new each time" in result.stderr
    assert [name for name in Profile.load(output).names if "_" not in name] == ["x", "place"]
    result = command(data, "--model", model, "-o", output, "--categorical", "when")
    assert [name for name in Profile.load(output).names if "_" not in name] == ["when", "x", "place"]
