import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from driftline.errors import BadRequest, NotFound, RegistryError
from driftline.files import MAX_BYTES
from driftline.registry.directory import DirectoryRegistry
from driftline.registry.source import Reference, Version

NAMING = "\n\x08location\x12\x11flights.onnx.data"
"""How a model names its external data."""


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    return DirectoryRegistry(tmp_path / "models")


def write(path: Path, content: str = "onnx") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def unfinished(registry: DirectoryRegistry) -> list[Path]:
    return list(registry.root.glob("*/.new-*"))


# What is registered


def test_a_single_onnx_file_becomes_model_onnx(registry: DirectoryRegistry, tmp_path: Path) -> None:
    version = registry.register([write(tmp_path / "flights.onnx", "the model")], "flights")
    assert version == Version("flights", 1, version.created, (), version.fingerprint)
    assert contents(registry.fetch(version)) == {"model.onnx": "the model"}
    assert registry.models() == ["flights"]
    assert registry.versions("flights") == [version]
    assert registry.resolve(Reference("flights")) == version
    assert unfinished(registry) == []


def test_files_beside_the_model_keep_their_names(registry: DirectoryRegistry, tmp_path: Path) -> None:
    names = ("flights.onnx", "flights.onnx.data", "transform.json", "profile.arrow", "driftline.toml")
    files = [write(tmp_path / name, name if name != "flights.onnx" else NAMING) for name in names]
    version = registry.register(files, "flights")
    assert contents(registry.fetch(version)) == {
        "model.onnx": NAMING,
        **{name: name for name in names[1:]},
    }


@pytest.mark.parametrize("name", ["flights.arrow", "bad.toml", "other.onnx", "flights.data", "Profile.arrow"])
def test_a_file_that_nobody_would_look_for_is_refused(
    registry: DirectoryRegistry, tmp_path: Path, name: str
) -> None:
    files = [write(tmp_path / "model.onnx", NAMING), write(tmp_path / name)]
    with pytest.raises(BadRequest) as caught:
        registry.register(files, "flights")
    assert str(caught.value) == (
        f"{tmp_path / name}: no file of a version is called so; expected model.onnx or one .onnx file, the "
        "external data that it names (flights.onnx.data), transform.json, profile.arrow and driftline.toml"
    )
    write(tmp_path / "model.onnx", "")
    with pytest.raises(BadRequest, match="that it names, transform"):
        registry.register(files, "flights")
    assert not registry.root.exists()
    registry.register([*files, write(tmp_path / "MLmodel")], "flights")  # which says what belongs to it


@pytest.mark.parametrize(
    "names",
    [
        ["model.onnx", "other.onnx", "profile.arrow"],
        ["model.onnx", "data/weights/0.bin", ".hidden"],
        ["model.onnx/model.onnx", "model.onnx/weights.bin"],
    ],
    ids=["two models", "nested", "as in Triton"],
)
def test_a_folder_is_copied_with_all_that_is_in_it(
    registry: DirectoryRegistry, tmp_path: Path, names: list[str]
) -> None:
    for name in names:
        write(tmp_path / "bundle" / name, name)
    version = registry.register([tmp_path / "bundle"], "flights")
    assert contents(registry.fetch(version)) == {name: name for name in names}


def test_what_a_check_refuses_leaves_nothing_and_is_said_of_the_files(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    def check(folder: Path) -> None:
        raise BadRequest(f"{folder / 'model.onnx'}: no, for {folder / 'profile.arrow'} in {folder}")

    files = [write(tmp_path / "in/flights.onnx"), write(tmp_path / "in/profile.arrow")]
    with pytest.raises(BadRequest) as caught:
        registry.register(files, "flights", check)
    assert str(caught.value) == f"{files[0]}: no, for {files[1]} in {files[0]}, {files[1]}"
    assert not registry.root.exists()
    with pytest.raises(BadRequest) as caught:
        registry.register([tmp_path / "in"], "flights", check)
    assert str(caught.value) == f"{files[0]}: no, for {files[1]} in {tmp_path / 'in'}"
    registry.register(files, "flights")
    registry.root.joinpath("made-by-hand").mkdir()
    with pytest.raises(BadRequest):
        registry.register(files, "flights", check)
    with pytest.raises(BadRequest):
        registry.register(files, "made-by-hand", check)
    assert sorted(path.name for path in registry.root.rglob("*") if path.is_dir()) == [
        "1", "flights", "made-by-hand",
    ]  # fmt: skip


def test_refusals_are_in_nobodys_way(registry: DirectoryRegistry, tmp_path: Path) -> None:
    model = write(tmp_path / "model.onnx")

    def refuse(folder: Path) -> None:
        raise BadRequest("no")

    def register(turn: int) -> int:
        if turn % 2:
            return registry.register([model], f"m{turn // 10}").number
        with pytest.raises(BadRequest):
            registry.register([model], f"m{turn // 10}", refuse)
        return 0

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(register, range(60)))
    assert sorted(numbers) == [0] * 30 + sorted([*range(1, 6)] * 6)


