"""mosec: a Rust front, one Python worker, dynamic batches; JSON as its own default."""

from __future__ import annotations

from typing import Any

import numpy as np
from mosec import Server, Worker
from session import Session


class Model(Worker):
    """One matrix a request."""

    def __init__(self) -> None:
        self.session = Session()

    def forward(self, data: list[Any]) -> list[Any]:
        """All that waits, as one batch."""
        matrices = [np.array(one["rows"], np.float32) for one in data]
        return [{"rows": rows.tolist()} for rows in self.session.run_together(matrices)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, max_batch_size=64, max_wait_time=1)
    server.run()
