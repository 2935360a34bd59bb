"""What must hold of a history, and of the values left when all faults have ended.

Every value is written once, so it names its write. A value is *covered* by a set of values if it is in the
set, or if a write that saw it may exist and is covered itself (a delete that may exist covers all it saw).
A value that was acknowledged, or that a strict read has returned, is *established*: from then on it must be
covered by every strict read, and by what is left in the end. That holds for all clients, so it holds for
each session as well: a client reads its own writes, and never reads back in time. Buckets that are not
strict, or where R + W is not above N, promise neither, except to sessions (kvstore.sim.sessions).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from kvstore.config import BucketSettings, Conflict, QuorumMode
from kvstore.sim.history import SESSION_SECONDS, SESSIONS, History, Read, Result, Write
from kvstore.sim.sessions import check_sessions

Place = tuple[str, bytes]
"""Bucket and key."""


class Violation(Exception):
    """A promise was broken; the message says which and where."""


class Checker:
    """Checks one history against the promises of its buckets."""

    def __init__(self, history: History, buckets: Mapping[str, BucketSettings]) -> None:
        self._history = history
        self._buckets = buckets
        self._writes: dict[bytes, Write] = {}
        self._overwriters: dict[bytes, list[Write]] = defaultdict(list)
        self._established: dict[Place, dict[bytes, float]] = defaultdict(dict)
        self._sessions: dict[tuple[str, Place], dict[bytes, str]] = defaultdict(dict)
        """What each client knows of a key by itself, and which guarantee its loss would break."""
        for write in history.writes:
            if write.value is not None:
                self._writes[write.value] = write
                if write.result is Result.OK:
                    place = (write.bucket, write.key)
                    self._establish(place, write.value, write.ended)
                    self._sessions[write.client, place][write.value] = "read your writes"
            for value in write.seen:
                self._overwriters[value].append(write)

    def check(self, final: Mapping[Place, frozenset[bytes]]) -> int:
        """Check all reads and the values left in the end; returns how many facts were checked.

        Raises Violation.
        """
        checked = 0
        for read in sorted(self._history.reads, key=lambda read: read.ended):
            self._only_written(read.bucket, read.key, read.values, read.ended)
            if self._strict(read.bucket):
                checked += self._check_read(read)
        more, problem = check_sessions(self._history, SESSIONS, SESSION_SECONDS, self._covered)
        if problem:
            raise Violation(problem)
        checked += more
        for (bucket, key), values in final.items():
            self._only_written(bucket, key, values, None)
            checked += self._check_final(bucket, key, values)
        return checked

    def _strict(self, bucket: str) -> bool:
        settings = self._buckets[bucket]
        return (
            settings.quorum is QuorumMode.STRICT
            and settings.conflict is Conflict.SIBLINGS
            and settings.r + settings.w > settings.n
        )

    def _establish(self, place: Place, value: bytes, when: float) -> None:
        known = self._established[place]
        known[value] = min(known.get(value, when), when)

    def _only_written(self, bucket: str, key: bytes, values: Iterable[bytes], when: float | None) -> None:
        """No value may be seen that was never written there, or whose write was said not to be applied."""
        for value in sorted(values):
            write = self._writes.get(value)
            if write is None or (write.bucket, write.key) != (bucket, key):
                raise Violation(f"{value!r} was read from {bucket}/{key!r}, but never written there")
            if not write.may_exist:
                raise Violation(f"{value!r} was said to be not applied, but was read from {bucket}/{key!r}")
            if when is not None and write.began > when:
                raise Violation(f"{value!r} was read before it was written")

    def _check_read(self, read: Read) -> int:
        place = (read.bucket, read.key)
        for value, since in self._established[place].items():
            if since < read.began and not self._covered(value, read.values, read.ended):
                promise = self._sessions[read.client, place].get(value, "R + W > N")
                raise Violation(
                    f"{promise}: {read.client} read {read.bucket}/{read.key!r} at {read.began:.3f} and got "
                    f"{_shown(read.values)}: it lost {value!r}, established at {since:.3f}"
                )
            if since < read.began:
                self._not_resurrected(value, read.values, read.began, place)
        for value in sorted(read.values):
            self._establish(place, value, read.ended)
            self._sessions[read.client, place].setdefault(value, "monotonic reads")
        return len(self._established[place])

    def _check_final(self, bucket: str, key: bytes, values: frozenset[bytes]) -> int:
        place = (bucket, key)
        if self._buckets[bucket].conflict is Conflict.LWW:
            if len(values) > 1:
                raise Violation(f"lww key {bucket}/{key!r} ended with {len(values)} values")
            if self._established[place] and not values and not self._deletes(place):
                raise Violation(f"lww key {bucket}/{key!r} ended empty, although it was never deleted")
            return 1
        for value in self._established[place]:
            if not self._covered(value, values, float("inf")):
                raise Violation(
                    f"acknowledged {value!r} of {bucket}/{key!r} is lost: {_shown(values)} is left"
                )
            self._not_resurrected(value, values, float("inf"), place)
        return len(self._established[place])

    def _deletes(self, place: Place) -> bool:
        return any(w.value is None and (w.bucket, w.key) == place for w in self._history.writes)

    def _not_resurrected(self, value: bytes, values: frozenset[bytes], when: float, place: Place) -> None:
        """What an acknowledged write has replaced, or an acknowledged delete has deleted, stays away."""
        if value in values and any(
            write.result is Result.OK and write.ended < when for write in self._overwriters[value]
        ):
            raise Violation(f"{value!r} of {place[0]}/{place[1]!r} is back, although it was replaced")

    def _covered(self, value: bytes, values: frozenset[bytes], before: float) -> bool:
        """Whether `values` hold `value` or what may have replaced it before that time."""
        waiting, tried = [value], {value}
        while waiting:
            current = waiting.pop()
            if current in values:
                return True
            for write in self._overwriters[current]:
                if not write.may_exist or write.began > before:
                    continue
                if write.value is None:
                    return True
                if write.value not in tried:
                    tried.add(write.value)
                    waiting.append(write.value)
        return False


def _shown(values: Iterable[bytes]) -> str:
    return ", ".join(value.decode() for value in sorted(values)) or "nothing"
