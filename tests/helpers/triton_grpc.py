"""Triton's gRPC client, in a process that has KServe's, too.

Both put their messages into protobuf's default pool, under the same names, so only one can be imported. Here
Triton's finds another pool in its place, and is unchanged otherwise.
"""

from __future__ import annotations

from unittest.mock import patch

from google.protobuf import descriptor_pool

_POOL = descriptor_pool.DescriptorPool()

with patch.object(descriptor_pool, "Default", lambda: _POOL):
    import tritonclient.grpc as triton
    import tritonclient.grpc.aio as triton_aio

__all__ = ["triton", "triton_aio"]
