"""A file system in memory that forgets, at a crash, what a disk may forget.

Unsynced bytes are lost, kept, kept up to a random point, or kept in some pages and lost in others; names are
lost unless their directory was synced. It can be told to crash at any call that changes something, to have no
space, or to fail.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from kvstore.errors import StorageFailed, StorageFull, WrongDataDirectory
from kvstore.lsm.pace import Pace, full_speed

PAGE_BYTES = 64
"""What is written back as a whole. Few, so that the short files of tests have many."""


class SimulatedCrash(BaseException):
    """The machine stops here. Not an Exception: nothing may catch it but the simulation."""


class Fate(Enum):
    """What becomes of unsynced data at a crash."""

    NONE = "none kept"
    ALL = "all kept"
    RANDOM = "random prefix, torn"
    PAGES = "random pages"
    """Pages are written back in any order: later ones may be there, and zeros or what was synced before."""


@dataclass(slots=True)
class _Inode:
    """A file: what a reader sees, and what of it is sure to be there after a crash."""

    data: bytearray = field(default_factory=bytearray)
    disk: bytearray = field(default_factory=bytearray)
    """What was synced."""
    same: int = 0
    """Up to here both are the same, whatever has been appended and cut off since."""
    past: list[tuple[bytes, int]] = field(default_factory=list)
    """Each truncate that was not synced: what was there before, and the size that it has left."""

    def truncate(self, size: int) -> None:
        """Cut the file."""
        self.past.append((bytes(self.data), size))
        del self.data[size:]
        self.same = min(self.same, size)

    def covered(self) -> _Covered:
        """What a sync that begins now makes durable."""
        return _Covered(self.same, bytes(self.data[self.same :]), len(self.past))

    def synced(self, covered: _Covered) -> None:
        """A sync has come to its end."""
        self.disk[covered.start :] = covered.tail
        del self.past[: covered.truncates]
        if self.data.startswith(covered.tail, covered.start):
            self.same = len(self.disk)

    def images(self) -> list[tuple[bytes | bytearray, int]]:
        """What the file was before each truncate and is now, and of how much of that pages may be missing."""
        sizes = [len(self.disk), *(size for _, size in self.past)]
        return list(zip([*(image for image, _ in self.past), self.data], sizes, strict=True))


@dataclass(frozen=True, slots=True)
class _Covered:
    start: int
    tail: bytes
    truncates: int


class _MemoryWriter:
    def __init__(self, system: MemoryFileSystem, path: str, inode: _Inode) -> None:
        self._system = system
        self._path = path
        self._inode = inode
        self._size = len(inode.data)
        self._covered: _Covered | None = None

    def append(self, data: bytes) -> None:
        system, written = self._system, self._inode.data
        torn = system.mutate(self._path)
        if len(written) > self._size:  # what is left of an append that failed goes first, as on a real disk
            self._inode.truncate(self._size)
        if torn is not None or system.full:
            written += data[: int(len(data) * (system.torn if torn is None else torn))]
            if torn is None:
                raise StorageFull(f"{self._path}: no space left on the disk")
            system.stop()
            del written[self._size :]
        written += data
        self._size = len(written)

    def begin_sync(self) -> None:
        """The next `sync` covers what is there now, and nothing that comes until it is called."""
        self._covered = self._inode.covered()

    def sync(self) -> None:
        self._system.checked(self._path)
        covered, self._covered = self._covered, None
        self._inode.synced(covered or self._inode.covered())

    def write_back(self) -> None:
        self._system.checked(self._path)

    def truncate(self, size: int) -> None:
        self._system.checked(self._path)
        self._size = size
        self._inode.truncate(size)

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
    `fates` counts what became of unsynced pages and truncates at the crash that it was found after.
    """

    def __init__(self) -> None:
        self._files: dict[str, _Inode] = {}
        self._durable: dict[str, _Inode] = {}
        self.locked: set[str] = set()
        self.mutations = 0
        self.crash_at: int | None = None
        self.torn = 0.5
        self.full = self.broken = False
        self.fates: Counter[str] = Counter()

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
            self.stop()

    def stop(self) -> None:
        """The moment of the crash; raises SimulatedCrash.

        A disk on which this returns goes on as if nothing had been, after a look at what a crash would leave.
        """
        raise SimulatedCrash

    def crash(self, rng: random.Random, fate: Fate) -> MemoryFileSystem:
        """What is found on the disk after a crash now."""
        after = MemoryFileSystem()
        after.full = self.full
        for path in sorted(self._files.keys() | self._durable.keys()):
            new, old = self._files.get(path), self._durable.get(path)
            keep_new = fate is Fate.ALL or (fate is not Fate.NONE and rng.random() < 0.5)
            inode = new if keep_new else old
            if inode is not None:
                data = after._kept(inode, rng, fate)
                after._files[path] = after._durable[path] = _Inode(data, bytearray(data), len(data))
        return after

    def _kept(self, inode: _Inode, rng: random.Random, fate: Fate) -> bytearray:
        match fate:
            case Fate.NONE:
                return bytearray(inode.disk)
            case Fate.ALL:
                return bytearray(inode.data)
            case Fate.RANDOM:
                images = inode.images()
                data, least = images[rng.randrange(len(images)) if inode.past else -1]
                return bytearray(data[: rng.randint(least, len(data))])
            case Fate.PAGES:
                return self._some_pages(inode, rng)

    def _some_pages(self, inode: _Inode, rng: random.Random) -> bytearray:
        kept = bytearray(inode.disk)
        for i, (image, _) in enumerate(inode.images()):
            if i and rng.random() < 0.5:
                del kept[inode.past[i - 1][1] :]
            elif i:
                self.fates["truncates brought back"] += 1
            self._write_back(kept, image, inode.same, rng)
        return kept

    def _write_back(self, kept: bytearray, image: bytes | bytearray, same: int, rng: random.Random) -> None:
        """Some pages of a file get to the disk; behind its end there, those between are zeros."""
        lost = False
        for begin in range(same - same % PAGE_BYTES, len(image), PAGE_BYTES):
            page = image[begin : begin + PAGE_BYTES]
            if rng.random() < 0.5:
                self.fates["pages kept behind lost ones"] += lost
                kept += bytes(max(0, begin - len(kept)))
                kept[begin : begin + len(page)] = page
            elif kept[begin : begin + PAGE_BYTES] != page:
                lost = True

    def sync_begins(self, files: Iterable[object]) -> None:
        """A sync of some files has begun, and will end when each is synced: it covers what they hold now."""
        for file in files:
            if isinstance(file, _MemoryWriter):
                file.begin_sync()

    def corrupt(self, path: str, offset: int, mask: int) -> None:
        """Flip bits of one byte of a file, wherever it is kept."""
        inode = self._files[path]
        inode.data[offset] ^= mask
        if offset < inode.same:
            inode.disk[offset] ^= mask

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