def test_a_version_can_be_registered_as_another_model(registry: DirectoryRegistry, tmp_path: Path) -> None:
    version = registry.register([write(tmp_path / "a.onnx")], "a")
    copy = registry.register([registry.fetch(version)], "b")
    assert contents(registry.fetch(copy)) == contents(registry.fetch(version))
    assert registry.models() == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "got nothing"),
        (["model.pkl"], r"expected model.onnx or exactly one .onnx file, got model\.pkl"),
        (["a.onnx", "b.onnx"], r"got a\.onnx, b\.onnx"),
        (["sub/model.onnx", "README.md"], r"got README\.md, sub"),
        ([f"{n:02}.bin" for n in range(12)], r"08\.bin, 09\.bin and 2 more"),
    ],
)
def test_what_is_no_bundle_is_refused(
    registry: DirectoryRegistry, tmp_path: Path, names: list[str], message: str
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in names:
        write(bundle / name)
    with pytest.raises(BadRequest, match=message):
        registry.register([bundle], "flights")
    assert not registry.root.exists()


def test_arguments_that_do_not_fit_are_named(registry: DirectoryRegistry, tmp_path: Path) -> None:
    model = write(tmp_path / "model.onnx")
    folder = tmp_path / "folder"
    other = write(folder / "model.onnx")
    with pytest.raises(BadRequest, match=r"missing\.onnx: no such file"):
        registry.register([tmp_path / "missing.onnx"], "flights")
    with pytest.raises(BadRequest, match=f"{folder}: expected files, or one folder"):
        registry.register([model, folder], "flights")
    with pytest.raises(BadRequest, match=r"got model\.onnx twice"):
        registry.register([model, other], "flights")
    with pytest.raises(BadRequest, match=r"model name '\.\./flights'"):
        registry.register([model], "../flights")
    assert not registry.root.exists()


def test_links_and_pipes_inside_a_folder_are_refused(registry: DirectoryRegistry, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    model = write(bundle / "model.onnx")
    odd = bundle / "sub" / "odd"
    odd.parent.mkdir()
    odd.symlink_to(model)
    with pytest.raises(BadRequest, match="sub/odd: expected files and folders, got a link"):
        registry.register([bundle], "flights")
    odd.unlink()
    os.mkfifo(odd)
    with pytest.raises(BadRequest, match="sub/odd: expected files and folders, got neither"):
        registry.register([bundle], "flights")


def test_a_number_is_not_used_again_while_an_alias_points_at_it(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    model = write(tmp_path / "model.onnx")
    registry.register([model], "flights")
    gone = registry.register([model], "flights")
    registry.promote("flights", gone.number)
    shutil.rmtree(registry.fetch(gone))
    assert registry.register([model], "flights").number == 3
    with pytest.raises(NotFound, match="which is gone"):
        registry.resolve(Reference("flights"))


def test_a_file_with_a_versions_name_is_passed_by(registry: DirectoryRegistry, tmp_path: Path) -> None:
    write(registry.root / "flights" / "1", "a note")
    assert registry.register([write(tmp_path / "model.onnx")], "flights").number == 2


# What is read


def test_a_repository_made_for_triton_is_read_as_it_is(registry: DirectoryRegistry, tmp_path: Path) -> None:
    root = registry.root
    write(root / "densenet" / "config.pbtxt", 'platform: "onnxruntime_onnx"')
    write(root / "densenet" / "labels.txt")
    write(root / "densenet" / "1" / "model.onnx")
    write(root / "densenet" / "10" / "model.onnx" / "model.onnx")
    write(root / "densenet" / "2" / "model.onnx")
    write(root / "densenet" / "01" / "model.onnx")
    write(root / "densenet" / "0" / "model.onnx")
    write(root / "densenet" / "configs" / "fast.pbtxt")
    write(root / "densenet" / "３" / "model.onnx")
    write(tmp_path / "elsewhere" / "model.onnx")
    (root / "linked").mkdir()
    (root / "linked" / "1").symlink_to(tmp_path / "elsewhere")
    (root / "linked" / "2").symlink_to(tmp_path / "nowhere")
    (root / "empty").mkdir()
    write(root / "lost+found" / "1" / "model.onnx")
    write(root / ".git" / "1" / "model.onnx")
    write(root / "README.md")

    assert registry.models() == ["densenet", "linked"]
    assert [version.number for version in registry.versions("densenet")] == [1, 2, 10]
    assert [version.number for version in registry.versions("linked")] == [1]
    newest = registry.resolve(Reference("densenet"))
    assert registry.fetch(newest) == root / "densenet" / "10"
    with pytest.raises(NotFound, match="there are: densenet, linked"):
        registry.versions("empty")


def test_versions_tell_their_age_and_aliases(registry: DirectoryRegistry, tmp_path: Path) -> None:
    model = write(tmp_path / "model.onnx")
    for _ in range(2):
        registry.register([model], "flights")
    registry.promote("flights", 2)
    registry.promote("flights", 2, "champion")
    os.utime(registry.root / "flights" / "1", (1e9, 1e9))
    first, second = registry.versions("flights")
    assert (first.created, first.aliases) == (1e9, ())
    assert (second.created > 1e9, second.aliases) == (True, ("champion", "production"))


def test_a_model_that_is_still_copied_by_hand_changes_with_every_look(registry: DirectoryRegistry) -> None:
    folder = registry.root / "flights" / "1"
    folder.mkdir(parents=True)
    empty = registry.resolve(Reference("flights"))
    write(folder / "model.onnx", "on")
    half = registry.resolve(Reference("flights"))
    with (folder / "model.onnx").open("a") as file:
        file.write("nx")
    assert len({empty, half, registry.resolve(Reference("flights"))}) == 3


def test_a_registry_that_is_not_there_says_what_makes_it(registry: DirectoryRegistry, tmp_path: Path) -> None:
    hint = f"{registry.root}: no such folder; `driftline register FILES --name NAME --registry"
    with pytest.raises(RegistryError, match=hint):
        registry.models()
    with pytest.raises(RegistryError, match=hint):
        registry.versions("flights")
    registry.root.mkdir()
    assert registry.models() == []
    with pytest.raises(NotFound, match="none yet, `driftline register` makes one"):
        registry.versions("flights")


def test_a_version_that_is_gone_cannot_be_fetched(registry: DirectoryRegistry, tmp_path: Path) -> None:
    version = registry.register([write(tmp_path / "model.onnx")], "flights")
    shutil.rmtree(registry.fetch(version))
    with pytest.raises(NotFound, match="version 1 of model 'flights' is gone"):
        registry.fetch(version)


def test_one_model_that_cannot_be_read_leaves_the_others(registry: DirectoryRegistry, tmp_path: Path) -> None:
    registry.register([write(tmp_path / "model.onnx")], "flights")
    # A link to itself fails for every user, root too, where a missing permission would not.
    (registry.root / "broken" / "1").mkdir(parents=True)
    (registry.root / "broken" / "1" / "model.onnx").symlink_to("model.onnx")
    assert registry.models() == ["broken", "flights"]
    with pytest.raises(RegistryError, match=r"model 'broken' can't be read: .*symbolic links"):
        registry.versions("broken")
    assert registry.resolve(Reference("flights")).number == 1


# Aliases


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"production": "3"}',
        '{"production": true}',
        '{"production": 0}',
        "\udcff",
        "[" * 200_000,
    ],
    ids=range(8),
)
def test_a_corrupt_alias_file_is_named(registry: DirectoryRegistry, tmp_path: Path, text: str) -> None:
    model = write(tmp_path / "model.onnx")
    registry.register([model], "flights")
    path = registry.root / "flights" / "aliases.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    for reading in (
        lambda: registry.aliases("flights"),
        lambda: registry.versions("flights"),
        lambda: registry.promote("flights", 1),
        lambda: registry.register([model], "flights"),
    ):
        with pytest.raises(RegistryError, match=f"{path}: expected an object of alias and version number"):
            reading()
    assert path.read_bytes() == text.encode(errors="surrogateescape")


