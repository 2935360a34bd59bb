"""A file system that fails when it is told to: a wrapper around any other, for tests."""

from __future__ import annotations

import errno
from collections import Counter
from enum import Enum
from weakref import WeakSet

from kvstore.errors import StorageError
from kvstore.lsm.filesystem import FileSystem, WritableFile
from kvstore.lsm.pace import Pace, full_speed
from kvstore.lsm.readable_files import Lock, ReadableFile
from kvstore.lsm.storage_errors import storage_error, sync_error
from kvstore.lsm.whole_files import file_size


class Fault(Enum):
    """How a call fails."""

    EIO = "input/output error"
    ENOSPC = "no space"
    """Whatever may take space fails so, also syncs, and removing where a file system copies on write."""
    SHORT_WRITE = "no space after half of the bytes"
    FULL = "disk full"
    """What takes new space fails so, and goes on failing; the rest works."""


_SYNCS = {"sync", "write_back", "sync_directory"}
_NEW_SPACE = {"make_directory", "make_lock", "create", "append", "rename", "link"}


class FaultyFileSystem:
    """`FileSystem` whose calls `fail_from` (counted from 1) to `fail_to` fail, those that can fail so.

    `calls` and `injected` count what was asked of it and
    what failed, by the name of the call; `writers` and `readers` are the files that are open now.
    """

    def __init__(self, inner: FileSystem) -> None:
        self._inner = inner
        self.fault = Fault.EIO
        self.fail_from = self.fail_to = 0
        self.number = 0
        self.calls: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.writers: set[object] = set()
        self.readers: WeakSet[object] = WeakSet()  # the last reference closes one

    def heal(self) -> None:
        """From now on nothing fails."""
        self.fail_from = self.fail_to = 0

    def fails(self, kind: str) -> bool:
        """Count a call; whether it has to fail."""
        self.number += 1
        self.calls[kind] += 1
        if not self.fail_from <= self.number <= self.fail_to or not can_fail(kind, self.fault):
            return False
        self.injected[kind] += 1
        return True

    def check(self, kind: str, path: str) -> None:
        """Count a call, and fail if it has to."""
        if self.fails(kind):
            error = self.error()
            raise sync_error(path, error) if kind in _SYNCS else storage_error(path, error)

    def _there(self, path: str) -> bool:
        """Whether a file or directory need not be made, which takes no space."""
        directory, _, name = path.rpartition("/")
        try:
            return bool(self._inner.list(path)) or name in self._inner.list(directory)
        except StorageError:
            return False

    def error(self) -> OSError:
        """What the operating system would have said."""
        code = errno.EIO if self.fault is Fault.EIO else errno.ENOSPC
        return OSError(code, self.fault.value)

    def make_directory(self, path: str) -> None:
        """See FileSystem."""
        self.check("find_directory" if self._there(path) else "make_directory", path)
        self._inner.make_directory(path)

    def lock(self, path: str) -> Lock:
        """See FileSystem."""
        self.check("lock" if self._there(path) else "make_lock", path)
        return _FaultyLock(self, self._inner.lock(path))

    def create(self, path: str) -> WritableFile:
        """See FileSystem."""
        self.check("create", path)
        return _FaultyWriter(self, path, self._inner.create(path))

    def reopen(self, path: str) -> WritableFile:
        """See FileSystem."""
        self.check("reopen", path)
        return _FaultyWriter(self, path, self._inner.reopen(path), file_size(self._inner, path))

    def open(self, path: str) -> ReadableFile:
        """See FileSystem."""
        self.check("open", path)
        return _FaultyReader(self, path, self._inner.open(path))

    def list(self, path: str) -> list[str]:
        """See FileSystem."""
        self.check("list", path)
        return self._inner.list(path)

    def rename(self, old: str, new: str) -> None:
        """See FileSystem."""
        self.check("rename", new)
        self._inner.rename(old, new)

    def link(self, old: str, new: str) -> None:
        """See FileSystem."""
        self.check("link", new)
        self._inner.link(old, new)

    def remove(self, path: str, pace: Pace = full_speed) -> None:
        """See FileSystem."""
        self.check("remove", path)
        self._inner.remove(path, pace)

    def sync_directory(self, path: str) -> None:
        """See FileSystem."""
        self.check("sync_directory", path)
        self._inner.sync_directory(path)


def can_fail(kind: str, fault: Fault) -> bool:
    """Whether a call of this name can fail so."""
    match fault:
        case Fault.EIO:
            return True
        case Fault.ENOSPC:
            return kind in _NEW_SPACE or kind in _SYNCS or kind == "remove"
        case Fault.SHORT_WRITE:
            return kind == "append"
        case Fault.FULL:
            return kind in _NEW_SPACE


class _FaultyLock:
    def __init__(self, system: FaultyFileSystem, inner: Lock) -> None:
        self._system = system
        self._inner = inner
        system.writers.add(self)

    def close(self) -> None:
        self._system.writers.discard(self)
        self._inner.close()


class _FaultyWriter:
    def __init__(self, system: FaultyFileSystem, path: str, inner: WritableFile, size: int = 0) -> None:
        self._system = system
        self._path = path
        self._inner = inner
        self._size = size
        self._torn = False
        system.writers.add(self)

    def append(self, data: bytes) -> None:
        system = self._system
        if self._torn:
            self.truncate(self._size)
        if system.fails("append"):
            self._torn = True
            if system.fault is Fault.SHORT_WRITE:
                self._inner.append(data[: len(data) // 2])
            raise storage_error(self._path, system.error())
        self._inner.append(data)
        self._size += len(data)

    def sync(self) -> None:
        self._system.check("sync", self._path)
        self._inner.sync()

    def write_back(self) -> None:
        self._system.check("write_back", self._path)
        self._inner.write_back()

    def truncate(self, size: int) -> None:
        self._system.check("truncate", self._path)
        self._inner.truncate(size)
        self._size = size
        self._torn = False

    def close(self) -> None:
        self._system.writers.discard(self)
        self._inner.close()


class _FaultyReader:
    def __init__(self, system: FaultyFileSystem, path: str, inner: ReadableFile) -> None:
        self._system = system
        self._path = path
        self._inner = inner
        system.readers.add(self)

    def read(self, offset: int, length: int) -> bytes:
        self._system.check("read", self._path)
        return self._inner.read(offset, length)

    def size(self) -> int:
        self._system.check("size", self._path)
        return self._inner.size()

    def close(self) -> None:
        self._system.readers.discard(self)
        self._inner.close()
