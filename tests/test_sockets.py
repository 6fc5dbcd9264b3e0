"""Addresses to listen on."""

from __future__ import annotations

import pytest

from driftline.errors import ConfigError
from driftline.sockets import address_of, bind, bind_shared


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_an_address_is_shown_as_a_url(host: str, shown: str) -> None:
    with bind(host, 0) as listener:
        assert address_of(listener) == f"http://{shown}:{listener.getsockname()[1]}"


def test_an_address_is_shared_among_those_who_were_given_it_only() -> None:
    shared = bind_shared("127.0.0.1", 0, 2)
    with shared[0] as first, shared[1] as second:
        assert first.getsockname() == second.getsockname()
        with pytest.raises(ConfigError, match="Address already in use"):
            bind_shared(*first.getsockname(), 1)