def test_promote_takes_known_versions_and_legal_aliases_only(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    registry.register([write(tmp_path / "model.onnx")], "flights")
    with pytest.raises(NotFound, match="no version 2; it has: 1"):
        registry.promote("flights", 2)
    with pytest.raises(NotFound, match="no model 'trains'"):
        registry.promote("trains", 1)
    with pytest.raises(BadRequest, match="alias 'a/b'"):
        registry.promote("flights", 1, "a/b")
    assert registry.aliases("flights") == {}
    registry.promote("flights", 1)
    assert json.loads((registry.root / "flights" / "aliases.json").read_text()) == {"production": 1}


# The disk refuses


def test_a_registry_that_is_a_file_is_a_registry_error(tmp_path: Path) -> None:
    registry = DirectoryRegistry(write(tmp_path / "models"))
    with pytest.raises(RegistryError, match="Not a directory"):
        registry.models()
    with pytest.raises(RegistryError, match=r"can't register 'flights' in .*models"):
        registry.register([write(tmp_path / "model.onnx")], "flights")


def test_a_disk_that_is_full_leaves_what_was_there(registry: DirectoryRegistry, tmp_path: Path) -> None:
    before = registry.register([write(tmp_path / "model.onnx")], "flights")
    bundle = tmp_path / "bundle"
    write(bundle / "a.txt", "fits")
    write(bundle / "model.onnx", "x" * 100_000)
    # A limit on the size of files stands for the full disk: the same system call fails half-way.
    script = """if True:
        import resource, sys
        from pathlib import Path
        from driftline.errors import RegistryError
        from driftline.registry.directory import DirectoryRegistry

        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            DirectoryRegistry(Path(sys.argv[1])).register([Path(sys.argv[2])], "flights")
        except RegistryError as error:
            print(error)
    """
    out = subprocess.check_output([sys.executable, "-c", script, registry.root, bundle], text=True)
    assert out.startswith(f"can't register 'flights' in {registry.root}: [Errno 27] File too large")
    assert registry.versions("flights") == [before]
    assert unfinished(registry) == []


# Many at once, and dying

REGISTER = """if True:
    import sys
    from pathlib import Path
    from driftline.registry.directory import DirectoryRegistry

    registry = DirectoryRegistry(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(5):
        print(registry.register([Path(sys.argv[2])], "flights").number, flush=True)
"""

PROMOTE = """if True:
    import sys
    from pathlib import Path
    from driftline.registry.directory import DirectoryRegistry

    registry = DirectoryRegistry(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(20):
        registry.promote("flights", n % 2 + 1, f"{sys.argv[2]}-{n}")
"""

REGISTER_FOREVER = """if True:
    import sys
    from pathlib import Path
    from driftline.registry.directory import DirectoryRegistry

    registry = DirectoryRegistry(Path(sys.argv[1]))
    print("ready", flush=True)
    while True:
        registry.promote("flights", registry.register([Path(sys.argv[2])], "flights").number)
"""

REGISTER_SLOWLY = """if True:
    import shutil, sys
    from pathlib import Path
    from driftline.registry.directory import DirectoryRegistry

    def copy_and_wait(source, target, copy=shutil.copyfile):
        copy(source, target)
        print("busy", flush=True)
        sys.stdin.readline()

    shutil.copyfile = copy_and_wait
    print("ready", flush=True)
    print(DirectoryRegistry(Path(sys.argv[1])).register([Path(sys.argv[2])], "flights").number)
"""


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    """A process that has imported all it needs."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def run_together(script: str, *arguments: tuple[object, ...]) -> list[str]:
    """What processes print that begin at the same moment."""
    with ThreadPoolExecutor(len(arguments)) as pool:
        processes = list(pool.map(lambda given: start(script, *given), arguments))
        outputs = [out for out, _ in pool.map(lambda process: process.communicate("go\n"), processes)]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


def test_processes_that_register_at_once_get_different_complete_versions(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    for process in range(8):
        for name in ("model.onnx", "a.bin", "sub/b.bin"):
            write(tmp_path / str(process) / name, f"{process} {name} " * 1000)
    outputs = run_together(REGISTER, *((registry.root, tmp_path / str(process)) for process in range(8)))

    owners = {int(number): process for process, out in enumerate(outputs) for number in out.split()}
    versions = registry.versions("flights")
    assert sorted(owners) == [version.number for version in versions] == list(range(1, 41))
    for version in versions:
        assert contents(registry.fetch(version)) == contents(tmp_path / str(owners[version.number]))
    assert unfinished(registry) == []


def test_promotes_of_different_aliases_at_once_lose_none(registry: DirectoryRegistry, tmp_path: Path) -> None:
    for _ in range(2):
        registry.register([write(tmp_path / "model.onnx")], "flights")
    run_together(PROMOTE, *((registry.root, f"process{number}") for number in range(8)))
    assert registry.aliases("flights") == {
        f"process{number}-{n}": n % 2 + 1 for number in range(8) for n in range(20)
    }


def test_killed_at_any_moment_leaves_only_complete_versions(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    for name in ("model.onnx", "transform.json", "weights/0.bin", "weights/1.bin"):
        write(bundle / name, name * 10_000)
    expected = contents(bundle)
    registry.register([bundle], "flights")
    known, swept = 1, 0

    for kill in range(30):
        process = start(REGISTER_FOREVER, registry.root, bundle)
        if kill % 3:
            time.sleep(random.uniform(0, 0.05))
        else:  # or as soon as it is seen at work
            while not unfinished(registry):
                pass
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

        versions = registry.versions("flights")
        for version in versions[known:]:
            assert contents(registry.fetch(version)) == expected
        assert registry.aliases("flights").get("production", 1) <= versions[-1].number
        left = [path for path in unfinished(registry) if path.is_dir()]
        swept += len(left)

        known = registry.register([bundle], "flights").number
        assert known == versions[-1].number + 1
        assert not any(path.exists() for path in left)

    assert swept > 0, "no process was killed at work: nothing was tested"


def test_a_folder_in_work_is_not_swept(registry: DirectoryRegistry, tmp_path: Path) -> None:
    model = write(tmp_path / "model.onnx")
    process = start(REGISTER_SLOWLY, registry.root, model)
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    (working,) = unfinished(registry)

    assert registry.register([model], "flights").number == 1
    assert unfinished(registry) == [working]

    out, _ = process.communicate("go on\n")
    assert out == "2\n"
    assert contents(registry.root / "flights" / "2") == {"model.onnx": "onnx"}
    assert unfinished(registry) == []


def test_two_threads_register_apart(registry: DirectoryRegistry, tmp_path: Path) -> None:
    model = write(tmp_path / "model.onnx")
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: registry.register([model], "flights"), range(16)))
    assert sorted(version.number for version in versions) == list(range(1, 17))


def test_readers_see_no_half_version_while_others_write(registry: DirectoryRegistry, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    for name in ("model.onnx", "a.bin", "b.bin"):
        write(bundle / name, name * 1000)
    expected = contents(bundle)
    registry.register([bundle], "flights")
    process = start(REGISTER_FOREVER, registry.root, bundle)
    try:
        latest = 1
        deadline = time.monotonic() + 60
        while latest < 20 and time.monotonic() < deadline:
            version = registry.resolve(Reference("flights"))
            assert contents(registry.fetch(version)) == expected
            latest = version.number
    finally:
        process.kill()
        process.communicate()
    assert latest >= 20


def test_aliases_of_any_size_are_no_aliases(registry: DirectoryRegistry, tmp_path: Path) -> None:
    registry.register([write(tmp_path / "model.onnx")], "flights")
    aliases = registry.root / "flights/aliases.json"
    aliases.write_text('{"production": 1%s}' % (" " * MAX_BYTES))
    with pytest.raises(
        RegistryError, match=r"flights/aliases.json: .*: expected at most 1048576 bytes, got more"
    ):
        registry.resolve(Reference("flights"))


def test_one_file_or_folder_is_registered_by_its_path(registry: DirectoryRegistry, tmp_path: Path) -> None:
    model = write(tmp_path / "bundle" / "model.onnx")
    assert registry.register(str(model), "flights").number == 1
    assert registry.register(model.parent, "flights").number == 2
    assert registry.register([str(model)], "flights").number == 3
    assert repr(registry) == f"DirectoryRegistry({registry.uri!r})"
