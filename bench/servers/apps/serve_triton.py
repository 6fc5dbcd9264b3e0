"""Triton's Python backend: Triton batches, and gives what it has put together to `execute`."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb
from session import OUTPUT, Session


class TritonPythonModel:
    """The model that tritonserver loads."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load it."""
        self.session = Session()

    def execute(self, requests: list[Any]) -> list[Any]:
        """The answers to all requests of a batch."""
        matrices = [pb.get_input_tensor_by_name(request, "input").as_numpy() for request in requests]
        parts = self.session.run_together(matrices)
        return [pb.InferenceResponse([pb.Tensor(OUTPUT, rows)]) for rows in parts]
