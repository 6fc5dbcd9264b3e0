"""Settings put into files that people wrote."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from driftline.errors import ConfigError
from driftline.load.toml import Edit

TABLES = {"batching": {"max_batch_rows": 64}, "engine": {"instances": 2, "threads": 1}}


def edited(path: Path, text: str, name: str = "m") -> str:
    path.write_text(text)
    Edit(path, name).write(TABLES)
    return path.read_text()


def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    path = tmp_path / "driftline.toml"
    Edit(path, "my.model").write(TABLES)
    assert tomllib.loads(path.read_text()) == {"models": {"my.model": TABLES}}
    assert list(tmp_path.iterdir()) == [path]


def test_all_else_stays_to_the_letter(tmp_path: Path) -> None:
    before = (
        "# ours\n[server]\nport = 9000  # why\n\n"
        "[models.m.batching] # of m\nmax_delay_us = 100\nmax_batch_rows = 8   # a few\n\n"
        "[models.n.engine]\ninstances = 3\n"
    )
    after = edited(tmp_path / "driftline.toml", before)
    assert after == (
        "# ours\n[server]\nport = 9000  # why\n\n"
        "[models.m.batching] # of m\nmax_delay_us = 100\nmax_batch_rows = 64   # a few\n\n"
        "[models.n.engine]\ninstances = 3\n\n"
        "[models.m.engine]\ninstances = 2\nthreads = 1\n"
    )


@pytest.mark.parametrize(
    "before",
    [
        "[models.m.engine]\nthreads=4",
        '[ models . "m" . engine ]\n# instances = 9\n  instances\t= 9\n[server]\nport = 1\n',
        "[models.m.batching]\n",
        "[models.mm.engine]\ninstances = 1\n[models.m.monitor]\nenabled = false\n",
    ],
)
def test_ways_to_write_it(tmp_path: Path, before: str) -> None:
    wanted = tomllib.loads(before)
    for table, values in TABLES.items():
        wanted["models"]["m"].setdefault(table, {}).update(values)
    assert tomllib.loads(edited(tmp_path / "driftline.toml", before)) == wanted


@pytest.mark.parametrize(
    "before",
    [
        "models = {m = {engine = {instances = 9}}}\n",
        "[models]\nm.engine.instances = 9\n",
        "[models.m]\nengine = {instances = 9}\n",
        "[models.m]\n[models.m.monitor]\nhistory = '''\n[models.m.engine]\n'''\n",
    ],
)
def test_what_can_not_be_changed_safely_is_refused_before_anything_is_measured(
    tmp_path: Path, before: str
) -> None:
    path = tmp_path / "driftline.toml"
    path.write_text(before)
    with pytest.raises(ConfigError, match="can't be changed without losing what is in it"):
        Edit(path, "m")
    assert path.read_text() == before


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "driftline.toml"
    path.write_text("[tool]\nx = 1\n")
    with pytest.raises(ConfigError, match="tool = "):
        Edit(path, "m")
