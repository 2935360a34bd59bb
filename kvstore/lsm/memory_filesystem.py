"""A file system in memory that forgets, at a crash, what a disk may forget.

Unsynced bytes are lost, kept, or kept up to a random point; names are lost unless their directory was
synced. It can be told to crash at any call that changes something, to have no space, or to fail.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import Enum

from kvstore.errors import StorageFailed, StorageFull, WrongDataDirectory
from kvstore.lsm.pace import Pace, full_speed


class SimulatedCrash(BaseException):
    """The machine stops here. Not an Exception: nothing may catch it but the simulation."""


class Fate(Enum):
    """What becomes of unsynced data at a crash."""

    NONE = "none kept"
    ALL = "all kept"
    RANDOM = "random prefix, torn"


@dataclass(slots=True)
class _Inode:
    data: bytearray = field(default_factory=bytearray)
    synced: int = 0


class _MemoryWriter:
    def __init__(self, system: MemoryFileSystem, path: str, inode: _Inode) -> None:
        self._system = system
        self._path = path
        self._inode = inode
        self._size = len(inode.data)

    def append(self, data: bytes) -> None:
        system, written = self._system, self._inode.data
        torn = system.mutate(self._path)
        end = self._size + len(data)
        if torn is not None or system.full:
            # the part that found room; the next append begins where this one did, as on a real disk
            share = system.torn if torn is None else torn
            written[self._size : end] = data[: int(len(data) * share)]
            if torn is not None:
                raise SimulatedCrash
            raise StorageFull(f"{self._path}: no space left on the disk")
        written[self._size : end] = data
        self._size = end

    def sync(self) -> None:
        self._system.checked(self._path)
        self._inode.synced = len(self._inode.data)

    def write_back(self) -> None:
        self._system.checked(self._path)

    def truncate(self, size: int) -> None:
        self._system.checked(self._path)
        self._size = size
        del self._inode.data[size:]
        self._inode.synced = min(self._inode.synced, size)

    def close(self) -> None:
        self._system.locked.discard(self._path)


class _MemoryReader:
    def __init__(self, inode: _Inode) -> None:
        self._inode = inode

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._inode.data[offset : offset + length])

    def size(self) -> int:
        return len(self._inode.data)

    def close(self) -> None:
        pass


class MemoryFileSystem:
    """`FileSystem` in memory.

    `crash_at` is the number of the changing call at which it crashes, if any. While `full`, nothing new
    is taken, and of an append that much is written as `torn` says. While `broken`, every change fails.
    """

    def __init__(self) -> None:
        self._files: dict[str, _Inode] = {}
        self._durable: dict[str, _Inode] = {}
        self.locked: set[str] = set()
        self.mutations = 0
        self.crash_at: int | None = None
        self.torn = 0.5
        self.full = self.broken = False

    def mutate(self, path: str) -> float | None:
        """Count a changing call; the share of it that still happens if the crash is now.

        Raises StorageFailed while the disk is broken.
        """
        self.mutations += 1
        if self.broken:
            raise StorageFailed(f"{path}: input/output error")
        return self.torn if self.crash_at is not None and self.mutations >= self.crash_at else None

    def checked(self, path: str) -> None:
        """Count a changing call that happens wholly or not at all; raises SimulatedCrash."""
        if self.mutate(path) is not None:
            raise SimulatedCrash

    def crash(self, rng: random.Random, fate: Fate) -> MemoryFileSystem:
        """What is found on the disk after a crash now."""
        after = MemoryFileSystem()
        after.full = self.full
        for path in sorted(self._files.keys() | self._durable.keys()):
            new, old = self._files.get(path), self._durable.get(path)
            keep_new = fate is Fate.ALL or (fate is Fate.RANDOM and rng.random() < 0.5)
            inode = new if keep_new else old
            if inode is not None:
                data = inode.data[: self._kept(inode, rng, fate)]
                after._files[path] = after._durable[path] = _Inode(bytearray(data), len(data))
        return after

    def _kept(self, inode: _Inode, rng: random.Random, fate: Fate) -> int:
        match fate:
            case Fate.NONE:
                return inode.synced
            case Fate.ALL:
                return len(inode.data)
            case Fate.RANDOM:
                return rng.randint(inode.synced, len(inode.data))

    def corrupt(self, path: str, offset: int, mask: int) -> None:
        """Flip bits of one byte of a file."""
        self._files[path].data[offset] ^= mask

    def size(self, path: str) -> int:
        """Bytes in a file."""
        return len(self._files[path].data)

    def make_directory(self, path: str) -> None:
        """See FileSystem. Directories exist by their files."""

    def lock(self, path: str) -> _MemoryWriter:
        """See FileSystem."""
        if path in self.locked:
            raise WrongDataDirectory(f"{path} is locked: another process uses this directory")
        self.locked.add(path)
        return _MemoryWriter(self, path, self._files.setdefault(path, _Inode()))

    def create(self, path: str) -> _MemoryWriter:
        """See FileSystem."""
        self.checked(path)
        if self.full:
            raise StorageFull(f"{path}: no space left on the disk")
        inode = self._files[path] = _Inode()
        return _MemoryWriter(self, path, inode)

    def reopen(self, path: str) -> _MemoryWriter:
        """See FileSystem."""
        if path not in self._files:
            raise FileNotFoundError(path)
        return _MemoryWriter(self, path, self._files[path])

    def open(self, path: str) -> _MemoryReader:
        """See FileSystem."""
        try:
            return _MemoryReader(self._files[path])
        except KeyError:
            raise FileNotFoundError(path) from None

    def list(self, path: str) -> list[str]:
        """See FileSystem."""
        prefix = path + "/"
        return sorted(name.removeprefix(prefix) for name in self._files if name.startswith(prefix))

    def rename(self, old: str, new: str) -> None:
        """See FileSystem."""
        self.checked(new)
        self._files[new] = self._files.pop(old)

    def link(self, old: str, new: str) -> None:
        """See FileSystem."""
        self.checked(new)
        self._files[new] = self._files[old]

    def remove(self, path: str, pace: Pace = full_speed) -> None:
        """See FileSystem."""
        self.checked(path)
        self._files.pop(path, None)

    def sync_directory(self, path: str) -> None:
        """See FileSystem."""
        self.checked(path)
        prefix = path + "/"
        for name in [name for name in self._durable if name.startswith(prefix)]:
            del self._durable[name]
        self._durable.update((n, inode) for n, inode in self._files.items() if n.startswith(prefix))
