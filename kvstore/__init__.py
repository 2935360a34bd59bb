"""kvstore: a leaderless, replicated key-value database after the Dynamo paper.

    with kvstore.connect("127.0.0.1:7001") as db:
        carts = db.bucket("carts")
        carts.put("user:1", b"...")

The names below are loaded when they are first used, so that the core and the engine's workers,
which are imported through this package too, stay free of gRPC.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as type checkers know it: to load typing takes longer than all else here

if TYPE_CHECKING:
    from kvstore import aio as aio
    from kvstore.client.errors import ClientClosed, PartialFailure, WrongEnvironment
    from kvstore.client.results import (
        Explain,
        Resolver,
        Result,
        Sibling,
        Stored,
        UndecodableValue,
        UnresolvedSiblings,
    )
    from kvstore.client.serializers import Serializer
    from kvstore.client.synchronous import Bucket, Client, Session, connect
    from kvstore.errors import (
        ConfigError,
        Corruption,
        InternalError,
        InvalidRequest,
        KVError,
        NodeStopping,
        NoNodeAvailable,
        Outcome,
        Overloaded,
        ReadTimeout,
        StaleRead,
        StaleRing,
        StorageFailed,
        StorageFull,
        Timeout,
        TooManySiblings,
        Unavailable,
        UnverifiedContext,
        VersionTooLarge,
        WriteTimeout,
    )
    from kvstore.node.status import NodeStatus
    from kvstore.quorum.anti_entropy_status import AntiEntropyStatus

    __version__: str

__all__ = [
    "AntiEntropyStatus",
    "Bucket",
    "Client",
    "ClientClosed",
    "ConfigError",
    "Corruption",
    "Explain",
    "InternalError",
    "InvalidRequest",
    "KVError",
    "NoNodeAvailable",
    "NodeStatus",
    "NodeStopping",
    "Outcome",
    "Overloaded",
    "PartialFailure",
    "ReadTimeout",
    "Resolver",
    "Result",
    "Serializer",
    "Session",
    "Sibling",
    "StaleRead",
    "StaleRing",
    "StorageFailed",
    "StorageFull",
    "Stored",
    "Timeout",
    "TooManySiblings",
    "Unavailable",
    "UndecodableValue",
    "UnresolvedSiblings",
    "UnverifiedContext",
    "VersionTooLarge",
    "WriteTimeout",
    "WrongEnvironment",
    "__version__",
    "aio",
    "connect",
]

_PLACES = {
    "Bucket": "kvstore.client.synchronous",
    "Client": "kvstore.client.synchronous",
    "Session": "kvstore.client.synchronous",
    "connect": "kvstore.client.synchronous",
    "ClientClosed": "kvstore.client.errors",
    "PartialFailure": "kvstore.client.errors",
    "WrongEnvironment": "kvstore.client.errors",
    "UndecodableValue": "kvstore.client.results",
    "UnresolvedSiblings": "kvstore.client.results",
    "Serializer": "kvstore.client.serializers",
    "Explain": "kvstore.client.results",
    "Resolver": "kvstore.client.results",
    "Result": "kvstore.client.results",
    "Sibling": "kvstore.client.results",
    "Stored": "kvstore.client.results",
    "AntiEntropyStatus": "kvstore.quorum.anti_entropy_status",
    "NodeStatus": "kvstore.node.status",
}


def __getattr__(name: str) -> object:
    """Load a public name (PEP 562)."""
    if name == "aio":
        return import_module("kvstore.aio")
    if name == "__version__":
        return import_module("importlib.metadata").version("kvstore")
    if name not in __all__:
        if name.startswith("_"):  # what interpreters and tools look for
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        raise import_module("kvstore.client.guidance").no_such_name(name)
    return getattr(import_module(_PLACES.get(name, "kvstore.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
