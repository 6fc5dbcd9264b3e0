"""The Open Inference Protocol over gRPC, beside HTTP. Needs the extra `grpc`; imported only if served."""

import os

# gRPC reads these when it is imported. Our log does not need its core's messages about clients, and the
# processes that we start have no use for its state.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
