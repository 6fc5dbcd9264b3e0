"""Sockets and addresses to listen on."""

from __future__ import annotations

import resource
import socket

from driftline.errors import ConfigError

BACKLOG = 2048
"""Connections that may wait to be accepted."""

OPEN_FILES = 2**16
"""Connections and other files that a server may have open, if the system lets it."""


def bind(host: str, port: int, option: int = socket.SO_REUSEADDR) -> socket.socket:
    """Return a socket bound to an address, to listen on; ConfigError if that fails.

    With SO_REUSEPORT as `option`, other sockets with this option may bind to the address too.
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
    except UnicodeError as error:  # a name that can't be looked up
        raise ConfigError(f"can't listen on {host}:{port}: {error}") from error
    return listener


def bind_shared(host: str, port: int, number: int) -> list[socket.socket]:
    """Return `number` sockets bound to one address, which others with SO_REUSEPORT may share; ConfigError if
    that fails."""
    with bind(host, port) as first:  # alone, so that no other server's address is shared by mistake
        address = first.getsockname()
    return [bind(address[0], address[1], socket.SO_REUSEPORT) for _ in range(number)]


def allow_connections() -> None:
    """Raise the limit of open files of this process and its children to OPEN_FILES, or as far as allowed: the
    usual limit, 1024, is for programs that use select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def address_of(listener: socket.socket) -> str:
    """Return the address of a listening socket as a URL."""
    return f"http://{authority(*listener.getsockname()[:2])}"


def authority(host: str, port: int) -> str:
    """Return an address in the form it has in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
