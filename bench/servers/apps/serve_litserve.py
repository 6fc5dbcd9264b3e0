"""LitServe: dynamic batches, one worker, one process for HTTP."""

from __future__ import annotations

import os
from typing import Any

import litserve as ls
import numpy as np
import numpy.typing as npt
from session import Session

Rows = npt.NDArray[np.float32]


class Served(ls.LitAPI):
    """One matrix a request."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.session = Session()

    def decode_request(self, request) -> Rows:  # type: ignore[no-untyped-def]  # LitServe reads a type as a schema
        """Rows of a request."""
        return np.array(request["rows"], np.float32)

    def batch(self, inputs: list[Rows]) -> list[Rows]:
        """Requests may differ in their number of rows, so they are put together in `predict`."""
        return inputs

    def predict(self, batch: list[Rows]) -> list[Rows]:
        """All requests of a batch."""
        return self.session.run_together(batch)

    def unbatch(self, output: list[Rows]) -> list[Rows]:
        """They are apart already."""
        return output

    def encode_response(self, output: Rows) -> dict[str, Any]:
        """The answer to one of them."""
        return {"rows": output.tolist()}


if __name__ == "__main__":
    api = Served(max_batch_size=64, batch_timeout=0.001)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
    )
