"""A real Triton and a real MLServer behind `driftline monitor --upstream`, as bench/servers starts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from bench import models
from bench.servers.catalogue import PEERS
from bench.servers.environment import Unavailable
from bench.servers.visit import started
from bench.servers.works import Subject
from scraping import Scrape
from sidecar_process import monitoring
from tritonclient.utils import InferenceServerException
from waiting import until

from driftline.monitor.reference.profile import Profile

pytestmark = [pytest.mark.timeout(600)]  # the server may have to be installed first

BINARY = {"triton": True, "mlserver": False}
"""Whether a server knows tensors as bytes."""

RAW = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v2", {}),
    ("GET", "/v2/health/live", {}),
    ("GET", "/v2/health/ready", {}),
    ("GET", "/v2/models/model", {}),
    ("GET", "/v2/models/model/ready", {}),
    ("GET", "/v2/models/none", {}),
    ("GET", "/nothing", {}),
    ("POST", "/v2/models/none/infer", {"json": {"inputs": []}}),
    ("POST", "/v2/models/model/infer", {"content": b"{"}),
    ("POST", "/v2/models/model/infer", {"json": {"inputs": [{"name": "input"}]}}),
    ("POST", "/v2/models/model/infer", {"content": models.rows(1, 3).tobytes(), "headers": RAW}),
]
"""What is not an inference, what is wrong, and last a raw request, which Triton alone knows."""


def infer(client: triton.InferenceServerClient, rows: np.ndarray, binary: bool, **how: Any) -> Any:
    """What tritonclient makes of the answer: its JSON and its numbers, or the error."""
    tensor = triton.InferInput("input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    wanted = [triton.InferRequestedOutput("output", binary_data=binary)]
    try:
        answer = client.infer("model", [tensor], outputs=wanted, request_id="7", **how)
    except InferenceServerException as error:
        return str(error)
    return answer.get_response(), answer.as_numpy("output").tobytes()


def seen(url: str) -> list[Any]:
    """All that a server answers to a client that asks all kinds of things."""
    rows = models.rows(7, 3)
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        found: list[Any] = [
            infer(client, rows, binary, request_compression_algorithm=compression)
            for binary in (False, True)
            for compression in (None, "gzip")
        ]
        found += client.get_server_metadata(), client.get_model_metadata("model")
    with httpx.Client(base_url=url, timeout=60) as client:
        for method, path, content in OTHERS:
            answer = client.request(method, path, **content)
            found.append((path, answer.status_code, answer.content, set(answer.headers) - {"connection"}))
    return found


@pytest.mark.parametrize("name", BINARY)
def test_what_passes_is_the_same_and_is_watched(name: str, tmp_path: Path) -> None:
    peer = next(peer for peer in PEERS if peer.name == name)
    profile = tmp_path / "profile.arrow"
    reference = models.rows(5000, 3)
    Profile.fit({"input": reference, "output": 2 * reference}).save(profile)
    sharp = ("--look-rows", "100", "--look-seconds", "0", "--false-alarm-rows", "100000")
    try:
        with (
            started(peer, Subject("double", models.double(), 3, "output")) as (_, port, _),
            monitoring(profile, url := f"http://127.0.0.1:{port}", *sharp) as agent,
        ):
            direct = seen(url)
            assert seen(agent.traffic) == direct
            right = (2 * models.rows(7, 3)).tobytes()
            numbers = [one[1] for one in direct[:4] if not isinstance(one, str)]
            assert numbers == [right] * (4 if BINARY[name] else 2)
            assert (direct[-1][1] == 200) == BINARY[name]
            answered = len(numbers) + BINARY[name]

            def observed(count: int) -> None:
                until(
                    lambda: Scrape(agent)("driftline_exchanges_total", outcome="observed") == count,
                    f"{count} observed requests",
                )

            observed(answered)
            assert Scrape(agent)("driftline_exchanges_total", outcome="failed") == 0
            with triton.InferenceServerClient(agent.traffic.removeprefix("http://")) as client:
                for part in np.split(models.rows(2000, 3, seed=2), 20):
                    infer(client, part, BINARY[name])
                observed(answered + 20)
                assert agent.get("/drift").json()["alarms"] == []
                for part in np.split(models.rows(2000, 3, seed=3) + np.float32([0, 1, 0]), 20):
                    infer(client, part, BINARY[name])
                observed(answered + 40)

            def alarms() -> set[str]:
                return {signal["column"] for signal in agent.get("/drift").json()["alarms"]}

            until(lambda: {"input_1", "output_1"} <= alarms(), "alarms of what has moved")
            assert not {"input_0", "input_2", "output_0", "output_2"} & alarms()
            assert agent.stop() == 0
    except Unavailable as error:
        pytest.skip(f"{peer.title}: {error}")
