"""Ray Serve: one replica, `serve.batch`, its own HTTP proxy."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray import serve
from session import Session
from starlette.requests import Request

Rows = npt.NDArray[np.float32]


@serve.deployment(num_replicas=1, max_ongoing_requests=512)
class Served:
    """One matrix a request."""

    def __init__(self) -> None:
        self.session = Session()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def predict(self, matrices: list[Rows]) -> list[Rows]:
        """All requests of a batch."""
        return self.session.run_together(matrices)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """The answer to one of them."""
        rows = await self.predict(np.array((await request.json())["rows"], np.float32))
        return {"rows": rows.tolist()}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Served.bind(), route_prefix="/", blocking=True)
