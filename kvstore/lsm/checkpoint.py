"""Checkpoints: a second store of the same content, made of links to files that never change again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from kvstore.errors import StorageError, StorageFailed
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.manifest import CURRENT, Manifest
from kvstore.lsm.messages import TableInfo, table_name


def write_checkpoint(
    fs: FileSystem,
    source: str,
    target: str,
    logs: Sequence[str],
    tables: Sequence[TableInfo],
    manifest: Manifest,
) -> None:
    """Link sealed, synced `logs` and `tables` into `target`, and give it a manifest.

    CURRENT comes last: a checkpoint that a crash has cut short is refused when it is opened.
    Raises StorageFailed when `target` is not empty, StorageFull; what was made is removed then.
    """
    fs.make_directory(target)
    if fs.list(target):
        raise StorageFailed(f"{target}: a checkpoint needs an empty directory")
    try:
        for name in (*map(table_name, (info.number for info in tables)), *logs):
            fs.link(f"{source}/{name}", f"{target}/{name}")
        fs.sync_directory(target)
        manifest.copy_to(target)
    except StorageError:
        _empty(fs, target)
        raise


def _empty(fs: FileSystem, directory: str) -> None:
    """Remove what was made, as far as that is possible: a checkpoint can then be tried again."""
    with suppress(StorageError):
        # CURRENT first: without it, what is left is refused
        for name in sorted(fs.list(directory), key=lambda name: name != CURRENT):
            fs.remove(f"{directory}/{name}")
