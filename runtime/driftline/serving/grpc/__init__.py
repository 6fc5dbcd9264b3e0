"""The Open Inference Protocol over gRPC, beside HTTP. Needs the extra `grpc`; imported where it is served."""

import os

# gRPC reads these when it is imported. What its core says of clients is nothing for our log, and the
# processes that we start have no use for its state.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
