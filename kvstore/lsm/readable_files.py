"""The part of the port to files for those who only read: it can change nothing that is stored."""

from __future__ import annotations

from typing import Protocol


class ReadableFile(Protocol):
    """A file that is no longer written to."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`, fewer at the end of the file."""

    def size(self) -> int:
        """Bytes in the file."""

    def close(self) -> None:
        """Close."""


class Lock(Protocol):
    """A file that is locked."""

    def close(self) -> None:
        """Let go of it."""


class ReadableFiles(Protocol):
    """The files of a file system, as they are read. Paths are text with `/`.

    Every call raises StorageFailed on an error of the disk.
    """

    def open(self, path: str) -> ReadableFile:
        """Open for reading; raises FileNotFoundError."""

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted."""

    def lock(self, path: str) -> Lock:
        """Lock the file until it is closed, so that nobody changes the store that is read.

        A file that is not there is made, empty: whoever must change nothing looks first. Raises
        WrongDataDirectory when another has it locked, StorageFull.
        """
