"""The real file system."""

from __future__ import annotations

import errno
import fcntl
import os

from kvstore.errors import StorageError, StorageFailed, StorageFull, WrongDataDirectory


def _failure(path: str, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{path}: no space left on the disk")
    return StorageFailed(f"{path}: {error.strerror}")


class _DiskWriter:
    """Appends at an offset of its own, so that an append that failed half way can be tried again."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = 0

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        offset = self._size
        try:
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view = view[written:]
                offset += written
        except OSError as error:
            raise _failure(self._path, error) from error
        self._size = offset

    def sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StorageFailed(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _DiskReader:
    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise _failure(self._path, error) from error

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        # a scan may hold the last reference to a table that compaction has replaced
        self.close()


class DiskFileSystem:
    """`FileSystem` on the operating system's files."""

    def make_directory(self, path: str) -> None:
        """See FileSystem."""
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path.rstrip("/")) or "."
        self.make_directory(parent)
        try:
            os.mkdir(path)
        except OSError as error:
            raise _failure(path, error) from error
        self.sync_directory(parent)

    def lock(self, path: str) -> _DiskWriter:
        """See FileSystem. The lock goes with the process, however it ends."""
        descriptor = self._open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise WrongDataDirectory(f"{path} is locked: another process uses this directory") from None
        return _DiskWriter(path, descriptor)

    def create(self, path: str) -> _DiskWriter:
        """See FileSystem."""
        return _DiskWriter(path, self._open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))

    def _open(self, path: str, flags: int) -> int:
        try:
            return os.open(path, flags | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _failure(path, error) from error

    def open(self, path: str) -> _DiskReader:
        """See FileSystem."""
        return _DiskReader(path)

    def list(self, path: str) -> list[str]:
        """See FileSystem."""
        return sorted(os.listdir(path))

    def rename(self, old: str, new: str) -> None:
        """See FileSystem."""
        try:
            os.rename(old, new)
        except OSError as error:
            raise _failure(new, error) from error

    def link(self, old: str, new: str) -> None:
        """See FileSystem."""
        try:
            os.link(old, new)
        except OSError as error:
            raise _failure(new, error) from error

    def remove(self, path: str) -> None:
        """See FileSystem."""
        try:
            os.remove(path)
        except OSError as error:
            raise _failure(path, error) from error

    def sync_directory(self, path: str) -> None:
        """See FileSystem."""
        descriptor = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise StorageFailed(f"{path}: {error.strerror}") from error
        finally:
            os.close(descriptor)
