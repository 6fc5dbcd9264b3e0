"""Addresses to listen on."""

from __future__ import annotations

import pytest

from driftline.sockets import address_of, bind


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_an_address_is_shown_as_a_url(host: str, shown: str) -> None:
    with bind(host, 0) as listener:
        assert address_of(listener) == f"http://{shown}:{listener.getsockname()[1]}"
