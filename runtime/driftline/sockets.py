"""Addresses to listen on."""

from __future__ import annotations

import resource
import socket

from driftline.errors import ConfigError

BACKLOG = 2048
"""Connections that may wait to be accepted."""

OPEN_FILES = 2**16
"""Connections and other files that a server may have open, if the system lets it."""


def bind(host: str, port: int, option: int = socket.SO_REUSEADDR) -> socket.socket:
    """A listening socket's address, taken; ConfigError if it can't be had.

    With SO_REUSEPORT as `option` other sockets of this kind may have the address too.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigError(f"can't listen on {host}:{port}: {error.strerror}") from error
    except UnicodeError as error:  # a name that no name service can be asked for
        raise ConfigError(f"can't listen on {host}:{port}: {error}") from error
    return listener


def bind_shared(host: str, port: int, number: int) -> list[socket.socket]:
    """So many sockets of one address, which others with SO_REUSEPORT may have too; ConfigError if it can't be
    had."""
    with bind(host, port) as first:  # alone, so that no other server's address is shared by mistake
        address = first.getsockname()
    return [bind(address[0], address[1], socket.SO_REUSEPORT) for _ in range(number)]


def allow_connections() -> None:
    """Let this process and those that it starts have OPEN_FILES open files, or as many as it may: the limit
    that a shell gives, of 1024 mostly, is a courtesy to programs that use select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def address_of(listener: socket.socket) -> str:
    """Where a socket listens, as a URL."""
    return f"http://{authority(*listener.getsockname()[:2])}"


def authority(host: str, port: int) -> str:
    """An address as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
