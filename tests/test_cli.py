"""The commands, as a user types them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from support import scale

from driftline import __version__
from driftline.cli import main
from driftline.config import Monitoring, Server, Settings, Sidecar
from driftline.engine.device import no_library


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return scale(tmp_path / "some name.onnx", 2.0)


def test_register_promote_versions(tmp_path: Path, model: Path) -> None:
    registry = tmp_path / "models"
    first = run("register", model, "--name", "m", "--registry", registry)
    assert (first.exit_code, first.stdout) == (0, f"m 1 is registered in {registry}\n")
    second = run("register", model, "--name", "m", "--alias", "champion", "--registry", registry)
    assert second.stdout.endswith("m@champion is version 2\n")
    assert run("promote", "m", "1", "--registry", registry).stdout == "m@production is version 1\n"
    lines = [line.split()[:3] for line in run("versions", "--registry", registry).stdout.splitlines()]
    assert lines == [["model", "version", "aliases"], ["m", "1", "production"], ["m", "2", "champion"]]
    assert (registry / "m/1/model.onnx").read_bytes() == model.read_bytes()


def test_fetch_takes_models_and_folders_in_turn(tmp_path: Path, model: Path) -> None:
    registry, places = tmp_path / "models", [tmp_path / "a", tmp_path / "b"]
    run("register", model, "--name", "m", "--alias", "champion", "--registry", registry)
    where = {"MLFLOW_TRACKING_URI": str(registry)}
    both = run("fetch", "models:/m@champion", places[0], "models:/m/1", places[1], env=where)
    assert (both.exit_code, both.stdout) == (0, "".join(f"m 1 is in {place}\n" for place in places))
    for place in places:
        assert (place / "model.onnx").read_bytes() == model.read_bytes()
    odd = run("fetch", "models:/m", env=where)
    assert (odd.exit_code, odd.stderr) == (
        2,
        "driftline: models:/m: expected a folder after each model, came none\n",
    )


@pytest.mark.skipif(not no_library(), reason="numba-cuda is installed")
def test_kernels_of_cards_cannot_be_compiled_without_their_library() -> None:
    said = run("compile", "--cards")
    assert said.exit_code == 2
    assert said.stderr.startswith(
        "driftline: compile --cards: no library for kernels (numba-cuda; pip install"
    )


def test_the_registry_can_come_from_the_environment_and_from_a_file(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("driftline.toml").write_text('[server]\nregistry = "from-file"\nport = 9000\n')
    run("register", model, "--name", "m")
    assert Path("from-file/m/1").is_dir()
    run("register", model, "--name", "m", env={"DRIFTLINE_REGISTRY": "from-environment"})
    assert Path("from-environment/m/1").is_dir()
    run("register", model, "--name", "m", "--registry", "from-flag", env={"DRIFTLINE_REGISTRY": "x"})
    assert Path("from-flag/m/1").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["register", "nothing.onnx", "--name", "m"], "nothing.onnx"),
        (["register", "driftline.toml", "--name", "m"], "model.onnx"),
        (["register", "some name.onnx", "--name", "../m"], "model name '../m'"),
        (["promote", "m", "3"], "m"),
        (["versions", "m"], "m"),
        (["versions", "--registry", "ftp://127.0.0.1:5000"], "the scheme 'ftp'"),
        (["versions", "--registry", "http://127.0.0.1:1"], "http://127.0.0.1:1 can't be reached"),
        (["score", "m", "data.parquet", "-o", "out.parquet"], "m"),
        (["score", "some name.onnx", "nothing.parquet", "-o", "out.parquet"], "nothing.parquet"),
        (
            ["score", "some name.onnx", "data.txt", "-o", "out.parquet"],
            "data.txt: expected a file, or a folder of files, that end in",
        ),
    ],
)
def test_errors_are_one_line_and_exit_2(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("driftline.toml").write_text("")
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("driftline: ")] == [
        result.stderr.splitlines()[-1]
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nport = 'high'\n", "server.port = 'high': expected a port from 0 to 65535"),
        ("[server]\nprot = 1\n", "server: prot = 1: unknown key; allowed are: access_log"),
        (
            "[models.m.batching]\nmax_delay_us = -1\n",
            "batching.max_delay_us = -1: expected a whole number from 0",
        ),
        ("[[[", "driftline.toml: "),
    ],
)
def test_a_wrong_settings_file_names_file_key_value_and_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("driftline.toml").write_text(text)
    result = run("versions")
    assert result.exit_code == 2
    assert result.stderr.startswith("driftline: driftline.toml: ")
    assert message in result.stderr


FLAGS: dict[str, list[type[Settings]]] = {"serve": [Server], "monitor": [Sidecar, Monitoring]}
WRONG = {
    "int": ("-1", "1.5", "nan", "inf"),
    "float": ("-1", "nan", "inf", "-inf", "many"),
    "bool": ("maybe",),
}
ALSO_WRONG = {
    **dict.fromkeys(("registry", "host"), ("",)),
    **dict.fromkeys(("port", "proxy_port"), ("65536",)),
    **dict.fromkeys(("workers", "log_batch", "false_alarm_rows", "log_cpu"), ("0",)),
    **dict.fromkeys(("max_body_bytes", "copy_body_bytes", "event_queue_bytes", "join_bytes"), ("0",)),
    **dict.fromkeys(("copy_queue_bytes", "log_queue_bytes", "log_file_bytes"), ("0",)),
    **dict.fromkeys(("join_seconds", "checkpoint_seconds"), ("0.009",)),
    **dict.fromkeys(("log_format", "log_level", "log_payloads"), ("", "xml")),
    "log_file_seconds": ("0.09",),
    "log_sample": ("1.01",),
    "alarm_webhook": ("ftp://host", "http://", "/etc"),
    "upstream": ("https://host", "http://user:secret@host", "http://host/path", "http://host\n"),
}


def wrong_flags() -> list[tuple[str, str, str]]:
    """Each command with each of its flags and values that it must refuse."""
    return [
        (command, item.name, text)
        for command, kinds in FLAGS.items()
        for kind in kinds
        for item in fields(kind)
        if item.name != "enabled"
        for text in (*WRONG.get(str(item.type), ()), *ALSO_WRONG.get(item.name, ()))
    ]


@pytest.mark.parametrize(("command", "name", "text"), wrong_flags())
def test_a_flag_refuses_what_its_setting_may_not_be_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("profile.arrow").touch()
    flag = f"--{name.replace('_', '-')}"
    if text in WRONG["bool"]:  # what a flag can't say, its variable can
        result = run(command, *needed(command), env={f"DRIFTLINE_{name.upper()}": text})
    else:
        result = run(command, *needed(command), flag, text)
    assert result.exit_code == 2
    [line] = [line for line in result.stderr.splitlines() if flag in line]
    assert line.startswith(("driftline: ", "Error: "))
    assert "secret" not in line


def needed(command: str) -> list[str]:
    return ["--profile", "profile.arrow"] if command == "monitor" else []


@pytest.mark.parametrize("command", ["serve", "monitor", "demo"])
def test_a_flag_says_what_its_setting_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(command, *needed(command), "--port", "70000")
    wanted = "driftline: --port = 70000: expected a port from 0 to 65535\n"
    assert (said.exit_code, said.stderr) == (2, wanted)
    assert "a port from 0 to 65535]" in " ".join(run(command, "--help").stdout.split())


@pytest.mark.parametrize(("command", "kind"), [("serve", Server), ("monitor", Sidecar)])
def test_every_setting_has_a_flag_and_a_variable(command: str, kind: type[Settings]) -> None:
    flags = {flag.name: flag for flag in main.commands[command].params}
    for item in fields(kind):
        flag = flags[item.name]
        assert isinstance(flag, click.Option)
        assert flag.opts[0] == f"--{item.name.replace('_', '-')}"
        assert flag.envvar == f"DRIFTLINE_{item.name.upper()}"
        assert flag.help
        assert flag.required or (flag.default, type(flag.default).__name__) == (item.default, item.type)


def test_a_profile_is_required() -> None:
    said = run("monitor", "--listen")
    assert said.exit_code == 2
    assert "Missing option '--profile'" in said.stderr


def test_debug_shows_the_traceback() -> None:
    result = run("--debug", "versions", "--registry", "/nonexistent")
    assert result.exception is not None
    assert not isinstance(result.exception, SystemExit)


def test_version() -> None:
    assert run("--version").stdout == f"driftline, version {__version__}\n"
