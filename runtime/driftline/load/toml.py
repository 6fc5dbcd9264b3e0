"""Writes a model's settings into a server's driftline.toml and keeps everything else, even comments."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from driftline.config import ServerFile
from driftline.errors import ConfigError
from driftline.load.files import check_folder, replace_file

Tables = Mapping[str, Mapping[str, Any]]
"""Settings of a model, such as {"batching": {"max_batch_rows": 64}}."""


class Edit:
    """A file, existing or new, and the model whose settings are to be written.

    Raises ConfigError if it is not a server's settings file, or can't be changed safely.
    """

    def __init__(self, path: Path, name: str) -> None:
        check_folder(path)
        if path.exists():
            ServerFile.read(path)
        self.path, self._name = path, name
        self._text = path.read_text(encoding="utf-8") if path.exists() else ""
        self.text({"batching": {"max_batch_rows": 1}, "engine": {"instances": 1, "threads": 1}})

    def write(self, tables: Tables) -> None:
        """Write the file, by rename."""
        replace_file(self.path, self.text(tables))

    def text(self, tables: Tables) -> str:
        """Return the file's new content, parsed to check that nothing but these settings has changed."""
        text = self._text
        expected = deepcopy(tomllib.loads(text))
        for table, values in tables.items():
            text = _with_table(text, ("models", self._name, table), values)
            model = expected.setdefault("models", {}).setdefault(self._name, {})
            model.setdefault(table, {}).update(values)
        if _loads(text) != expected:
            lines = "\n".join(lines_of(self._name, tables))
            raise ConfigError(
                f"{self.path}: can't be changed without losing what is in it: expected tables such as "
                f"[models.{self._name}.batching] on lines of their own; give another --output, "
                f"or write:\n{lines}"
            )
        return text


def lines_of(name: str, tables: Tables) -> Iterator[str]:
    """Yield settings of a model as lines of TOML, whose numbers, booleans and strings are those of JSON."""
    for table, values in tables.items():
        yield f"[models.{_key(name)}.{table}]"
        yield from (f"{key} = {json.dumps(value)}" for key, value in values.items())


def _with_table(text: str, path: tuple[str, str, str], values: Mapping[str, Any]) -> str:
    lines = text.splitlines(keepends=True)
    headers = [index for index, line in enumerate(lines) if line.lstrip().startswith("[")]
    start = next((index for index in headers if _header(lines[index]) == path), None)
    if start is None:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return text + gap + "\n".join(lines_of(path[1], {path[2]: values})) + "\n"
    stop = next((index for index in headers if index > start), len(lines))
    for key, value in values.items():
        line = re.compile(rf"(\s*{key}\s*=\s*)[^#\s]*")
        index = next((index for index in range(start + 1, stop) if line.match(lines[index])), None)
        if index is None:
            lines[start] = lines[start].rstrip("\n") + f"\n{key} = {value}\n"
        else:
            lines[index] = line.sub(rf"\g<1>{value}", lines[index], count=1)
    return "".join(lines)


def _header(line: str) -> tuple[str, ...]:
    """Return the path of a table from its header line; () for any other line."""
    table: Any = _loads(line)
    path = []
    while type(table) is dict and len(table) == 1:
        key, table = next(iter(table.items()))
        path.append(key)
    return tuple(path)


def _loads(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except ValueError:
        return None


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'  # names have neither " nor \
