"""What several agents say together, when one of them is something else."""

from __future__ import annotations

from server_process import receiver

from driftline.sidecar import fleet


def test_who_is_no_agent_is_left_out_with_a_reason() -> None:
    with receiver() as (url, _):
        found = fleet.fetch_fleet([url, "http://127.0.0.1:9"])
    assert found.groups == ()
    assert "is no agent's" in found.failures[url]
    assert "refused" in found.failures["http://127.0.0.1:9"]
