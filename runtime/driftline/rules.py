"""Checks of settings: which values each may have."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import SplitResult, urlsplit

Check = Callable[[Any], bool]

_DEVICES = "'cpu', 'cuda', 'cuda:N', 'cuda:N,M', 'cuda:all' or 'auto'"
"""Where a model may run: 'cuda' is the first GPU; so is 'auto' if that can be used, else the CPU."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which values a setting may have, in words and in code."""

    allowed: str
    check: Check
    choices: tuple[str, ...] = ()
    """All of them, if they are few."""


def setting(default: Any, rule: Rule, about: str = "", *aliases: str, **flag: Any) -> Any:
    """Return a dataclass field with its rule and, if commands have a flag for it, the flag's options.

    `about` is the flag's help, `aliases` are other spellings, `flag` are further arguments for click.
    """
    return field(
        default=default, metadata={"rule": rule, "aliases": aliases, "flag": {"help": about, **flag}}
    )


def number(
    minimum: float,
    maximum: float | None = None,
    what: str = "a number",
    kinds: tuple[type, ...] = (int, float),
) -> Rule:
    """Return a rule for numbers, not booleans, from `minimum` on, up to `maximum` if it is given."""
    end = sys.float_info.max if maximum is None else maximum  # neither NaN nor infinity
    return Rule(
        f"{what} from {minimum:g}" + ("" if maximum is None else f" to {maximum:g}"),
        lambda value: type(value) in kinds and minimum <= value <= end,
    )


def whole(minimum: int, maximum: int | None = None, what: str = "a whole number") -> Rule:
    """Return such a rule for whole numbers."""
    return number(minimum, maximum, what, (int,))


def text(allowed: str, pattern: str = "(?s).*") -> Rule:
    """Return a rule for text that matches a pattern, which `allowed` describes."""
    return Rule(allowed, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def one_of(*choices: str) -> Rule:
    """Return a rule for one of a few words."""
    words = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
    return Rule(words, lambda value: value in choices, choices)


def url_parts(text: str) -> SplitResult | None:
    """Return the parts of an http:// or https:// URL; None if it is none, or has no host or a wrong port.

    One with control characters or with spaces around it is none: urlsplit drops them, HTTP clients do not.
    """
    if not text.isprintable() or text != text.strip():
        return None
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if is_valid else None


def host_and_port(parts: SplitResult) -> str:
    """HOST or HOST:PORT, as a URL has it: what messages show of one whose other parts may be secret."""
    return parts.netloc.rpartition("@")[2]


def is_url(value: object, pattern: str = "(?s).*") -> bool:
    """Return whether it is such a URL, and matches this pattern."""
    return (
        isinstance(value, str) and re.fullmatch(pattern, value) is not None and url_parts(value) is not None
    )


def without_secrets(text: str) -> str:
    """Return a text for messages: of a URL, without user, password and query.

    Of one whose password may contain a ? or #, only the scheme is left.
    """
    scheme, rest = re.fullmatch(r"(?s)([\w+.-]+://)?(.*)", text).groups("")  # type: ignore[union-attr]
    visible, query = re.fullmatch(r"(?s)([^?#]*)(.*)", rest).groups()  # type: ignore[union-attr]
    if "@" in query and "/" not in visible:
        return scheme + "..."
    visible = re.sub(r"(?s).*@", "...@", visible)
    return scheme + visible + ("?..." if query and (scheme or "=" in query) else query)


SWITCH = Rule("true or false", lambda value: type(value) is bool)
SECONDS = number(0, what="seconds")
PORT = whole(0, 65535, "a port")
PORT_OR_NONE = Rule(PORT.allowed, lambda value: value is None or PORT.check(value))
HOST = text("a host name or address", "(?s).+")
WEBHOOK = Rule("an http:// or https:// URL", lambda value: value == "" or is_url(value))
UPSTREAM = Rule(
    "an http:// URL of a server, without a user or a password",
    lambda value: value == "" or is_url(value, r"http://[^/?#@\s]+/?"),
)
LOG_FORMAT = one_of("text", "json")
LOG_LEVEL = one_of("debug", "info", "warning", "error")


def is_device(value: object) -> bool:
    """Return whether it names the CPU or GPUs, none of them twice."""
    if not isinstance(value, str):
        return False
    if re.fullmatch(r"auto|cpu|cuda(:all|:\d{1,4}(,\d{1,4})*)?", value, re.ASCII) is None:
        return False
    gpus = [int(gpu) for gpu in re.findall(r"\d+", value)]
    return len(gpus) == len(set(gpus))


def is_ascending(value: object) -> bool:
    """Return whether it is a list of whole numbers from 1, each greater than the one before."""
    return (
        isinstance(value, (list, tuple))
        and all(type(item) is int and item > 0 for item in value)
        and all(first < second for first, second in pairwise(value))
    )


DEVICE = Rule(_DEVICES, is_device)
BUCKETS = Rule("ascending whole numbers from 1, in a list", is_ascending)
