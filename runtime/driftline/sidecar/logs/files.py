"""The source for logs in files: resumes where it stopped, and follows growing and new files.

What was read of a file is counted in one step with its new position: a checkpoint has both or neither. A file
is identified by its inode, its first bytes and the last bytes read: a renamed one is not read twice, and one
that was truncated and has grown again is a new file.
"""

from __future__ import annotations

import asyncio
import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from starlette.types import ASGIApp

from driftline.columns import columns_of
from driftline.errors import BadRequest, DriftlineError
from driftline.protocols import cloudevents
from driftline.protocols.payloads import COLUMNS, Payload, of_event, of_table
from driftline.sidecar.agent import Agent
from driftline.sidecar.exchange import Body, Exchange
from driftline.sidecar.logs.events import halves_metrics, hand_in
from driftline.sidecar.logs.halves import Halves

log = logging.getLogger("driftline.sidecar")

KINDS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "lines", ".ndjson": "lines"}
"""Endings of file names, before the numbers that a rotation adds."""

POLL_SECONDS = 1.0
CHUNK_BYTES = 4 * 2**20
MAX_LINE_BYTES = 64 * 2**20
CHUNK_ROWS = 16_384

FORGET_SECONDS = 3600.0
"""How long a position is kept after its file was last seen: a volume may mount late, a rename hides it."""

MAX_UNSEEN = 20_000
"""Most positions of unseen files; beyond that, those unseen for longest are forgotten."""

_ROTATED = re.compile(r"(\.\d+)+\Z")
_HEAD_BYTES = _LAST_BYTES = 256
_PAYLOAD_COLUMNS = {"id", "type", "body"}
_REQUIRED = tuple(name for name in COLUMNS if name not in ("json_length", "status"))


@dataclass(slots=True)
class Position:
    """How far a file has been read.

    done     rows of Parquet, else bytes
    first    number of bytes at its beginning that `digest` covers
    header   the first line of CSV
    passing  whether this is inside a line that is too long and is skipped up to the next newline
    last     the digest of the bytes before `done`; empty for Parquet, which is not written in parts
    """

    inode: int
    first: int
    digest: str
    done: int = 0
    header: str = ""
    passing: bool = False
    last: str = ""


