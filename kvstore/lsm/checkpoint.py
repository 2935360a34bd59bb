"""Checkpoints: a second store of the same content, made of links to files that never change again."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.errors import StorageFailed
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.manifest import Manifest
from kvstore.lsm.sstable import TableInfo, table_name


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
    Raises StorageFailed when `target` is not empty, StorageFull.
    """
    fs.make_directory(target)
    if fs.list(target):
        raise StorageFailed(f"{target}: a checkpoint needs an empty directory")
    for name in (*map(table_name, (info.number for info in tables)), *logs):
        fs.link(f"{source}/{name}", f"{target}/{name}")
    fs.sync_directory(target)
    manifest.copy_to(target)
