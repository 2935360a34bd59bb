"""Hints: versions kept here for a node that could not take them (Dynamo section 4.6).

They live in this node's own engine, so they are as durable as data: key `h` target NUL data-key,
value the version. Counts, bytes and ages per target are kept in memory and bounded. What is dropped is
counted by its reason and told to `on_dropped`, never silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from kvstore.config import NAME, Limits, QuorumSettings
from kvstore.errors import Corruption, InvalidRequest, Overloaded, StorageFull, VersionTooLarge
from kvstore.hlc import wall_time
from kvstore.lsm import Engine
from kvstore.protocol.instant import Instant
from kvstore.quorum.counters.hints import HintCounters
from kvstore.quorum.replica import Replica
from kvstore.ring import check_data_key
from kvstore.versions import NO_VERSION, EncodedVersion, InternalKey, check_version, decode_version

HINT_KEYSPACE = b"h"
"""What every internal key of a hint begins with."""
_LIMITS = Limits()
_AGES = 10_000
"""Ages are kept so finely: to a minute, if a hint may be a week old."""


@dataclass(frozen=True, slots=True)
class PendingHints:
    """Hints kept here for one node: how many, bytes of their versions, the oldest one's age in seconds."""

    target: str
    count: int
    bytes: int
    oldest: float


@dataclass(frozen=True, slots=True)
class HintChange:
    """One hint to be written over what is kept (`old`, empty: nothing)."""

    target: str
    data_key: InternalKey
    old: EncodedVersion
    version: EncodedVersion

    @property
    def key(self) -> bytes:
        """Where it is written."""
        return hint_key(self.target, self.data_key)


@dataclass(slots=True)
class _Kept:
    """The totals of one target; `steps` counts its hints by when they were written."""

    count: int = 0
    size: int = 0
    steps: Counter[int] = field(default_factory=Counter)


def hint_key(target: str, key: InternalKey) -> bytes:
    """Where the hint for `target` about the data key `key` is kept."""
    return HINT_KEYSPACE + target.encode() + b"\0" + key


def split_hint_key(key: bytes) -> tuple[str, InternalKey]:
    """Inverse of `hint_key`; raises Corruption."""
    target, nul, data_key = key[len(HINT_KEYSPACE) :].partition(b"\0")
    if not nul or not target.isascii():
        raise Corruption("hints", f"{key[:80]!r} is no key of a hint")
    return target.decode(), InternalKey(data_key)


