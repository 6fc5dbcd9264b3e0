import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest, NotFound
from driftline.registry.directory import DirectoryRegistry
from driftline.registry.source import (
    NAME,
    Reference,
    Registry,
    Version,
    check_alias,
    check_name,
    parse_version,
)

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,9}", fullmatch=True)
numbers = st.integers(min_value=1, max_value=10**18 - 1)


@given(
    st.builds(Reference, names)
    | st.builds(Reference, names, alias=names)
    | st.builds(Reference, names, version=numbers)
)
def test_a_reference_reads_back_from_its_text(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@given(st.text())
def test_any_text_is_a_reference_or_a_bad_request(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except BadRequest:
        return
    assert NAME.fullmatch(reference.name)
    assert reference.alias is None or reference.version is None


@pytest.mark.parametrize(
    "text", ["", "@production", ":1", "flights@", "flights:", "flights:0", "flights:-1", "flights:1.0"]
)
def test_a_half_reference_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="expected"):
        Reference.parse(text)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-flag", "a/b", "a b", "a\n", "é", "x" * 201])
def test_a_name_that_is_no_folder_or_part_of_a_url_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="alias"):
        check_name(name, "alias")


@pytest.mark.parametrize("text", ["./lr.joblib", "models/flights.onnx", "/tmp/model.onnx"])
def test_a_path_is_no_reference(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Reference.parse(text)
    assert str(caught.value) == (
        f"{text}: expected a model's name, or the path of an .onnx file that is there; "
        "`driftline convert` makes one of other libraries' models"
    )


@pytest.mark.parametrize("alias", ["3", "0", "v1", "V20", "a b/", ""])
def test_an_alias_that_reads_as_a_version_is_not_set(alias: str) -> None:
    with pytest.raises(BadRequest, match=f"alias '{alias}': expected"):
        check_alias(alias)
    assert check_alias("champion-2") == "champion-2"


@given(st.text())
def test_a_version_number_is_ascii_digits_from_one(text: str) -> None:
    try:
        number = parse_version(text)
    except BadRequest:
        return
    assert text.isascii()
    assert text.lstrip("0") == str(number)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_opens_as_a_registry(form: str, tmp_path: Path) -> None:
    registry = Registry.open(form.format(tmp_path))
    assert isinstance(registry, DirectoryRegistry)
    assert registry.root == tmp_path


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(BadRequest, match="'s3'"):
        Registry.open("s3://bucket/models")


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    model = tmp_path / "flights.onnx"
    model.write_bytes(b"onnx")
    registry = DirectoryRegistry(tmp_path / "models")
    for _ in range(3):
        registry.register([model], "flights")
    return registry


def number(registry: Registry, text: str) -> int:
    return registry.resolve(text).number


def test_resolve_follows_version_alias_production_and_newest(registry: DirectoryRegistry) -> None:
    assert number(registry, "flights") == 3
    registry.promote("flights", 2)
    registry.promote("flights", 1, "champion")
    assert number(registry, "flights") == 2
    assert number(registry, "flights@production") == 2
    assert number(registry, "flights@champion") == 1
    assert number(registry, "flights:3") == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trains", "no model 'trains' .* there are: flights"),
        ("trains@champion", "no model 'trains' .* there are: flights"),
        ("flights@champion", "no alias 'champion'; it has: best, production"),
        ("flights:4", "no version 4; it has: 1, 3"),
        ("flights", "alias 'production' points at version 2, which is gone; there are: 1, 3"),
        ("flights@production", "alias 'production' points at version 2, which is gone; there are: 1, 3"),
    ],
)
def test_resolve_says_what_there_is_instead(registry: DirectoryRegistry, text: str, message: str) -> None:
    registry.promote("flights", 2)
    registry.promote("flights", 1, "best")
    (registry.root / "flights" / "2" / "model.onnx").unlink()
    (registry.root / "flights" / "2").rmdir()
    with pytest.raises(NotFound, match=message):
        registry.resolve(Reference.parse(text))


def test_resolve_never_sees_a_new_alias_without_its_version(tmp_path: Path) -> None:
    class Busy(DirectoryRegistry):
        """Someone else registers and promotes whenever this one has read anything."""

        def publish(self) -> None:
            DirectoryRegistry(self.root).promote(
                "flights", DirectoryRegistry(self.root).register([model], "flights").number
            )

        def aliases(self, name: str) -> dict[str, int]:
            found = super().aliases(name)
            self.publish()
            return found

        def versions(self, name: str) -> list[Version]:
            found = DirectoryRegistry(self.root).versions(name)
            self.publish()
            return found

    model = tmp_path / "model.onnx"
    model.write_bytes(b"onnx")
    registry = Busy(tmp_path / "models")
    registry.publish()
    assert number(registry, "flights") == 1
    assert number(registry, "flights@production") == 3


def test_created_is_when_it_was_registered(registry: DirectoryRegistry) -> None:
    for version in registry.versions("flights"):
        assert time.time() - 600 < version.created < time.time() + 600
