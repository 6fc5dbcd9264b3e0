"""The messages of the services, in a descriptor pool of their own.

A client in the same process, Triton's or KServe's, has messages of the same names in protobuf's default pool,
which takes each name only once.

`messages.binpb` is what protoc makes of the `.proto` files beside it: `make messages`.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    files(__package__).joinpath("messages.binpb").read_bytes()
).file:
    POOL.Add(_file)


def message(name: str) -> Any:
    """Return the class of a message, such as `inference.ModelInferRequest`."""
    return class_of(POOL.FindMessageTypeByName(name))


def class_of(descriptor: Any) -> Any:
    """Return the class of a message by its descriptor."""
    return message_factory.GetMessageClass(descriptor)


ModelInferRequest = message("inference.ModelInferRequest")
ModelInferResponse = message("inference.ModelInferResponse")
ModelStreamInferResponse = message("inference.ModelStreamInferResponse")
HealthCheckResponse = message("grpc.health.v1.HealthCheckResponse")
