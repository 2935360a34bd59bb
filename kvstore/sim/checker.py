"""What must hold of a history, and of the values left when all faults have ended.

Every value is written once, so it names its write. A value is *covered* by a set of values if it is in the
set, or if a write that saw it may exist and is covered itself (a delete that may exist covers all it saw,
and time all that may have expired). A value that was acknowledged by W replicas, or that a strict read of R
has returned, is *established* on so many: from then on it must be covered by every strict read of R where
the two are above N, and by what is left in the end. That holds for all clients, so it holds for each session
as well: a client reads its own writes, and never reads back in time. What fallbacks may have counted for
promises neither, except to sessions (kvstore.sim.sessions).

In an `lww` bucket what was written last by its time replaces the others, so there a read may not show, or
leave, less than what is established: a value of an earlier time, or nothing without a later delete.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from kvstore.config import BucketSettings, Conflict, QuorumMode
from kvstore.sim.history import FOR_EVER, SESSION_SECONDS, SESSIONS, History, Read, Result, Write
from kvstore.sim.sessions import check_sessions
from kvstore.versions import BucketName, Dot, UserKey

Place = tuple[BucketName, UserKey]
"""Bucket and key."""
_Order = tuple[int, Dot]
"""By which an lww bucket orders writes: time, and dots of one time."""


class Violation(Exception):
    """A promise was broken; the message says which and where."""


class Checker:
    """Checks one history against the promises of its buckets.

    A strict read of less than `least_r` replicas is promised nothing: where a disk may be lost, of which
    nobody knows what it had forgotten, R=1 of it would show nothing.
    """

    def __init__(self, history: History, buckets: Mapping[str, BucketSettings], least_r: int = 1) -> None:
        self._history = history
        self._buckets = buckets
        self._least_r = least_r
        self._writes: dict[bytes, Write] = {}
        self._overwriters: dict[bytes, list[Write]] = defaultdict(list)
        self._blind: dict[Place, list[Write]] = defaultdict(list)
        self._established: dict[Place, dict[bytes, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        """By value on how many replicas it is, and since when."""
        self._orders: dict[bytes, _Order] = {}
        self._tombstones: dict[Place, list[tuple[_Order, float]]] = defaultdict(list)
        self._sessions: dict[tuple[str, Place], dict[bytes, str]] = defaultdict(dict)
        """What each client knows of a key by itself, and which guarantee its loss would break."""
        for write in history.writes:
            place = (write.bucket, write.key)
            if write.value is not None:
                self._writes[write.value] = write
                if write.result is Result.OK:
                    self._establish(place, write.value, self._replicas(write), write.ended)
                    self._sessions[write.client, place][write.value] = "read your writes"
            elif write.blind:
                self._blind[place].append(write)
            for value in write.seen:
                self._overwriters[value].append(write)
        for place, mints in history.mints.items():
            for mint in mints:
                if mint.value is None:
                    self._tombstones[place].append(((mint.time, mint.dot), mint.at))
                else:
                    self._orders[mint.value] = mint.time, mint.dot

    def check(self, final: Mapping[Place, frozenset[bytes]]) -> int:
        """Check all reads and the values left in the end; returns how many facts were checked.

        Raises Violation.
        """
        checked = 0
        for read in sorted(self._history.reads, key=lambda read: read.ended):
            self._only_written(read.bucket, read.key, read.values, read.ended)
            checked += self._not_expired(read)
            if r := self._replicas(read):
                checked += self._check_read(read, r)
        more, problem = check_sessions(self._history, SESSIONS, SESSION_SECONDS, self._covered)
        if problem:
            raise Violation(problem)
        checked += more
        for (bucket, key), values in final.items():
            self._only_written(bucket, key, values, None)
            checked += self._check_final(bucket, key, values)
        return checked

    def _replicas(self, operation: Write | Read, reading: bool = False) -> int:
        """How many primaries have confirmed an operation, or (`reading`) the read before a blind delete.

        0: it may be none.
        """
        settings = self._buckets[operation.bucket]
        if (operation.quorum or settings.quorum) is QuorumMode.SLOPPY:
            return 0
        if isinstance(operation, Write) and not reading:
            return operation.w or settings.w
        r = operation.r or settings.r
        return r if r >= min(self._least_r, settings.n) else 0

    def _establish(self, place: Place, value: bytes, replicas: int, when: float) -> None:
        known = self._established[place][value]
        known[replicas] = min(known.get(replicas, when), when)

    def _since(self, place: Place, value: bytes, r: int) -> float:
        """Since when a read of `r` must know a value."""
        n = self._buckets[place[0]].n
        known = self._established[place].get(value, {})
        return min((when for replicas, when in known.items() if replicas + r > n), default=FOR_EVER)

    def _only_written(
        self, bucket: BucketName, key: UserKey, values: Iterable[bytes], when: float | None
    ) -> None:
        """No value may be seen that was never written there, or whose write was said not to be applied."""
        for value in sorted(values):
            write = self._writes.get(value)
            if write is None or (write.bucket, write.key) != (bucket, key):
                raise Violation(f"{value!r} was read from {bucket}/{key!r}, but never written there")
            if not write.may_exist:
                raise Violation(f"{value!r} was said to be not applied, but was read from {bucket}/{key!r}")
            if when is not None and write.began > when:
                raise Violation(f"{value!r} was read before it was written")

    def _not_expired(self, read: Read) -> int:
        """While all clocks are right, nothing is seen after its time to live."""
        checked = 0
        for value in sorted(read.values):
            write = self._writes[value]
            if write.ttl and write.result is Result.OK and write.exact and read.exact:
                checked += 1
                if read.began > write.ended + write.ttl:
                    raise Violation(
                        f"{value!r} of {read.bucket}/{read.key!r}, written before {write.ended:.3f} for "
                        f"{write.ttl} s, was read at {read.began:.3f}"
                    )
        return checked

    def _check_read(self, read: Read, r: int) -> int:
        place = (read.bucket, read.key)
        checked = 0
        for value in list(self._established[place]):
            since = self._since(place, value, r)
            if since >= read.began:
                continue
            checked += 1
            if not self._shown(place, value, read.values, read.ended, read.exact):
                promise = self._sessions[read.client, place].get(value, "R + W > N")
                raise Violation(
                    f"{promise}: {read.client} read {read.bucket}/{read.key!r} at {read.began:.3f} and got "
                    f"{_shown(read.values)}: it lost {value!r}, established at {since:.3f}"
                )
            self._not_resurrected(value, read.values, read.began, place, r)
        for value in sorted(read.values):
            self._establish(place, value, r, read.ended)
            self._sessions[read.client, place].setdefault(value, "monotonic reads")
        return checked

    def _check_final(self, bucket: BucketName, key: UserKey, values: frozenset[bytes]) -> int:
        place = (bucket, key)
        settings = self._buckets[bucket]
        if settings.conflict is Conflict.LWW and len(values) > 1:
            raise Violation(f"lww key {bucket}/{key!r} ended with {len(values)} values")
        for value in self._established[place]:
            if not self._shown(place, value, values, FOR_EVER, False):
                raise Violation(
                    f"acknowledged {value!r} of {bucket}/{key!r} is lost: {_shown(values)} is left"
                )
            self._not_resurrected(value, values, FOR_EVER, place, settings.n)
        return len(self._established[place])

    def _shown(
        self, place: Place, value: bytes, values: frozenset[bytes], before: float, exact: bool
    ) -> bool:
        """Whether what was read by then says that `value` was written, or is what may have replaced it."""
        if self._buckets[place[0]].conflict is not Conflict.LWW:
            return self._covered(value, values, before, exact)
        order = self._orders.get(value)
        if order is None:
            return value in values or bool(values) or self._deletes(place)
        if any(self._orders.get(shown, order) >= order for shown in values):
            return True
        return any(later > order and at <= before for later, at in self._tombstones[place])

    def _deletes(self, place: Place) -> bool:
        return any(w.value is None and (w.bucket, w.key) == place for w in self._history.writes)

    def _not_resurrected(
        self, value: bytes, values: frozenset[bytes], when: float, place: Place, r: int
    ) -> None:
        """What an acknowledged write has replaced, or an acknowledged delete has deleted, stays away."""
        if value not in values or self._buckets[place[0]].conflict is Conflict.LWW:
            return
        n = self._buckets[place[0]].n
        for write in self._overwriters[value]:
            known = when == FOR_EVER or self._replicas(write) + r > n
            if write.result is Result.OK and write.ended < when and known:
                raise Violation(f"{value!r} of {place[0]}/{place[1]!r} is back, although it was replaced")
        for delete in self._blind[place]:
            if delete.result is not Result.OK or not delete.ended < when:
                continue
            saw = self._replicas(delete, reading=True)
            known = when == FOR_EVER or self._replicas(delete) + r > n
            if saw and known and self._since(place, value, saw) < delete.began:
                raise Violation(f"{value!r} of {place[0]}/{place[1]!r} is back, although it was deleted")

    def _covered(self, value: bytes, values: frozenset[bytes], before: float, exact: bool = False) -> bool:
        """Whether `values` hold `value` or what may have replaced it before that time; `exact`: see Read."""
        waiting, tried = [value], {value}
        while waiting:
            current = waiting.pop()
            if current in values or self._may_be_gone(current, before, exact):
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

    def _may_be_gone(self, value: bytes, before: float, exact: bool) -> bool:
        """Whether it may have expired by then, or a delete without a context may have seen it."""
        write = self._writes.get(value)
        if write is None:
            return False
        if write.ttl and not (write.exact and exact and before < write.began + write.ttl):
            return True
        return any(
            delete.may_exist
            and delete.began <= before
            and (delete.result is Result.UNKNOWN or write.began < delete.ended)
            for delete in self._blind[write.bucket, write.key]
        )


def _shown(values: Iterable[bytes]) -> str:
    return ", ".join(value.decode() for value in sorted(values)) or "nothing"
