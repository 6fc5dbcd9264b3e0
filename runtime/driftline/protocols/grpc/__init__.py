"""The Open Inference Protocol over gRPC: messages to tensors and back. Needs the extra `grpc`."""
