"""Where a server listens: HTTP always, gRPC if that is set."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec

from driftline.config import Server
from driftline.errors import ConfigError
from driftline.sockets import address_of, authority, bind_shared


def expect_grpc() -> None:
    """ConfigError if what gRPC needs is not installed."""
    if missing := [name for name in ("grpc", "google.protobuf") if not is_installed(name)]:
        raise ConfigError(f"--grpc-port needs {' and '.join(missing)}: pip install 'driftline[grpc]'")


def is_installed(module: str) -> bool:
    """Whether a module can be imported, which it is not."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is what it is in
        return False


@contextmanager
def grpc_reserved(settings: Server) -> Iterator[Server]:
    """The settings with the number of the port of gRPC, if there is to be one, which is held meanwhile.

    The sockets that listen are gRPC's own, one in each process. They share the port, so they would share it
    with another server, too.
    """
    if settings.grpc_port is None:
        yield settings
        return
    (holding,) = bind_shared(settings.host, settings.grpc_port, 1)
    with holding:
        yield replace(settings, grpc_port=holding.getsockname()[1])


def listens_on(listener: socket.socket, settings: Server) -> tuple[str, dict[str, str]]:
    """Where a server listens, for a person and for a machine."""
    addresses = {"address": address_of(listener)}
    if settings.grpc_port is not None:
        addresses["grpc_address"] = f"grpc://{authority(listener.getsockname()[0], settings.grpc_port)}"
    return " and ".join(addresses.values()), addresses
