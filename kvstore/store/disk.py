"""The real file system."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from kvstore.errors import WrongDataDirectory
from kvstore.lsm.pace import Pace, full_speed
from kvstore.lsm.storage_errors import storage_error, sync_error

_FREED_AT_ONCE = 128 * 1024
"""To free a MiB that is in the page cache takes a kernel 0.6 ms, in which no sync comes to its end."""

_WRITE_AND_WAIT = 2 | 4  # SYNC_FILE_RANGE_WRITE, SYNC_FILE_RANGE_WAIT_AFTER

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


@contextmanager
def _typed(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


_AS_A_FILE = os.O_CLOEXEC | os.O_NONBLOCK
"""How everything is opened: a pipe under the name of a file is an error then, not somebody to wait for."""


def _open(path: str, flags: int) -> int:
    with _typed(path):
        return os.open(path, flags | _AS_A_FILE, 0o600)  # what is stored is for nobody else to read


def _free(descriptor: int, pace: Pace) -> None:
    """Shorten a file that has no name any more, step by step, unless somebody else can read it."""
    status = os.fstat(descriptor)
    if status.st_nlink:  # a checkpoint has it too
        return
    try:
        # granted only if nobody else has the file open: a scan may
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return
    for size in range(status.st_size - _FREED_AT_ONCE, 0, -_FREED_AT_ONCE):
        os.ftruncate(descriptor, size)
        pace(_FREED_AT_ONCE)


class _DiskWriter:
    """Appends at an offset of its own, so that an append that failed half way can be tried again."""

    def __init__(self, path: str, descriptor: int, size: int = 0) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = size
        self._torn = False

    def append(self, data: bytes) -> None:
        if self._torn:
            # the next record may be shorter than what is left of the one that failed
            self.truncate(self._size)
        view = memoryview(data)
        offset = self._size
        try:
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view = view[written:]
                offset += written
        except OSError as error:
            self._torn = True
            raise storage_error(self._path, error) from error
        self._size = offset

    def sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise sync_error(self._path, error) from error

    def write_back(self) -> None:
        # it neither waits for the file system's journal nor empties the disk's own cache, as fdatasync does
        if _libc.sync_file_range(self._descriptor, 0, 0, _WRITE_AND_WAIT):  # from 0 to the end
            code = ctypes.get_errno()
            raise sync_error(self._path, OSError(code, os.strerror(code)))

    def truncate(self, size: int) -> None:
        with _typed(self._path):
            os.ftruncate(self._descriptor, size)
        self._size = size
        self._torn = False

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with _typed(self._path):
                os.close(descriptor)


class _DiskReader:
    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | _AS_A_FILE)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise storage_error(path, error) from error

    def read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, offset)
            if len(data) == length or not data:
                return data
            parts = [data]
            # Linux reads no more than 2 GiB at a time
            while data and (length := length - len(data)):
                offset += len(data)
                data = os.pread(self._descriptor, length, offset)
                parts.append(data)
        except OSError as error:
            raise storage_error(self._path, error) from error
        return b"".join(parts)

    def size(self) -> int:
        with _typed(self._path):
            return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with _typed(self._path):
                os.close(descriptor)

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
        with _typed(path):
            os.mkdir(path, 0o700)
        self.sync_directory(parent)

    def lock(self, path: str) -> _DiskWriter:
        """See FileSystem. The lock goes with the process, however it ends."""
        descriptor = _open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise WrongDataDirectory(f"{path} is locked: another process uses this directory") from None
        except OSError as error:
            os.close(descriptor)
            raise storage_error(path, error) from error
        return _DiskWriter(path, descriptor)

    def create(self, path: str) -> _DiskWriter:
        """See FileSystem."""
        return _DiskWriter(path, _open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))

    def reopen(self, path: str) -> _DiskWriter:
        """See FileSystem."""
        try:
            descriptor = os.open(path, os.O_WRONLY | _AS_A_FILE)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise storage_error(path, error) from error
        return _DiskWriter(path, descriptor, os.fstat(descriptor).st_size)

    def open(self, path: str) -> _DiskReader:
        """See FileSystem."""
        return _DiskReader(path)

    def list(self, path: str) -> list[str]:
        """See FileSystem."""
        with _typed(path):
            return sorted(os.listdir(path))

    def rename(self, old: str, new: str) -> None:
        """See FileSystem."""
        with _typed(new):
            os.rename(old, new)

    def link(self, old: str, new: str) -> None:
        """See FileSystem."""
        with _typed(new):
            os.link(old, new)

    def remove(self, path: str, pace: Pace = full_speed) -> None:
        """See FileSystem."""
        with _typed(path):
            try:
                descriptor = os.open(path, os.O_WRONLY | _AS_A_FILE)
            except FileNotFoundError:
                return
            try:
                os.remove(path)
                _free(descriptor, pace)
            finally:
                os.close(descriptor)

    def sync_directory(self, path: str) -> None:
        """See FileSystem."""
        descriptor = _open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise sync_error(path, error) from error
        finally:
            os.close(descriptor)
