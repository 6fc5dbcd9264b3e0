"""The report of several agents and servers: their windows added up, against the profile that they share."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any
from urllib.parse import quote

import httpx

from driftline.errors import BadRequest, DriftlineError
from driftline.monitor import window_file
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reference.storage import decode
from driftline.monitor.reporting import report
from driftline.monitor.reporting.report import Report
from driftline.monitor.window import Window
from driftline.monitor.window_file import WindowFile

TIMEOUT_SECONDS = 10.0
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Part:
    """A window that was fetched: the page of its monitor, and what it said."""

    page: str
    file: WindowFile


@dataclass(frozen=True, slots=True)
class Group:
    """The windows of one model that were counted against one profile.

    pages   where they are from
    report  of their sum
    """

    model: str
    pages: tuple[str, ...]
    report: Report

    @property
    def told(self) -> str:
        """What the report is of, in words."""
        monitors = "1 monitor has" if len(self.pages) == 1 else f"{len(self.pages)} monitors have"
        return f"{self.model}, as {monitors} seen it"

    def to_dict(self) -> dict[str, Any]:
        """As what JSON knows."""
        return {"model": self.model, "agents": list(self.pages), **self.report.to_dict()}


@dataclass(frozen=True, slots=True)
class Fleet:
    """What several say together.

    groups  by model and profile
    away    those that could not be asked, and why
    """

    groups: tuple[Group, ...]
    away: dict[str, str]


def ask(urls: Sequence[str], model: str = "") -> Fleet:
    """The current windows of agents and servers, added up.

    urls   of agents or servers, such as http://127.0.0.1:8081
    model  only this one is asked about; if empty, all that they watch
    """
    parts: list[Part] = []
    away: dict[str, str] = {}
    with (
        httpx.Client(timeout=TIMEOUT_SECONDS) as client,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        for url, found in zip(urls, threads.map(partial(_windows, client, model), urls), strict=True):
            if isinstance(found, list):
                parts += found
            else:
                away[url] = found
        alike: dict[tuple[str, str], list[Part]] = {}
        for part in parts:
            alike.setdefault((part.file.model, part.file.fingerprint), []).append(part)
        groups: list[Group] = []
        for (name, _), members in alike.items():
            try:
                groups.append(_group(client, name, members))
            except (httpx.HTTPError, DriftlineError) as error:  # it has gone meanwhile
                away |= dict.fromkeys((part.page for part in members), f"{type(error).__name__}: {error}")
        return Fleet(tuple(groups), away)


def _windows(client: httpx.Client, model: str, url: str) -> list[Part] | str:
    """The windows of one of them, or why there are none."""
    base = url.rstrip("/")
    try:
        names = [model] if model else _models(client, base)
        pages = [f"{base}/v2/models/{quote(name, safe='')}/drift" for name in names]
        parts = [Part(page, window_file.decode(_get(client, f"{page}/window"), page)) for page in pages]
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        return f"{type(error).__name__}: {error}"
    except DriftlineError as error:
        return str(error)
    return parts or "it watches no model"


def _models(client: httpx.Client, base: str) -> list[str]:
    answer = client.post(f"{base}/v2/repository/index", json={"ready": True})
    if not answer.is_success:
        raise BadRequest(f"{answer.status_code}: {answer.text[:200]}")
    try:
        return list(dict.fromkeys(entry["name"] for entry in answer.json()))
    except (ValueError, KeyError, TypeError):
        raise BadRequest("its /v2/repository/index is no agent's and no driftline server's") from None


def _get(client: httpx.Client, url: str) -> bytes:
    answer = client.get(url)
    if not answer.is_success:
        raise BadRequest(f"{answer.status_code}: {answer.text[:200]}")
    return answer.content


def _group(client: httpx.Client, model: str, parts: Sequence[Part]) -> Group:
    """The report of windows that were counted in the same bins; one of them tells the profile."""
    window = reduce(Window.merge, (part.file.window for part in parts))
    signals = [signal for part in parts for signal in part.file.signals]
    page = f"{parts[0].page}/reference"
    profile = Profile(*decode(_get(client, page), page))
    return Group(model, tuple(part.page for part in parts), report.of(profile, window, signals))