class Hints:
    """The hints of one node."""

    __slots__ = (
        "_counters",
        "_deleted",
        "_engine",
        "_pending",
        "_replica",
        "_settings",
        "_step",
        "_unreadable",
        "on_dropped",
        "on_kept",
    )

    def __init__(
        self, engine: Engine, replica: Replica, settings: QuorumSettings, counters: HintCounters
    ) -> None:
        self._engine = engine
        self._replica = replica
        self._settings = settings
        self._counters = counters
        self.on_dropped: Callable[[str, InternalKey, Instant], None] = _ignore_dropped
        """Called with the target and the data key of a hint that is kept no more, and was not delivered."""
        self.on_kept: Callable[[str], None] = _ignore_kept
        """Called with the target when a hint has been written."""
        self._step = max(1, int(settings.hint_age * 1000 / _AGES))
        self._pending: dict[str, _Kept] = {}
        self._deleted: set[str] = set()
        """Targets of hints that were deleted since this start."""
        self._unreadable: set[bytes] = set()
        """Where hints are kept that nobody can be sent."""
        self.recount()

    def recount(self) -> None:
        """Count what is stored, as far as it can be read; what is no hint for anybody waits to be dropped."""
        self._pending.clear()
        self._unreadable.clear()
        for key, version in self._engine.scan_around(HINT_KEYSPACE, bytes([HINT_KEYSPACE[0] + 1])):
            if version is None:
                continue
            if _is_hint(key, version):
                self._count(split_hint_key(key)[0], NO_VERSION, EncodedVersion(version))
            else:
                self._unreadable.add(key)

    def drop_unreadable(self) -> None:
        """Delete what is kept and is no hint for anybody; on a full disk, later."""
        if not self._unreadable:
            return
        with suppress(StorageFull, Overloaded):
            # what had to wait for space may have been written anew meanwhile
            gone = [
                key for key in sorted(self._unreadable) if not _is_hint(key, self._engine.get(key) or b"")
            ]
            self._replica.write([(key, None) for key in gone])
            self._counters.hints_unreadable += len(gone)
            self._unreadable.clear()

    @property
    def empty(self) -> bool:
        """Whether no hint is kept for anyone."""
        return not self._pending

    @property
    def targets(self) -> list[str]:
        """Every node that hints are kept for, by name."""
        return sorted(self._pending)

    def all_pending(self, wall: int) -> tuple[PendingHints, ...]:
        """What is kept for each target, by name; `wall` is the time in milliseconds."""
        return tuple(
            PendingHints(target, kept.count, kept.size, max(0, wall - self._oldest(kept)) / 1000)
            for target, kept in sorted(self._pending.items())
        )

    def have_expired(self, target: str, wall: int) -> bool:
        """Whether a hint for `target` is too old at wall time `wall` (milliseconds)."""
        return target in self._pending and self._is_past(self._oldest(self._pending[target]), wall)

    def is_too_old(self, version: EncodedVersion, wall: int) -> bool:
        """Whether a hint that is this version is too old."""
        return self._is_past(self._end(self._written(version)), wall)

    def read(self, target: str, key: InternalKey) -> EncodedVersion:
        """The version kept for `target`, empty when there is none."""
        return EncodedVersion(self._engine.get(hint_key(target, key)) or b"")

    def holds(self, key: InternalKey) -> bool:
        """Whether a hint about the data key is kept, for anyone, or would be again after a power failure."""
        unsynced = self._replica.unsynced
        deleted = any(unsynced(hint_key(target, key)) for target in self._deleted)
        return deleted or any(self.read(target, key) for target in self._pending)

    def plan(self, target: str, key: InternalKey, version: EncodedVersion) -> HintChange | None:
        """What keeping `version` for `target` changes, None if it is kept already.

        The caller writes it and then calls `applied`. Raises Overloaded when there is no room,
        VersionTooLarge, Corruption of the hint that is kept already.
        """
        old = self.read(target, key)
        new = self._replica.combine(key, old, version)
        if new == old:
            return None
        if len(new) > self._replica.largest:
            raise VersionTooLarge(len(new), self._replica.largest)
        if not old and not self._room(target, len(new)):
            raise Overloaded(self._settings.hint_interval, f"hints for {target} are at their limit")
        return HintChange(target, key, old, new)

    def applied(self, change: HintChange) -> None:
        """A planned change has been written."""
        self._count(change.target, change.old, change.version)
        self._counters.hints_stored += 1
        self.on_kept(change.target)

    def lost(self, target: str, key: InternalKey, version: EncodedVersion, now: Instant) -> None:
        """A hint is kept nowhere: there is no room for it here, or the disk did not take it."""
        if self._room(target, len(version)):
            self._counters.hints_unwritable += 1
        else:
            self._counters.hints_overflowed += 1
        self._dropped(target, key, now)

    def delivered(self, target: str, key: InternalKey, version: EncodedVersion) -> bool:
        """Forget a hint that was acknowledged by those it is for, unless it has changed since it was sent.

        The caller lets it be synced soon.
        """
        if self.read(target, key) != version:
            return False
        self._delete(target, key, version)
        self._counters.hints_delivered += 1
        return True

    def expired(self, target: str, key: InternalKey, version: EncodedVersion, now: Instant) -> bool:
        """Drop a hint that is too old, unless it has changed. The caller lets it be synced soon."""
        if self.read(target, key) != version:
            return False
        self._delete(target, key, version)
        self._counters.hints_expired += 1
        self._dropped(target, key, now)
        return True

    def page(
        self, target: str, after: InternalKey, count: int, size: int
    ) -> list[tuple[InternalKey, EncodedVersion]]:
        """Up to `count` hints of about `size` bytes in all, those behind data key `after`."""
        start = hint_key(target, after) + (b"\0" if after else b"")
        found: list[tuple[InternalKey, EncodedVersion]] = []
        for key, version in self._engine.scan(start, HINT_KEYSPACE + target.encode() + b"\x01"):
            if key in self._unreadable:
                continue
            found.append((split_hint_key(key)[1], EncodedVersion(version)))
            size -= len(version)
            if len(found) >= count or size <= 0:
                break
        return found

    def _delete(self, target: str, key: InternalKey, version: EncodedVersion) -> None:
        self._replica.write([(hint_key(target, key), None)])
        self._deleted.add(target)
        self._count(target, version, NO_VERSION)

    def _dropped(self, target: str, key: InternalKey, now: Instant) -> None:
        self._counters.hints_dropped += 1
        self.on_dropped(target, key, now)

    def _room(self, target: str, size: int) -> bool:
        kept = self._pending.get(target) or _Kept()
        return kept.count < self._settings.hint_count and kept.size + size <= self._settings.hint_bytes

    def _count(self, target: str, old: EncodedVersion, new: EncodedVersion) -> None:
        """A hint has become `new`; empty: none."""
        kept = self._pending.setdefault(target, _Kept())
        for version, change in ((old, -1), (new, 1)):
            if version:
                step = self._written(version)
                kept.count += change
                kept.size += change * len(version)
                kept.steps[step] += change
                if not kept.steps[step]:
                    del kept.steps[step]
        if not kept.count:
            del self._pending[target]

    def _written(self, version: EncodedVersion) -> int:
        """The step in which the newest write of a hint was made.

        By its coordinator's clock: if that is wrong, the hint goes sooner or later, and anti-entropy repairs.
        """
        newest = max((sibling.time for sibling in decode_version(version).siblings), default=0)
        return wall_time(newest) // self._step

    def _oldest(self, kept: _Kept) -> int:
        return self._end(min(kept.steps))

    def _end(self, step: int) -> int:
        """The wall time in milliseconds at which a step ended, so that no hint seems older than it is."""
        return (step + 1) * self._step

    def _is_past(self, written: int, wall: int) -> bool:
        return wall - written > self._settings.hint_age * 1000


def _is_hint(key: bytes, version: bytes) -> bool:
    """Whether this is a version of some key, kept for some node.

    One that is no member any more keeps its hints: they go to the present primaries.
    """
    try:
        target, data_key = split_hint_key(key)
        check_data_key(data_key, _LIMITS)
        check_version(EncodedVersion(version))
    except (Corruption, InvalidRequest):
        return False
    return NAME.fullmatch(target) is not None


def _ignore_dropped(target: str, key: InternalKey, now: Instant) -> None:
    """Until a callback is set."""


def _ignore_kept(target: str) -> None:
    """Until a callback is set."""
