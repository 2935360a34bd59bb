"""The Python client, and what it needs of the environment before grpc is imported."""

import os

# While a channel is open, gRPC's handlers of fork() break one in six children that have nothing to do with it
# (SIGSEGV). It reads this once, when it is imported; who has set it knows why.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
