"""A simulated cluster for tests of applications: real nodes, real client classes, virtual time.

In pytest the fixture `kvcluster` is one (docs/testing-your-application.md); elsewhere make a `Cluster`.
Loaded when first used: pytest imports this package, for its plugin, in every project that has kvstore.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.config import BucketSettings
    from kvstore.testing.cluster import Cluster, NotSettled

__all__ = ["BucketSettings", "Cluster", "NotSettled"]


def __getattr__(name: str) -> object:
    """Load a public name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "kvstore.config" if name == "BucketSettings" else "kvstore.testing.cluster"
    return getattr(import_module(module), name)
