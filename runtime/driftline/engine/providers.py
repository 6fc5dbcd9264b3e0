"""What ONNX Runtime is told of a card: its providers, the first before the others, and their options."""

from __future__ import annotations

from collections.abc import Mapping

from driftline.engine.device import PROVIDER, Device

Provider = tuple[str, Mapping[str, str]]


def cuda(device: Device, graphs: bool) -> Provider:
    """ONNX Runtime's own kernels, on a card's stream.

    graphs  whether runs can be recorded; ONNX Runtime refuses a model then that has control flow or work
            for the CPU
    """
    options = {"device_id": str(device.index), "user_compute_stream": str(device.stream)}
    return PROVIDER, options | ({"enable_cuda_graph": "1"} if graphs else {})
