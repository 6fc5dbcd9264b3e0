"""The Dockerfiles, as far as they can be judged without an engine that builds them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from manifests import ROOT

from driftline import __version__

IMAGES = {"Dockerfile": "cpu,grpc", "Dockerfile.gpu": "gpu,grpc"}


def instructions(name: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and what they are given; lines that go on are one."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / name).read_text()).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2]) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", IMAGES)
def test_hadolint_finds_nothing(name: str) -> None:
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", ROOT / name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(("name", "extras"), IMAGES.items())
def test_an_image_is_ours_and_runs_as_nobody(name: str, extras: str) -> None:
    given = instructions(name)
    last = [what for keyword, what in given if keyword == "LABEL"][-1]
    assert f'image.version="{__version__}"' in last
    assert ("USER", "65532:65532") in given
    assert ("ENTRYPOINT", '["driftline"]') in given
    assert any("/v2/health/ready" in what for keyword, what in given if keyword == "HEALTHCHECK")
    installs = [what for keyword, what in given if keyword == "RUN" and "pip install" in what]
    assert [f"'.[{extras}]'" in what and "--constraint constraints.txt" in what for what in installs] == [
        True
    ]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= known.keys()


@pytest.mark.parametrize("name", IMAGES)
def test_all_that_is_copied_is_there_and_sent_to_the_engine(name: str) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [what.split()[:-1] for keyword, what in instructions(name) if keyword == "COPY"]
    files = {file for each in copied if not each[0].startswith("--from") for file in each}
    assert files == sent
    assert all((ROOT / file).exists() for file in files)
