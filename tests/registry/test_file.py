import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest, NotFound, RegistryError
from driftline.registry.file import FileRegistry
from driftline.registry.source import NAME, Reference


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flights.onnx"
    path.write_bytes(b"onnx")
    return path


def test_a_file_is_a_model_with_one_version(path: Path) -> None:
    registry = FileRegistry(path)
    assert registry.models() == ["flights"]
    assert registry.aliases("flights") == {}
    (version,) = registry.versions("flights")
    assert (version.number, version.aliases) == (1, ())
    assert registry.resolve(Reference.parse("flights")) == version
    assert registry.resolve(Reference.parse("flights:1")) == version
    assert registry.fetch(version) == path


@pytest.mark.parametrize("text", ["trains", "flights@production", "flights:2"])
def test_nothing_else_is_found(path: Path, text: str) -> None:
    with pytest.raises(NotFound, match="flights"):
        FileRegistry(path).resolve(Reference.parse(text))


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_every_file_name_gives_a_legal_model_name(stem: str) -> None:
    assert NAME.fullmatch(FileRegistry(Path(f"{stem}.onnx")).name)


def test_the_name_stays_readable() -> None:
    assert FileRegistry(Path("my model (2).onnx")).name == "my_model__2_"
    assert FileRegistry(Path("-v1.2.onnx")).name == "_v1.2"


def test_a_changed_file_is_a_changed_version(path: Path) -> None:
    registry = FileRegistry(path)
    reference = Reference("flights")
    seen = [registry.resolve(reference)]

    path.write_bytes(b"longer")
    seen.append(registry.resolve(reference))

    os.utime(path, ns=(1, 1))
    seen.append(registry.resolve(reference))

    replacement = path.with_suffix(".new")
    replacement.write_bytes(b"length")
    os.utime(replacement, ns=(1, 1))
    replacement.replace(path)
    seen.append(registry.resolve(reference))

    assert len(set(seen)) == 4
    assert registry.resolve(reference) == seen[-1]


def test_a_missing_file_is_said_by_its_path(path: Path) -> None:
    registry = FileRegistry(path)
    (version,) = registry.versions("flights")
    path.unlink()
    with pytest.raises(RegistryError, match=r"flights\.onnx can't be read: No such file"):
        registry.models()
    with pytest.raises(NotFound, match=r"flights\.onnx is gone"):
        registry.fetch(version)


def test_nothing_can_be_registered_into_a_file(path: Path) -> None:
    registry = FileRegistry(path)
    with pytest.raises(BadRequest, match="got a single file"):
        registry.register([path], "flights")
    with pytest.raises(BadRequest, match="got a single file"):
        registry.promote("flights", 1)
