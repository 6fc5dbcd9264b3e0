"""A virtual environment for each peer, since their pins clash: `requirements/<peer>.txt`, by uv."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from bench.common import HERE

CACHE = HERE / "cache" / "servers"
REQUIREMENTS = Path(__file__).with_name("requirements")
SECONDS = 900


class Unavailable(Exception):
    """A peer that can't be installed or started, and why."""


def installed(name: str, python: str) -> Path:
    """The bin folder of a peer's environment, made if it is not there as its requirements say.

    Raises Unavailable with the last that uv said.
    """
    requirements, folder = REQUIREMENTS / f"{name}.txt", CACHE / name
    stamp = folder / ".installed"
    wanted = hashlib.sha256(requirements.read_bytes() + python.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        _uv("venv", "--clear", "--python", python, folder)
        _uv("pip", "install", "--compile-bytecode", "--python", folder / "bin" / "python", "-r", requirements)
        stamp.write_text(wanted)
    return folder / "bin"


def pinned_version(name: str, package: str) -> str:
    """The version of a package that a peer's requirements pin."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{package}=="))


def lock(name: str) -> None:
    """Resolve `requirements/<peer>.in` anew."""
    wanted = REQUIREMENTS / f"{name}.in"
    # Triton's wheel asks for a C library of Debian 12's age, which uv would not assume.
    platform = ("--python-platform", "x86_64-manylinux_2_36", "--python-version", "3.11")
    plain = ("--upgrade", "--no-header", "--no-annotate")
    _uv("pip", "compile", *platform, *plain, wanted, "-o", wanted.with_suffix(".txt"))


def _uv(*arguments: str | Path) -> None:
    """Run uv, which is installed beside this Python."""
    command = [str(Path(sys.executable).with_name("uv")), *map(str, arguments), "--quiet"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"uv: {error}") from None
    if done.returncode:
        raise Unavailable(f"not installed: {done.stderr.strip()[-300:]}")
