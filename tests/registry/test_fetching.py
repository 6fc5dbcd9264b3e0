import os
from pathlib import Path

import pytest
from onnx_models import scale

from driftline.errors import BadRequest, NotFound
from driftline.registry.fetching import fetch, parse
from driftline.registry.source import Reference, Registry


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ("models:/flights", Reference("flights")),
        ("models:/flights@champion", Reference("flights", alias="champion")),
        ("models:/flights/3", Reference("flights", version=3)),
        ("flights@champion", Reference("flights", alias="champion")),
        ("flights:3", Reference("flights", version=3)),
    ],
)
def test_what_mlflow_writes_is_read(source: str, reference: Reference) -> None:
    assert parse(source) == reference


@pytest.mark.parametrize(
    "source", ["models:/", "models:/flights/Production", "models:/a/b/1", "models:/m-12ab"]
)
def test_what_names_no_version_is_refused(source: str) -> None:
    with pytest.raises(BadRequest):
        parse(source)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    registry = Registry.open(tmp_path / "models")
    for factor, more in ((2.0, ["profile.arrow"]), (3.0, [])):
        files = [scale(tmp_path / "some.onnx", factor)]
        for name in more:
            (tmp_path / name).write_bytes(b"more")
            files.append(tmp_path / name)
        registry.register(files, "flights")
    return tmp_path / "models"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_version_comes_whole_and_nothing_stays_of_another(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "mnt" / "models"
    umask = os.umask(0o077)
    try:
        assert fetch(str(models), "models:/flights/1", folder).number == 1
    finally:
        os.umask(umask)
    assert names(folder) == ["model.onnx", "profile.arrow"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()} == {0o644}
    assert folder.stat().st_mode & 0o777 == 0o755
    assert fetch(str(models), "models:/flights", folder).number == 2
    assert names(folder) == ["model.onnx"]
    assert (folder / "model.onnx").read_bytes() == (models / "flights/2/model.onnx").read_bytes()


def test_what_cannot_be_found_leaves_what_was_there(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "mnt"
    fetch(str(models), "models:/flights/1", folder)
    with pytest.raises(NotFound, match="champion"):
        fetch(str(models), "models:/flights@champion", folder)
    assert names(folder) == ["model.onnx", "profile.arrow"]


def test_what_others_have_put_there_is_never_removed(tmp_path: Path, models: Path) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / "precious").touch()
    with pytest.raises(BadRequest, match="precious"):
        fetch(str(models), "models:/flights", tmp_path / "mnt")
    assert names(tmp_path / "mnt") == ["precious"]
