"""Payloads in Parquet files."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from payload_sink import Sinking
from waiting import until

from driftline.protocols.payloads import Payload, of_table, schema
from driftline.serving.payloads import files as module


def read(folder: Path) -> list[Payload]:
    return [payload for file in sorted(folder.glob("*.parquet")) for payload in of_table(pq.read_table(file))]


def test_files_are_full_and_complete_and_in_order(tmp_path: Path) -> None:
    payloads = Sinking(str(tmp_path), log_file_bytes=20_000)
    for number in range(100):
        payloads.put(b"%d" % number + b"q" * 1000)
    payloads.close()
    logged = read(tmp_path)
    assert [payload.body[:-1000] for payload in logged[::2]] == [b"%d" % number for number in range(100)]
    assert [payload.type for payload in logged] == ["request", "response"] * 100
    assert payloads.shared["sent"] == 200
    assert 6 <= len(list(tmp_path.iterdir())) <= 10
    assert all(pq.read_schema(file).equals(schema()) for file in tmp_path.iterdir())


def test_a_file_does_not_wait_until_it_is_full(tmp_path: Path) -> None:
    payloads = Sinking(str(tmp_path), log_file_seconds=0.1)
    payloads.put(b"1")
    until(lambda: len(read(tmp_path)) == 2, "the first file")
    payloads.put(b"2")
    until(lambda: len(read(tmp_path)) == 4, "the second file")
    payloads.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_can_not_be_written_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "backoff", lambda failures: 0.1)
    folder = tmp_path / "logged"
    payloads = Sinking(str(folder), log_file_seconds=0.1)
    folder.rmdir()
    payloads.put(b"1")
    until(lambda: "can't be written" in caplog.text, "the error")
    folder.mkdir()
    until(lambda: len(read(folder)) == 2, "the file")
    payloads.close()
    assert payloads.shared["sent"] == 2


def test_what_can_not_be_written_at_the_end_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "logged"
    payloads = Sinking(str(folder))
    folder.rmdir()
    payloads.put(b"1")
    payloads.close()
    assert (payloads.shared["sent"], payloads.shared["given_up"]) == (0, 2)


def test_what_waits_at_the_end_is_written_though_the_last_file_is_late(tmp_path: Path) -> None:
    payloads = Sinking(str(tmp_path), log_file_seconds=0.1, log_file_bytes=1)
    for _ in range(50):
        payloads.put()
    payloads.close()
    assert len(read(tmp_path)) == payloads.shared["sent"] == 100
