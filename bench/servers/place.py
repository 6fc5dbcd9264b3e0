"""Where one server runs once: its programs, a folder of its own, ports, the model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.common import HOST
from bench.servers.works import Subject

APPS = Path(__file__).with_name("apps")


@dataclass(frozen=True, slots=True)
class Place:
    """What a server is told; `ports` are free ones, the first is for HTTP."""

    bin: Path
    folder: Path
    ports: tuple[int, int, int]
    subject: Subject

    def command(self, template: tuple[str, ...]) -> list[str]:
        """A command line with {bin}, {apps}, {folder}, {host} and {port} filled in."""
        known = {"bin": self.bin, "apps": APPS, "folder": self.folder, "host": HOST, "port": self.ports[0]}
        return [word.format(**known) for word in template]

    def environment(self) -> dict[str, str]:
        """The environment of a program in `apps/`."""
        port, port_2, port_3 = map(str, self.ports)
        return {
            **os.environ,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(APPS),
            "MODEL": str(self.subject.path),
            "OUTPUT": self.subject.output,
            "WIDTH": str(self.subject.width),
            "FOLDER": str(self.folder),
            "PORT": port,
            "PORT_2": port_2,
            "PORT_3": port_3,
        }
