"""The addresses on which a server listens: HTTP always, gRPC if configured."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec

from driftline.config import Server
from driftline.errors import ConfigError
from driftline.sockets import address_of, authority, bind_shared


def require_grpc() -> None:
    """Raise ConfigError if packages that gRPC needs are missing."""
    if missing := [name for name in ("grpc", "google.protobuf") if not is_installed(name)]:
        raise ConfigError(f"--grpc-port needs {' and '.join(missing)}: pip install 'driftline[grpc]'")


def is_installed(module: str) -> bool:
    """Whether a module can be imported; it is not imported here."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing, too
        return False


@contextmanager
def reserve_grpc_port(settings: Server) -> Iterator[Server]:
    """Yield the settings with the actual gRPC port, if there is one; the port is held meanwhile.

    gRPC opens the listening sockets itself, one in each process. They share the port, so without this they
    would share it with another server, too.
    """
    if settings.grpc_port is None:
        yield settings
        return
    (reserved,) = bind_shared(settings.host, settings.grpc_port, 1)
    with reserved:
        yield replace(settings, grpc_port=reserved.getsockname()[1])


def listening_addresses(listener: socket.socket, settings: Server) -> tuple[str, dict[str, str]]:
    """Return the addresses of a server as text and as log fields."""
    addresses = {"address": address_of(listener)}
    if settings.grpc_port is not None:
        addresses["grpc_address"] = f"grpc://{authority(listener.getsockname()[0], settings.grpc_port)}"
    return " and ".join(addresses.values()), addresses
