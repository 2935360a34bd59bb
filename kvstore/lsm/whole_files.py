"""What is done with a file as a whole: read it, measure it, make it durable."""

from __future__ import annotations

from kvstore.errors import Corruption
from kvstore.lsm.filesystem import FileSystem


def read_file(fs: FileSystem, path: str) -> bytes:
    """All bytes of a file that has to be there; raises Corruption when it is not."""
    try:
        file = fs.open(path)
    except FileNotFoundError:
        raise Corruption(path, "is missing") from None
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def file_size(fs: FileSystem, path: str) -> int:
    """Bytes in a file; raises FileNotFoundError."""
    file = fs.open(path)
    try:
        return file.size()
    finally:
        file.close()


def sync_file(fs: FileSystem, path: str) -> None:
    """Make durable what a file holds, whoever wrote it; raises FileNotFoundError, StorageFailed."""
    file = fs.reopen(path)
    try:
        file.sync()
    finally:
        file.close()
