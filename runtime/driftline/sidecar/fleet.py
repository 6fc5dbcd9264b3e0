"""The report of several agents and servers: their summed windows against their common profile."""

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
MAX_CONCURRENT = 16


@dataclass(frozen=True, slots=True)
class Part:
    """A fetched window and the page of its monitor."""

    page: str
    file: WindowFile


@dataclass(frozen=True, slots=True)
class Group:
    """The windows of one model counted against one profile.

    pages   their sources
    report  of their sum
    """

    model: str
    pages: tuple[str, ...]
    report: Report

    @property
    def title(self) -> str:
        """Return what the report covers, in words."""
        text = f"{self.model}: drift"
        return text if len(self.pages) == 1 else f"{text}, of {len(self.pages)} servers together"

    def to_dict(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return {"model": self.model, "agents": list(self.pages), **self.report.to_dict()}


@dataclass(frozen=True, slots=True)
class Fleet:
    """The combined reports of several monitors.

    groups    by model and profile
    failures  the URLs that could not be fetched, and why
    """

    groups: tuple[Group, ...]
    failures: dict[str, str]


def fetch_fleet(urls: Sequence[str], model: str = "") -> Fleet:
    """Fetch and add up the current windows of agents and servers.

    urls   of agents or servers, such as http://127.0.0.1:8081
    model  request only this one; if empty, all that they watch
    """
    parts: list[Part] = []
    failures: dict[str, str] = {}
    with (
        httpx.Client(timeout=TIMEOUT_SECONDS) as client,
        ThreadPoolExecutor(MAX_CONCURRENT) as threads,
    ):
        for url, result in zip(urls, threads.map(partial(_fetch_windows, client, model), urls), strict=True):
            if isinstance(result, list):
                parts += result
            else:
                failures[url] = result
        parts_by_profile: dict[tuple[str, str], list[Part]] = {}
        for part in parts:
            parts_by_profile.setdefault((part.file.model, part.file.fingerprint), []).append(part)
        groups: list[Group] = []
        for (name, _), members in parts_by_profile.items():
            try:
                groups.append(_make_group(client, name, members))
            except (httpx.HTTPError, DriftlineError) as error:  # it has disappeared meanwhile
                failures |= dict.fromkeys((part.page for part in members), f"{type(error).__name__}: {error}")
        return Fleet(tuple(groups), failures)


def _fetch_windows(client: httpx.Client, model: str, url: str) -> list[Part] | str:
    """Return the windows of one of them, or why there are none."""
    base = url.rstrip("/")
    try:
        names = [model] if model else _fetch_models(client, base)
        pages = [f"{base}/v2/models/{quote(name, safe='')}/drift" for name in names]
        parts = [Part(page, window_file.decode(_get(client, f"{page}/window"), page)) for page in pages]
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        return f"{type(error).__name__}: {error}"
    except DriftlineError as error:
        return str(error)
    return parts or "it watches no model"


def _fetch_models(client: httpx.Client, base: str) -> list[str]:
    response = client.post(f"{base}/v2/repository/index", json={"ready": True})
    if not response.is_success:
        raise BadRequest(f"{response.status_code}: {response.text[:200]}")
    try:
        return list(dict.fromkeys(entry["name"] for entry in response.json()))
    except (ValueError, KeyError, TypeError):
        raise BadRequest("its /v2/repository/index is no agent's and no driftline server's") from None


def _get(client: httpx.Client, url: str) -> bytes:
    response = client.get(url)
    if not response.is_success:
        raise BadRequest(f"{response.status_code}: {response.text[:200]}")
    return response.content


def _make_group(client: httpx.Client, model: str, parts: Sequence[Part]) -> Group:
    """Return the report of windows counted in the same bins; the first one's monitor has the profile."""
    window = reduce(Window.merge, (part.file.window for part in parts))
    signals = [signal for part in parts for signal in part.file.signals]
    page = f"{parts[0].page}/reference"
    profile = Profile(*decode(_get(client, page), page))
    return Group(model, tuple(part.page for part in parts), report.of(profile, window, signals))
