from pathlib import Path

import pytest
from onnx_models import scale

from driftline.engine.bundle import Bundle
from driftline.errors import BadRequest, NotFound, RegistryError
from driftline.registry.folder import FolderRegistry, mounted
from driftline.registry.source import Reference, Registry


def test_a_folder_is_a_model_with_one_version(tmp_path: Path) -> None:
    scale(tmp_path / "model.onnx", 2.0)
    registry = FolderRegistry(tmp_path, "flights")
    assert registry.models() == ["flights"]
    version = registry.resolve(Reference.parse("flights"))
    assert (version.number, version.aliases) == (1, ())
    assert registry.fetch(version) == tmp_path
    with pytest.raises(NotFound, match="flights"):
        registry.resolve(Reference.parse("trains"))


def test_what_is_added_or_written_anew_is_a_changed_version(tmp_path: Path) -> None:
    scale(tmp_path / "model.onnx", 2.0)
    registry = FolderRegistry(tmp_path, "flights")
    seen = [registry.resolve(Reference("flights"))]
    (tmp_path / "profile.arrow").write_bytes(b"arrow")
    seen.append(registry.resolve(Reference("flights")))
    (tmp_path / "profile.arrow").write_bytes(b"another")
    seen.append(registry.resolve(Reference("flights")))
    (tmp_path / "profile.arrow").unlink()
    seen.append(registry.resolve(Reference("flights")))
    assert len({version.fingerprint for version in seen}) == 3
    assert seen[0] == seen[3]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "nowhere", "flights")
    with pytest.raises(RegistryError, match="nowhere can't be read"):
        registry.models()
    with pytest.raises(BadRequest, match="model name"):
        FolderRegistry(tmp_path, "../flights")


@pytest.mark.parametrize("name", ["model.onnx", "flights-v7.onnx"])
def test_kserve_may_mount_a_file_of_any_name(tmp_path: Path, name: str) -> None:
    scale(tmp_path / name, 2.0)
    (tmp_path / "flights").mkdir()
    registry = mounted(tmp_path, "flights")
    folder = registry.fetch(registry.resolve(Reference("flights")))
    assert Bundle.open(folder).model == tmp_path / name


def test_it_may_mount_a_registry(tmp_path: Path) -> None:
    made = Registry.open(tmp_path / "models")
    for factor in (2.0, 3.0):
        made.register([scale(tmp_path / "some.onnx", factor)], "flights")
    made.promote("flights", 1)
    assert mounted(tmp_path / "models", "flights").resolve(Reference("flights")).number == 1
