"""All that was seen, kept line by line: an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from bench.servers.visit import Seen


class Record:
    """A file of JSON lines: what was seen, and which visits are over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[Seen] = []
        self._over: set[tuple[int, str]] = set()
        if path.exists():
            self._read()

    def _read(self) -> None:
        """Take over the visits that are over; what was seen of the last, which was cut off, is dropped."""
        visit: list[str] = []
        kept: list[str] = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            visit.append(line)
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break  # the line that was being written
            if "over" in entry:
                self._over.add((entry["round"], entry["server"]))
                self.seen += [Seen(**json.loads(one)) for one in visit[:-1]]
                kept += visit
                visit = []
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def has(self, number: int, server: str) -> bool:
        """Whether a server's visit of a round is over."""
        return (number, server) in self._over

    def add(self, number: int, server: str, seen: Iterable[Seen]) -> None:
        """Keep a visit, each figure as soon as it is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found = []
        with self.path.open("a", encoding="utf-8") as file:
            for one in seen:
                found.append(one)
                file.write(json.dumps(asdict(one)) + "\n")
                file.flush()
            file.write(json.dumps({"round": number, "server": server, "over": True}) + "\n")
        self.seen += found
        self._over.add((number, server))
