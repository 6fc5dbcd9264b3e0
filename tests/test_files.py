from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from driftline import files
from driftline.files import MAX_BYTES, read_small, replacing


def test_a_file_is_replaced_when_all_of_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as new:
        new.write_text("new \udc80", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 1, 100_000, MAX_BYTES])
def test_a_small_file_is_read_and_so_is_what_comes_through_a_pipe(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    assert read_small(tmp_path / "file") == b"x" * size
    os.mkfifo(tmp_path / "pipe")  # as with a shell's <(...)
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[b"x" * size])
    writer.start()
    assert read_small(tmp_path / "pipe") == b"x" * size
    writer.join()


def test_what_is_no_small_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIPE_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=re.escape("expected a file, nothing arrived in 0.1 s")):
        read_small(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x" * (MAX_BYTES + 1))
    for path in (tmp_path / "file", Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"expected at most {MAX_BYTES} bytes, got more"):
            read_small(path)
    with pytest.raises(IsADirectoryError):
        read_small(tmp_path)
    assert read_small(Path("/dev/null")) == b""