class Files:
    """The source; see agent.Source.

    pattern       of paths, or a folder
    join_bytes    of halves of exchanges that may wait for the others
    join_seconds  that a half waits
    """

    name = "files"

    def __init__(self, pattern: str, join_bytes: int, join_seconds: float) -> None:
        self.endpoints: Mapping[str, ASGIApp] = {}
        self.halves = Halves(join_bytes, join_seconds)
        self.counts: Counter[str] = Counter(dict.fromkeys(("read", "malformed", "failed"), 0))
        self._pattern = pattern
        self._positions: dict[int, Position] = {}
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._logged: dict[str, str] = {}  # why a file, or a scan, has failed
        self._empty_logged = False  # there is nothing to read, and that was logged
        self._unseen: dict[int, float] = {}  # inodes, and since when; the earliest first
        self._closed = Event()
        self._thread: Thread | None = None

    # -- the source ---------------------------------------------------------------------------------

    async def start(self, agent: Agent, state: Any) -> None:
        """See Source."""
        if state is not None:
            self._positions = {position["inode"]: Position(**position) for position in state["places"]}
            self.halves.restore(state["halves"], monotonic())
        self._thread = Thread(target=self._run, args=(agent,), name="driftline-files", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """See Source: the rest is read after the next start."""
        self._closed.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def state(self) -> Any:
        """See Source."""
        positions = [asdict(position) for position in self._positions.values()]
        return {"places": positions, "halves": self.halves.snapshot()}

    def metrics(self) -> Iterator[Metric]:
        """See Source."""
        yield from halves_metrics("files", self.halves)
        parts = CounterMetricFamily(
            "driftline_file_parts", "Parts of files that were read, by outcome", labels=["outcome"]
        )
        for outcome, count in self.counts.items():
            parts.add_metric([outcome], count)
        yield parts

    # -- in the thread ------------------------------------------------------------------------------

    def _run(self, agent: Agent) -> None:
        while not self._closed.is_set():
            try:
                self._scan(agent)
            except Exception as error:  # a folder that can't be listed, say: the next scan may succeed
                self._fail("failed", self._pattern, error)
            else:
                self._logged.pop(self._pattern, None)
            self._closed.wait(POLL_SECONDS)

    def _scan(self, agent: Agent) -> None:
        """Read what is new since the last scan; OSError if the files can't be listed."""
        with agent.state_lock:
            hand_in(agent, self.halves.expire(monotonic()))
        for path in self._paths():
            try:
                self._read(path, agent)
            except Exception as error:  # whatever is in it; it is read again when it has changed
                is_temporary = isinstance(error, OSError) and error.errno is not None  # Arrow's own have none
                if is_temporary:
                    self._seen.pop(path, None)
                self._fail("failed" if is_temporary else "malformed", str(path), error)

    def _fail(self, outcome: str, name: str, error: Exception) -> None:
        """Count a failure; log it if it differs from the last one of that file or pattern."""
        self.counts[outcome] += 1
        reason = " ".join(str(error).split()) or type(error).__name__
        if self._logged.get(name) != reason:
            self._logged[name] = reason
            log.warning("%s: %s", name, reason)

    def _paths(self) -> list[Path]:
        """Return the files that have changed since the last scan, by name."""
        folder = Path(self._pattern)
        matching = (
            folder.iterdir() if folder.is_dir() else map(Path, glob.glob(self._pattern, recursive=True))
        )
        paths = sorted(matching)
        changed: list[Path] = []
        present: dict[Path, tuple[int, int, int]] = {}
        for path in paths:
            if path.name.startswith(".") or _kind(path) is None or not os.path.isfile(path):
                continue
            try:
                stat = path.stat()
            except OSError:  # removed meanwhile
                continue
            present[path] = stamp = stat.st_ino, stat.st_size, stat.st_mtime_ns
            if self._seen.get(path) != stamp:
                changed.append(path)
        self._seen = present
        self._warn_if_empty(len(paths))
        self._logged = {str(path): self._logged[str(path)] for path in present if str(path) in self._logged}
        self._forget({inode for inode, _, _ in present.values()}, monotonic())
        return changed

    def _warn_if_empty(self, file_count: int) -> None:
        """Log once that there is nothing to read, until there is: a pattern may be wrong or early."""
        if self._seen:
            self._empty_logged = False
        elif not self._empty_logged:
            self._empty_logged = True
            ignored = f", {file_count} with other endings than {', '.join(KINDS)}" if file_count else ""
            log.warning("%s: no files to read%s; looking every %g s", self._pattern, ignored, POLL_SECONDS)

    def _forget(self, present: set[int], now: float) -> None:
        """Drop the positions of inodes that have been gone for long; a scan without files does not count."""
        if not present:
            self._unseen.clear()
            return
        gone = self._positions.keys() - present
        self._unseen = {inode: since for inode, since in self._unseen.items() if inode in gone}
        for inode in gone - self._unseen.keys():
            self._unseen[inode] = now
        positions = dict(self._positions)
        for inode, since in list(self._unseen.items()):
            if now - since < FORGET_SECONDS and len(self._unseen) <= MAX_UNSEEN:
                break
            del self._unseen[inode], positions[inode]
        self._positions = positions  # in one assignment: a checkpoint may be reading it

    def _read(self, path: Path, agent: Agent) -> None:
        """Read a file from where it was left."""
        with path.open("rb") as file:
            with agent.state_lock:
                position = self._position_of(file, _kind(path) == "parquet")
            if _kind(path) == "parquet":
                self._read_parquet(file, position, agent)
            else:
                self._read_text(file, position, agent, _kind(path) == "csv")

    def _position_of(self, file: Any, rows: bool) -> Position:
        """Return where a file was left, in rows or bytes; its beginning if it is a different file."""
        stat = os.fstat(file.fileno())
        position = self._positions.get(stat.st_ino)
        if position is not None:
            same = sha256(file.read(position.first)).hexdigest() == position.digest
            if same and (rows or position.done <= stat.st_size):
                if not position.last or _tail_digest(file, position.done) == position.last:
                    return position
            file.seek(0)
        head = file.read(_HEAD_BYTES)
        self._positions[stat.st_ino] = position = Position(stat.st_ino, len(head), sha256(head).hexdigest())
        return position

    def _read_parquet(self, file: Any, position: Position, agent: Agent) -> None:
        with pq.ParquetFile(file) as table:
            rows_read = 0
            for batch in table.iter_batches(CHUNK_ROWS):
                rows = batch.slice(max(0, position.done - rows_read))
                rows_read += len(batch)
                if self._closed.is_set():
                    return
                if len(rows):
                    self._count(agent, position, rows_read, rows, None)

    def _read_text(self, file: Any, position: Position, agent: Agent, csv: bool) -> None:
        while not self._closed.is_set():
            file.seek(position.done)
            if position.passing:
                if not self._skip_line(file, position, agent):
                    return
                continue
            part = _next_lines(file, csv)
            if part is None:
                with agent.state_lock:
                    self.counts["malformed"] += 1
                    agent.fail(f"a line: expected at most {MAX_LINE_BYTES} bytes, got more")
                    position.passing = True
                continue
            if not part:
                return  # the last line is incomplete
            done, header = position.done + len(part), position.header
            if csv and not header:
                first, _, part = part.partition(b"\n")
                header = first.decode("utf-8", "replace").rstrip("\r")
            self._count(agent, position, done, None, part, header, _tail_digest(file, done))

    def _skip_line(self, file: Any, position: Position, agent: Agent) -> bool:
        """Skip a chunk of a line that is too long, up to its end at most; False at the end of the file."""
        chunk = file.read(CHUNK_BYTES)
        end = chunk.find(b"\n") + 1
        done = position.done + (end or len(chunk))
        last = _tail_digest(file, done)
        with agent.state_lock:
            position.done, position.passing, position.last = done, not end, last
        return bool(chunk)

    def _count(
        self,
        agent: Agent,
        position: Position,
        done: int,
        rows: Any,
        text: bytes | None,
        header: str = "",
        last: str = "",
    ) -> None:
        """Count a part of a file and move its position, in one step; skip what can't be read."""
        with agent.state_lock:
            try:
                if rows is not None:
                    self._count_table(agent, pa.table(rows))
                elif text and header:
                    self._count_csv(agent, header, text)
                elif text:
                    self._count_lines(agent, text)
                self.counts["read"] += 1
            except Exception as error:  # whatever is in it: the thread must not be stuck on it forever
                self.counts["malformed"] += 1
                agent.fail(str(error) or type(error).__name__)
            position.done, position.header, position.last = done, header, last

    def _count_table(self, agent: Agent, table: Any) -> None:
        if set(table.column_names) >= _PAYLOAD_COLUMNS:
            complete = table.filter(_complete_rows(table))
            for _ in range(len(table) - len(complete)):
                agent.fail(f"a payload: expected {', '.join(_REQUIRED)}, got a null among them")
            self._join(agent, of_table(complete))
        else:
            agent.observe_columns(columns_of(table))

    def _count_csv(self, agent: Agent, header: str, text: bytes) -> None:
        if {name.strip('" ') for name in header.split(",")} >= _PAYLOAD_COLUMNS:
            raise BadRequest("payloads: expected Parquet or JSON lines, got CSV")
        agent.observe(Exchange("", Body(header.encode() + b"\n" + text, b"text/csv")))

    def _count_lines(self, agent: Agent, text: bytes) -> None:
        """Count lines that are events, or objects of columns."""
        records: list[bytes] = []
        payloads: list[Payload] = []
        for line in text.splitlines():
            if not line.strip():
                continue
            try:
                if b'"specversion"' in line:
                    payloads.append(of_event(cloudevents.from_http(_STRUCTURED, line)[0]))
                elif type(orjson.loads(line)) is dict:
                    records.append(line)
                else:
                    raise BadRequest("a line: expected an object")
            except (DriftlineError, orjson.JSONDecodeError) as error:
                agent.fail(str(error))
        self._join(agent, payloads)
        if records:
            body = b'{"dataframe_records":[%b]}' % b",".join(records)
            agent.observe(Exchange("", Body(body)))

    def _join(self, agent: Agent, payloads: Iterator[Payload] | Sequence[Payload]) -> None:
        now = monotonic()
        pairs = (self.halves.add(payload.id, payload, now) for payload in payloads)
        hand_in(agent, [pair for pair in pairs if pair is not None])


def _complete_rows(table: Any) -> Any:
    """Return a mask of the rows that have all that a payload must have."""
    valid = (pc.is_valid(table.column(name)) for name in _REQUIRED if name in table.column_names)
    return reduce(pc.and_, valid)


_STRUCTURED = [(b"content-type", cloudevents.STRUCTURED.encode())]


def _tail_digest(file: Any, done: int) -> str:
    """Return the digest of the bytes before a position."""
    start = max(0, done - _LAST_BYTES)
    file.seek(start)
    return sha256(file.read(done - start)).hexdigest()


def _kind(path: Path) -> str | None:
    return KINDS.get(Path(_ROTATED.sub("", path.name)).suffix)


def _next_lines(file: Any, csv: bool) -> bytes | None:
    """Return the next complete lines; empty if there is none yet, None if the line is too long."""
    chunk, size = file.read(CHUNK_BYTES), CHUNK_BYTES
    while (end := _end_of_lines(chunk, csv)) == 0:
        if len(chunk) < size:
            return b""
        if size >= MAX_LINE_BYTES:
            return None
        chunk, size = chunk + file.read(size), 2 * size
    return bytes(chunk[:end])


def _end_of_lines(chunk: bytes, csv: bool) -> int:
    """Return where the last complete line ends; in CSV, quoted values may contain newlines."""
    if not csv:
        return chunk.rfind(b"\n") + 1
    values = np.frombuffer(chunk, np.uint8)
    within = np.logical_xor.accumulate(values == ord('"'))
    ends = (values == ord("\n")) & ~within
    return len(chunk) - int(ends[::-1].argmax()) if ends.any() else 0
