"""The port to files and directories that the engine does all its I/O through."""

from __future__ import annotations

from typing import Protocol

from kvstore.lsm.pace import Pace, full_speed
from kvstore.lsm.readable_files import ReadableFiles


class WritableFile(Protocol):
    """A file being appended to."""

    def append(self, data: bytes) -> None:
        """Append `data`; raises StorageFull when there is no space, StorageFailed on another error.

        A part may have been written then: it does not count, the next append takes its place.
        """

    def sync(self) -> None:
        """Make what was appended durable (fdatasync); raises StorageFailed. Safe beside `append`."""

    def write_back(self) -> None:
        """Have the disk take what was appended, and wait for it; raises StorageFailed.

        It promises nothing, but leaves less to the next sync.
        """

    def truncate(self, size: int) -> None:
        """Cut the file to its first `size` bytes; raises StorageFailed."""

    def close(self) -> None:
        """Close, without syncing."""


class FileSystem(ReadableFiles, Protocol):
    """What the engine asks of a file system.

    Every call raises StorageFull when there is no space for it, StorageFailed on another error.
    """

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents, durably; no error when it exists."""

    def create(self, path: str) -> WritableFile:
        """A new, empty file, replacing one of that name."""

    def reopen(self, path: str) -> WritableFile:
        """A file that is there, to be synced, cut or added to; raises FileNotFoundError."""

    def rename(self, old: str, new: str) -> None:
        """Atomically give a file another name, replacing what had it."""

    def link(self, old: str, new: str) -> None:
        """Give a file a second name, in a directory of the same disk."""

    def remove(self, path: str, pace: Pace = full_speed) -> None:
        """Remove a file; no error when there is none. `pace` is told of the bytes as they are freed."""

    def sync_directory(self, path: str) -> None:
        """Make creations, renames and removals in a directory durable."""


def sync_file(fs: FileSystem, path: str) -> None:
    """Make durable what a file holds, whoever wrote it; raises FileNotFoundError, StorageFailed."""
    file = fs.reopen(path)
    try:
        file.sync()
    finally:
        file.close()
