"""The storage engine by itself, for programs without a node: on the disk, with processes for its jobs."""

from kvstore.store.disk import DiskFileSystem
from kvstore.store.store import Store

__all__ = ["DiskFileSystem", "Store"]
