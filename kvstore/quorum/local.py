"""What this node itself keeps of a key: the version of its replica or, as a fallback, hints for primaries."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.errors import Corruption, Overloaded, VersionTooLarge
from kvstore.protocol.instant import Instant
from kvstore.quorum.hints import HintChange, Hints
from kvstore.quorum.placement import Placement
from kvstore.quorum.replica import Changes, Replica
from kvstore.versions import NO_VERSION, EncodedVersion, InternalKey


class LocalCopy:
    """Reads and writes both as one."""

    __slots__ = ("hints", "replica")

    def __init__(self, replica: Replica, hints: Hints) -> None:
        self.replica = replica
        self.hints = hints

    def read(self, placement: Placement, key: InternalKey) -> EncodedVersion:
        """What a coordinator holds of a key, empty: nothing; raises Corruption."""
        if placement.here:
            return self.replica.read(key)
        known = NO_VERSION
        for node in placement.primaries:
            known = self.replica.combine(key, known, self.hints.read(node, key))
        return known

    def store(self, key: InternalKey, version: EncodedVersion, hint_for: str = "") -> int:
        """Reconcile a version into the replica, or keep it as a hint; returns the LSN to wait for.

        Raises StorageFull, Corruption of what is stored, VersionTooLarge, Overloaded when hints are at
        their limit.
        """
        if not hint_for:
            return self.replica.apply(key, version)
        change = self.hints.plan(hint_for, key, version)
        if change is None:
            return self.replica.last_lsn
        lsn = self.replica.write([(change.key, change.version)])
        self.hints.applied(change)
        return lsn

    def append(
        self, copies: Sequence[tuple[Placement, InternalKey, EncodedVersion, EncodedVersion]], now: Instant
    ) -> int:
        """A coordinator's own copies, each over what is stored, and the hints it must keep, in one batch.

        Of different keys. Returns the LSN to wait for. Raises StorageFull, Overloaded; Overloaded, Corruption
        or VersionTooLarge when one of its own copies is a hint that cannot be kept.
        """
        changes: Changes = {}
        hints: list[HintChange] = []
        for placement, key, stored, version in copies:
            if placement.here:
                changes[key] = stored, version
            elif placement.stands_in_for:
                self._plan(hints, placement.stands_in_for, key, version)
            for target in placement.unplaced:
                try:
                    self._plan(hints, target, key, version)
                except (Overloaded, Corruption, VersionTooLarge):  # W acks come from others
                    self.hints.lost(target, key, version, now)
        lsn = self.replica.replace(changes, [(hint.key, hint.version) for hint in hints])
        for hint in hints:
            self.hints.applied(hint)
        return lsn

    def _plan(
        self, changes: list[HintChange], target: str, key: InternalKey, version: EncodedVersion
    ) -> None:
        if change := self.hints.plan(target, key, version):
            changes.append(change)
