"""What is written: dots name one write, versions only grow, what was reaped stays away."""

from __future__ import annotations

from collections import Counter, defaultdict

from kvstore.ring import split_data_key as split
from kvstore.sim.checker import Violation
from kvstore.sim.history import Mint
from kvstore.sim.invariants.keyspace import Keyspace, decoded, shown
from kvstore.sim.scheduler import Scheduler
from kvstore.versions import (
    BucketName,
    Digest,
    Dot,
    EncodedVersion,
    InternalKey,
    Sibling,
    UserKey,
    covers,
    digest,
)


class Writes:
    """All that any engine has written, as data or in hints; raises Violation."""

    def __init__(self, keyspace: Keyspace, scheduler: Scheduler, counts: Counter[str]) -> None:
        self._keyspace = keyspace
        self._scheduler = scheduler
        self._counts = counts
        self.values_name_writes = False
        """Whether clients write no value twice to a key."""
        self.mints: defaultdict[InternalKey, list[Mint]] = defaultdict(list)
        """All writes by internal key."""
        self.versions: dict[Digest, EncodedVersion] = {}
        """By digest, all that was ever written."""
        self.reaped: defaultdict[InternalKey, list[EncodedVersion]] = defaultdict(list)
        """The tombstones that were deleted, by internal key."""
        self._meanings: dict[Dot, tuple[InternalKey, Sibling]] = {}

    def mints_by_place(self) -> dict[tuple[BucketName, UserKey], list[Mint]]:
        """All writes by bucket and key."""
        return {split(key)[1:]: mints for key, mints in self.mints.items()}

    def written(
        self, node: str, place: bytes, key: InternalKey, old: EncodedVersion | None, new: EncodedVersion
    ) -> None:
        """At `place` a node has `new` instead of `old`: as data, or as a hint about `key`."""
        split(key)
        self.versions[digest(new)] = new
        for sibling in decoded(new).siblings:
            meaning = self._meanings.get(sibling.dot)
            if meaning is None:
                self._minted(key, sibling)
                if place == key and old is not None:
                    self._knows_its_dots(node, key, sibling.dot, old)
            elif meaning != (key, sibling):
                self._counts["dots name one write"] += 1
                raise Violation(
                    f"{sibling.dot} names two writes: {meaning} and, written by {node}, {(key, sibling)}"
                )
        if old:
            self._counts["versions only grow"] += 1
            if not self._keyspace.dominates(key, new, old):
                kind = "a hint about " if place != key else ""
                raise Violation(
                    f"{node} forgets: {kind}{self._keyspace.name(key)} was {shown(old)}, and is {shown(new)}"
                )
        for tombstone in self.reaped.get(key, ()):
            self._counts["reaped stays away"] += 1
            if back := self._keyspace.lost_to(key, tombstone, new):
                raise Violation(
                    f"{back[0].dot} of {self._keyspace.name(key)} is back at {node}: it was reaped"
                )

    def _knows_its_dots(self, node: str, key: InternalKey, dot: Dot, old: EncodedVersion) -> None:
        """Whoever mints a dot has all earlier ones of its actor on the key, or would cover them unseen."""
        self._counts["an actor knows its dots"] += 1
        known = decoded(old).context if old else ()
        for mint in self.mints[key][:-1]:
            if mint.dot.actor != dot.actor or covers(known, mint.dot):
                continue
            if not any(covers(decoded(gone).context, mint.dot) for gone in self.reaped.get(key, ())):
                raise Violation(
                    f"{node} mints {dot} of {self._keyspace.name(key)} and has forgotten {mint.dot}, "
                    "which it covers"
                )

    def _minted(self, key: InternalKey, sibling: Sibling) -> None:
        self._meanings[sibling.dot] = key, sibling
        self._counts["dots name one write"] += 1
        if self.values_name_writes and sibling.value is not None:
            self._counts["a write has one dot"] += 1
            for mint in self.mints[key]:
                if mint.value == sibling.value:
                    raise Violation(
                        f"{sibling.value[:40]!r} of {self._keyspace.name(key)} was written twice: "
                        f"as {mint.dot} and as {sibling.dot}"
                    )
        self.mints[key].append(Mint(sibling.dot, sibling.value, sibling.time, self._scheduler.now))
