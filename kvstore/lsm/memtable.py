"""The memtable: the newest entries, in memory.

A dict, whose keys are put in order when somebody asks for it: 0.06 us an insert against 1.3 us of
`sortedcontainers.SortedDict`, the given package, which was 6% of a node's CPU under puts. Scans pay
instead: the keys that came since the last one are sorted into a run of their own, and runs are merged when
they have grown alike, so that a key is sorted a few times in all and a scan costs its range.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeAlias

from kvstore.lsm.merge import Chunk, merge
from kvstore.lsm.pace import Pace, full_speed
from kvstore.lsm.wal import Batch

Undo: TypeAlias = "dict[bytes, bytes | None]"
"""What keys held when a snapshot was taken and have been written since; ABSENT: nothing."""

ABSENT = b"absent"
"""Compared by identity: the answer of a part that does not know a key."""

_ENTRY_OVERHEAD = 112
"""Bytes that an entry takes beside what its batch counts for it."""

_FIRST_CHUNK, _LARGEST_CHUNK = 16, 512
_SORTED_AT_ONCE = 1024


class Memtable:
    """Entries by key; None marks a deletion, which hides what lies in older tables."""

    __slots__ = ("_entries", "_runs", "_sorted", "_undos", "bytes", "get")

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes | None] = {}
        self.get: Callable[[bytes, bytes | None], bytes | None] = self._entries.get
        """The value of a key, None for a deletion, the default when the key is not here."""
        self._runs: list[list[bytes]] = []
        self._sorted = 0
        self._undos: list[Undo] = []
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def apply(self, batch: Batch, size: int) -> None:
        """Put a batch in; its `size` counts even where it replaces: the log grows all the same."""
        entries = self._entries
        if self._undos:
            self._remember(batch)
        for key, value in batch:
            entries[key] = value
        self.bytes += size + _ENTRY_OVERHEAD * len(batch)

    @classmethod
    def of(cls, batches: Iterable[Batch], pace: Pace = full_speed) -> Memtable:
        """A memtable with these batches that only becomes a table: its bytes are not counted."""
        memtable = cls()
        for batch in batches:
            memtable._entries.update(batch)
            pace(0)
        memtable._runs = [_sorted_in_steps(list(memtable._entries), pace)]
        memtable._sorted = len(memtable._entries)
        return memtable

    # snapshots

    def begin_undo(self) -> Undo:
        """From now on remember what writes replace, until `end_undo`: a view of this moment."""
        undo: Undo = {}
        self._undos.append(undo)
        return undo

    def end_undo(self, undo: Undo) -> None:
        """Nobody needs that view any more."""
        self._undos = [other for other in self._undos if other is not undo]

    def let_go(self, count: int) -> bool:
        """Free up to `count` entries of a memtable that is in a table now; True when none is left.

        To free all of them at once takes 0.2 ms for each MiB, and writes wait for that.
        """
        if self._undos:  # a snapshot reads it still
            return False
        entries = self._entries
        for _ in range(min(count, len(entries))):
            entries.popitem()
        return not entries

    def _remember(self, batch: Batch) -> None:
        for key, _ in batch:
            old = self._entries.get(key, ABSENT)
            for undo in self._undos:
                undo.setdefault(key, old)

    # in order

    def chunks(
        self, start: bytes, end: bytes | None, undo: Undo | None = None, reverse: bool = False
    ) -> Iterator[Chunk]:
        """Entries of [start, end) in order, as they were when `undo` began.

        Without `undo` nothing may be written meanwhile.
        """
        return merge((self._chunks_of(run, start, end, undo, reverse) for run in self._ordered()), reverse)

    def _chunks_of(
        self, run: list[bytes], start: bytes, end: bytes | None, undo: Undo | None, reverse: bool
    ) -> Iterator[Chunk]:
        first = bisect_left(run, start)
        last = len(run) if end is None else bisect_left(run, end, first)
        size = _FIRST_CHUNK
        while first < last:
            if reverse:
                keys = run[max(first, last - size) : last]
                last -= len(keys)
            else:
                keys = run[first : min(last, first + size)]
                first += len(keys)
            if chunk := self._chunk(keys, undo):
                yield chunk
            size = min(2 * size, _LARGEST_CHUNK)

    def _chunk(self, keys: list[bytes], undo: Undo | None) -> Chunk | None:
        entries = self._entries
        if not undo:
            return keys, [entries[key] for key in keys]
        found = [(key, undo[key] if key in undo else entries[key]) for key in keys]
        found = [entry for entry in found if entry[1] is not ABSENT]
        return ([key for key, _ in found], [value for _, value in found]) if found else None

    def _ordered(self) -> list[list[bytes]]:
        """All keys, each in one of a few ordered runs. Keys are never removed: the new ones are the last."""
        new = len(self._entries) - self._sorted
        if new:
            self._sorted += new
            # new lists: scans under way use the old ones
            runs = [*self._runs, sorted(islice(reversed(self._entries), new))]
            while len(runs) > 1 and len(runs[-2]) < 2 * len(runs[-1]):
                runs[-2:] = [sorted(runs[-2] + runs[-1])]
            self._runs = runs
        return self._runs


def _sorted_in_steps(keys: list[bytes], pace: Pace) -> list[bytes]:
    """All keys in order, as by `sorted` and in about its time, but none of its steps takes long."""
    runs = []
    for i in range(0, len(keys), _SORTED_AT_ONCE):
        runs.append(sorted(keys[i : i + _SORTED_AT_ONCE]))
        pace(0)
    while len(runs) > 1:
        pairs = [runs[i : i + 2] for i in range(0, len(runs), 2)]
        runs = []
        for pair in pairs:
            runs.append(sorted(chain.from_iterable(pair)))  # which finds that they are in order, and merges
            pace(0)
    return runs[0] if runs else []
