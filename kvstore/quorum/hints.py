"""Hints: versions kept here for a node that could not take them (Dynamo section 4.6).

They live in this node's own engine, so they are as durable as data: key `h` target NUL data-key,
value the version. Counts and bytes per target are kept in memory and bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kvstore.config import QuorumSettings
from kvstore.errors import Corruption, Overloaded
from kvstore.lsm import Engine
from kvstore.quorum.counters import Counters
from kvstore.quorum.replica import Replica

_TAG = b"h"


@dataclass(frozen=True, slots=True)
class PendingHints:
    """Hints kept here for one node: how many and their bytes (versions only)."""

    target: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class HintChange:
    """One hint to be written, and what that adds to its target's totals."""

    target: str
    key: bytes
    version: bytes
    count: int
    size: int


def hint_key(target: str, key: bytes) -> bytes:
    """Where the hint for `target` about the data key `key` is kept."""
    return _TAG + target.encode() + b"\0" + key


def split_hint_key(key: bytes) -> tuple[str, bytes]:
    """Inverse of `hint_key`; raises Corruption."""
    target, nul, data_key = key[len(_TAG) :].partition(b"\0")
    if not nul or not target.isascii():
        raise Corruption("hints", f"{key[:80]!r} is no key of a hint")
    return target.decode(), data_key


class Hints:
    """The hints of one node."""

    __slots__ = ("_counters", "_delivered", "_engine", "_pending", "_replica", "_settings", "on_dropped")

    def __init__(
        self, engine: Engine, replica: Replica, settings: QuorumSettings, counters: Counters
    ) -> None:
        self._engine = engine
        self._replica = replica
        self._settings = settings
        self._counters = counters
        self.on_dropped: Callable[[str, bytes], None] = _nobody_cares
        self._pending: dict[str, tuple[int, int]] = {}
        self._delivered: set[str] = set()
        """Targets of hints that were deleted in this life."""
        self.recount()

    def recount(self) -> None:
        """Count what is stored, as far as it can be read."""
        self._pending.clear()
        for key, version in self._engine.scan_around(_TAG, bytes([_TAG[0] + 1])):
            if version is not None:
                self._count(split_hint_key(key)[0], 1, len(version))

    def pending(self, target: str) -> int:
        """How many hints are kept for `target`."""
        return self._pending.get(target, (0, 0))[0]

    @property
    def empty(self) -> bool:
        """Whether no hint is kept for anyone."""
        return not self._pending

    def all_pending(self) -> tuple[PendingHints, ...]:
        """Every target that has hints, by name."""
        return tuple(PendingHints(t, *self._pending[t]) for t in sorted(self._pending))

    def read(self, target: str, key: bytes) -> bytes:
        """The version kept for `target`, empty when there is none."""
        return self._engine.get(hint_key(target, key)) or b""

    def holds(self, key: bytes) -> bool:
        """Whether a hint about the data key is kept, for anyone, or would be again after a power failure."""
        unsynced = self._replica.unsynced
        deleted = any(unsynced(hint_key(target, key)) for target in self._delivered)
        return deleted or any(self.read(target, key) for target in self._pending)

    def plan(self, target: str, key: bytes, version: bytes) -> HintChange | None:
        """What keeping `version` for `target` changes, None if it is kept already.

        The caller writes it and then calls `applied`. Raises Overloaded when there is no room.
        """
        old = self.read(target, key)
        new = self._replica.combine(key, old, version)
        if new == old:
            return None
        if not old and not self._room(target, len(new)):
            self._counters.hints_dropped += 1
            self.on_dropped(target, key)
            raise Overloaded(self._settings.hint_interval, f"hints for {target} are at their limit")
        return HintChange(target, hint_key(target, key), new, 0 if old else 1, len(new) - len(old))

    def applied(self, change: HintChange) -> None:
        """A planned change has been written."""
        self._count(change.target, change.count, change.size)
        self._counters.hints_stored += 1

    def delivered(self, target: str, key: bytes, version: bytes) -> bool:
        """Forget a hint that `target` has acknowledged, unless it has changed since it was sent.

        The caller lets it be synced soon.
        """
        if self.read(target, key) != version:
            return False
        self._replica.write([(hint_key(target, key), None)])
        self._delivered.add(target)
        self._count(target, -1, -len(version))
        self._counters.hints_delivered += 1
        return True

    def page(self, target: str, after: bytes, count: int, size: int) -> list[tuple[bytes, bytes]]:
        """Up to `count` hints of about `size` bytes in all, those behind data key `after`."""
        start = hint_key(target, after) + (b"\0" if after else b"")
        found: list[tuple[bytes, bytes]] = []
        for key, version in self._engine.scan(start, _TAG + target.encode() + b"\x01"):
            found.append((split_hint_key(key)[1], version))
            size -= len(version)
            if len(found) >= count or size <= 0:
                break
        return found

    def _room(self, target: str, size: int) -> bool:
        count, total = self._pending.get(target, (0, 0))
        return count < self._settings.hint_count and total + size <= self._settings.hint_bytes

    def _count(self, target: str, count: int, size: int) -> None:
        old_count, old_size = self._pending.get(target, (0, 0))
        if old_count + count:
            self._pending[target] = (old_count + count, old_size + size)
        else:
            self._pending.pop(target, None)


def _nobody_cares(target: str, key: bytes) -> None:
    """Until somebody wants to hear of dropped hints."""
