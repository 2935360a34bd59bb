"""Snapshots: a store as it was at one moment, however long it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from kvstore.lsm.levels import Levels
from kvstore.lsm.limits import check_key, check_range
from kvstore.lsm.memtable import ABSENT, Memtable
from kvstore.lsm.merge import merge


class Snapshot:
    """What was in the store when it was taken. Close it: until then memory and deleted tables are kept.

    Made by `Engine.snapshot`. A scan that runs keeps its snapshot alive by itself.
    """

    __slots__ = ("_active", "_kept", "_levels", "_sealed", "_undo")

    def __init__(self, active: Memtable, sealed: Sequence[Memtable], levels: Levels) -> None:
        self._active = active
        self._undo = active.begin_undo()
        self._sealed = tuple(sealed)
        self._kept = [memtable.begin_undo() for memtable in sealed]
        self._levels = levels

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; nothing may be read any more. May be called again."""
        self._active.end_undo(self._undo)
        for memtable, undo in zip(self._sealed, self._kept, strict=True):
            memtable.end_undo(undo)

    def __del__(self) -> None:
        # a scan that nobody has read from has not entered its `with`
        self.close()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None when it had none; raises Corruption, TypeError."""
        check_key(key)
        value = self._undo[key] if key in self._undo else self._active.get(key, ABSENT)
        if value is not ABSENT:
            return value
        for memtable in reversed(self._sealed):
            value = memtable.get(key, ABSENT)
            if value is not ABSENT:
                return value
        value = self._levels.get(key, ABSENT)
        return None if value is ABSENT else value

    def scan(
        self, start: bytes = b"", end: bytes | None = None, reverse: bool = False, around: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of [start, end) in order, or from the last to the first.

        Without `end` to the last key. It costs the range and not the store. With `around` it shows what there
        would be without the damaged blocks, which may be old values, or deleted ones. Raises Corruption,
        TypeError.
        """
        check_range(start, end)
        return self._entries(start, end, reverse, around)

    def _entries(
        self, start: bytes, end: bytes | None, reverse: bool, around: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        runs = [self._active.chunks(start, end, self._undo, reverse)]
        runs += [memtable.chunks(start, end, None, reverse) for memtable in reversed(self._sealed)]
        runs += self._levels.runs(start, end, reverse, around)
        step = -1 if reverse else 1
        for keys, values in merge(runs, reverse):
            for key, value in zip(keys[::step], values[::step], strict=True):
                if value is not None:
                    yield key, value


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key behind all that begin with `prefix`; None when there can be none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
