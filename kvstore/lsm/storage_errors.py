"""Errors of the operating system as the typed errors that a file system raises."""

from __future__ import annotations

import errno

from kvstore.errors import StorageError, StorageFailed, StorageFull


def storage_error(path: str, error: OSError) -> StorageError:
    """What a FileSystem raises for an error of the operating system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{path}: no space left on the disk")
    return StorageFailed(f"{path}: {error.strerror}")


def sync_error(path: str, error: OSError) -> StorageFailed:
    """The same for a sync: whatever made it fail, what was written before may be lost."""
    return StorageFailed(f"{path}: {error.strerror}")
