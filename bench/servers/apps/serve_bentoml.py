"""BentoML: adaptive batches, one worker."""

from __future__ import annotations

import bentoml
import numpy as np
from session import Session


@bentoml.service(workers=1, traffic={"timeout": 60})
class Served:
    """One matrix a request."""

    def __init__(self) -> None:
        self.session = Session()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=128, max_latency_ms=60_000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """All rows of a batch."""
        return self.session.run(rows.astype(np.float32))
