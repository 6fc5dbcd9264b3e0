"""The commands, as a user types them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from io import StringIO
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from onnx_models import identity, scale, slow
from rich.console import Console

import driftline as dl
from driftline import __version__
from driftline.cli import main, shared
from driftline.config import Monitoring, Server, Settings, Sidecar
from driftline.engine.cuda.device import no_library
from driftline_kernels import compiling

ERASED_LINE = "\x1b[1A\x1b[2K"


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return scale(tmp_path / "some name.onnx", 2.0)


def test_a_failure_leaves_no_progress_bar(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data.csv"
    data.write_text("a,b\n1,2\n")
    result = run("score", model, data, "-o", tmp_path / "out.csv")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("driftline: ")
    terminal = Console(file=StringIO(), force_terminal=True)
    monkeypatch.setattr(shared, "stderr", lambda: terminal)
    with pytest.raises(ZeroDivisionError), shared.row_progress(data) as done:
        done(1 // 0)
    assert terminal.file.getvalue().endswith(ERASED_LINE)  # type: ignore[attr-defined]


def test_that_kernels_are_compiled_is_said_once(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("a,b\n1,2\n")

    @click.command()
    def score() -> None:
        with shared.row_progress(data):
            for _ in range(2):
                if compiling.on_compile is not None:
                    compiling.on_compile()

    assert CliRunner().invoke(score).stderr == "compiling kernels; this happens once\n"
    assert compiling.on_compile is None


def test_versions_lists_what_it_can_and_reports_the_rest(tmp_path: Path, model: Path) -> None:
    registry = str(tmp_path / "models")
    for name in ("a", "b", "c"):
        assert run("register", str(model), "--name", name, "--registry", registry).exit_code == 0
    (tmp_path / "models" / "b" / "aliases.json").write_text("{")
    result = run("versions", "--registry", registry)
    assert result.exit_code == 2
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["a", "1"], ["c", "1"]]
    assert result.stderr.startswith("driftline: ")
    assert "b/aliases.json: expected an object" in result.stderr
    result = run("versions", "b", "--registry", registry)
    assert (result.exit_code, result.stdout) == (2, "")


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


def test_a_version_that_may_break_clients_gets_a_warning(tmp_path: Path, model: Path) -> None:
    registry = tmp_path / "models"
    dl.Profile.fit({"x": np.zeros((200, 3), np.float32)}).save(tmp_path / "profile.arrow")
    other = identity(tmp_path / "other.onnx", "FP64", (None, 2))

    def warned(*arguments: str | Path) -> list[str]:
        done = run(*arguments, "--registry", registry)
        assert done.exit_code == 0
        return done.stderr.splitlines()

    breaks = (
        "driftline: m {} may break clients of version {}: no output 'total', "
        "input 'x' is FP64 [-1, 2], was FP32 [-1, 3], output 'y' is FP64 [-1, 2], was FP32 [-1, 3]"
    )
    profile = "driftline: m {} has no profile: it will not be monitored; version {} has one"
    assert warned("register", model, tmp_path / "profile.arrow", "--name", "m") == []
    assert warned("register", model, "--name", "m") == [profile.format(2, 1)]
    assert warned("register", other, "--name", "m", "--alias", "production") == [breaks.format(3, 2)]
    assert warned("register", other, "--name", "m", "--no-verify") == []
    assert warned("register", model, "--name", "m") == [
        "driftline: m 5 may break clients of version 3: input 'x' is FP32 [-1, 3], was FP64 [-1, 2], "
        "output 'y' is FP32 [-1, 3], was FP64 [-1, 2], new output 'total' FP32 [-1]"
    ]
    assert warned("promote", "m", "4") == []
    assert warned("promote", "m", "4", "--alias", "champion") == []  # behind 3
    assert warned("promote", "m", "1", "--alias", "first") == []  # behind none
    assert warned("promote", "m", "2", "--alias", "first") == [profile.format(2, 1)]
    assert warned("promote", "m", "3", "--alias", "first") == [breaks.format(3, 2)]
    (registry / "m/2/model.onnx").write_bytes(b"broken")
    assert warned("promote", "m", "2", "--alias", "first") == []


def test_an_alias_that_can_not_be_set_is_refused_before_anything_is_registered(
    tmp_path: Path, model: Path
) -> None:
    registry = tmp_path / "models"
    for alias in ("a b/", "3", ""):
        refused = run("register", model, "--name", "m", "--alias", alias, "--registry", registry)
        assert refused.exit_code == 2
        assert refused.stderr.startswith(f"driftline: alias {alias!r}: expected ")
    assert not registry.exists()


def test_register_opens_what_it_is_given(tmp_path: Path, model: Path) -> None:
    registry = tmp_path / "models"
    (tmp_path / "driftline.toml").write_text("[engine]\ndevice = 'tpu'\n")
    refused = run("register", model, tmp_path / "driftline.toml", "--name", "m", "--registry", registry)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"driftline: {tmp_path}/driftline.toml: engine.device = 'tpu': expected")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    given = "register", tmp_path / "junk.onnx", "--name", "m", "--alias", "production", "--registry", registry
    refused = run(*given)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"driftline: {tmp_path}/junk.onnx: expected an ONNX model, got 4 bytes that are not one, "
        "or not all of one; --no-verify registers it all the same\n"
    )
    assert not registry.exists()
    assert run(*given, "--no-verify").stdout.splitlines() == [
        f"m 1 is registered in {registry}",
        "m@production is version 1",
    ]


def test_register_runs_python_code_only_if_it_is_told_to(tmp_path: Path) -> None:
    registry, folder, ran = tmp_path / "models", tmp_path / "python", tmp_path / "ran"
    folder.mkdir()
    (folder / "loader.py").write_text(f"open({str(ran)!r}, 'w')\nraise ValueError('it ran')\n")
    (folder / "MLmodel").write_text(
        "flavors: {python_function: {loader_module: loader, code: '.'}}\n"
        'signature: {inputs: \'[{"type": "double", "name": "a"}]\'}\n'
    )
    trusted = run("register", folder, "--name", "m", "--registry", registry, "--trust")
    assert trusted.exit_code == 2
    assert "it ran" in trusted.stderr
    assert ran.exists()
    ran.unlink()
    done = run("register", folder, "--name", "m", "--registry", registry)
    assert (done.exit_code, done.stdout) == (0, f"m 1 is registered in {registry}\n")
    assert done.stderr == "driftline: m is Python code, which was not run; --trust runs it\n"
    assert not ran.exists()


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
        "driftline: models:/m: expected a folder after each model, got none\n",
    )


@pytest.mark.skipif(not no_library(), reason="numba-cuda is installed")
def test_kernels_of_gpus_cannot_be_compiled_without_their_library() -> None:
    said = run("compile", "--gpus")
    assert said.exit_code == 2
    assert said.stderr.startswith(
        "driftline: compile --gpus: no library for kernels (numba-cuda; pip install"
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
        (["promote", "m", "x"], "version 'x': expected a whole number from 1"),
        (["versions", "m"], "m"),
        (["versions", "--registry", "ftp://127.0.0.1:5000"], "the scheme 'ftp'"),
        (["versions", "--registry", "http://127.0.0.1:1"], "http://127.0.0.1:1 can't be reached"),
        (["versions", "--registry", "http://..:5000"], "http://..:5000 can't be reached: UnicodeError"),
        (["bench", "http://..:80"], "http://..:80"),
        (["profile", "--from-traffic", "http://..:8", "--model", "m", "-o", "p.arrow"], "http://..:8: Unic"),
        (["register", "some name.onnx", "--name", "m", "--registry", "/proc/nowhere"], "/proc/nowhere"),
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
    "alarm_webhook": ("ftp://host", "http://", "/etc", "http://host\n"),
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
        assert flag.required or flag.default == item.default
        kind = "None" if flag.default is None else type(flag.default).__name__
        assert flag.required or kind in str(item.type).split(" | ")


@pytest.mark.parametrize(("command", "kind"), [("serve", Server), ("monitor", Sidecar)])
def test_what_kubernetes_says_of_a_service_called_driftline_is_no_port(
    command: str, kind: type[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in ("DRIFTLINE", "DRIFTLINE_PROXY", "DRIFTLINE_GRPC"):
        monkeypatch.setenv(f"{service}_PORT", "tcp://10.96.0.17:8080")
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.96.0.17")
        monkeypatch.setenv(f"{service}_SERVICE_PORT", "8080")
    context = main.commands[command].make_context(command, needed(command))
    ports = {item.name: item.default for item in fields(kind) if item.name.endswith("port")}
    assert ports.items() <= context.params.items()
    monkeypatch.setenv("DRIFTLINE_PORT", "8090")
    assert main.commands[command].make_context(command, needed(command)).params["port"] == 8090


def test_a_profile_is_required() -> None:
    said = run("monitor", "--listen")
    assert said.exit_code == 2
    assert "Missing option '--profile'" in said.stderr


def test_an_agent_that_cannot_be_looked_up_is_a_line() -> None:
    result = run("drift", "http://..:80")
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "driftline: http://..:80 is left out: UnicodeError: " in result.output


def test_what_the_system_refuses_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")

    monkeypatch.setattr("driftline.demo.demo.run", full)
    result = run("demo")
    assert (result.exit_code, result.stderr) == (
        2,
        "driftline: [Errno 28] No space left on device: '/tmp/x'\n",
    )
    assert isinstance(run("--debug", "demo").exception, OSError)


def test_debug_shows_the_traceback() -> None:
    result = run("--debug", "versions", "--registry", "/nonexistent")
    assert result.exception is not None
    assert not isinstance(result.exception, SystemExit)


def test_profile_does_not_replace_its_data(tmp_path: Path) -> None:
    data = tmp_path / "data.parquet"
    pa.parquet.write_table(pa.table({"a": np.arange(200.0)}), data)
    before = data.read_bytes()
    refused = run("profile", data, "-o", data)
    assert refused.exit_code == 2
    assert "data.parquet: expected another file than the data, which it would replace" in refused.stderr
    assert data.read_bytes() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_stopped_leaves_nothing_half_written(
    tmp_path: Path, number: int, code: int
) -> None:
    width = 512
    slow(tmp_path / "slow.onnx", width, layers=8)
    lists = pa.FixedSizeListArray.from_arrays(np.zeros(100_000 * width, np.float32), width)
    pa.parquet.write_table(pa.table({"x": lists}), tmp_path / "data.parquet")
    before = sorted(tmp_path.iterdir())
    command = [sys.executable, "-m", "driftline", "score", "slow.onnx", "data.parquet", "-o", "out.parquet"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as score:
        while not list(tmp_path.glob(".out.parquet.*")):
            assert score.poll() is None
            time.sleep(0.01)
        score.send_signal(number)
        _, said = score.communicate(timeout=60)
    assert score.returncode == code
    assert "Traceback" not in said
    assert "Aborted" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_ctrl_c_ends_any_command_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("driftline.demo.demo.run", interrupted)
    result = run("demo")
    assert (result.exit_code, result.stderr) == (130, "driftline: interrupted\n")


def test_version() -> None:
    assert run("--version").stdout == f"driftline, version {__version__}\n"
