"""What is deleted is not needed any more: hints are delivered, reaped tombstones cover nothing under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from kvstore.hlc import wall_time
from kvstore.node.parts import Foundation
from kvstore.quorum.read import ReadOperation
from kvstore.sim.checker import Violation
from kvstore.sim.invariants.copies import Copies
from kvstore.sim.invariants.keyspace import Keyspace, decoded, shown
from kvstore.sim.invariants.messages import Messages
from kvstore.sim.invariants.watched import Watched
from kvstore.sim.invariants.writes import Writes
from kvstore.versions import NO_VERSION, EncodedVersion, InternalKey


class Deletions:
    """Hints and tombstones that nodes delete; raises Violation. `hint_age_ms`: older hints may go."""

    def __init__(
        self,
        hosts: Mapping[str, Watched],
        keyspace: Keyspace,
        writes: Writes,
        copies: Copies,
        messages: Messages,
        hint_age_ms: float,
        counts: Counter[str],
    ) -> None:
        self._hosts = hosts
        self._keyspace = keyspace
        self._writes = writes
        self._copies = copies
        self._messages = messages
        self._hint_age_ms = hint_age_ms
        self._counts = counts

    def hint_deleted(self, node: str, target: str, key: InternalKey, version: EncodedVersion) -> None:
        """The target has it; or, of one that is too old, some primary, who repairs the target.

        Where the target was no primary when the hint was sent, all that were have it.
        """
        self._counts["deleted hints are home"] += 1
        primaries = self._keyspace.primaries(key)
        newest = max(wall_time(sibling.time) for sibling in decoded(version).siblings)
        expired = self._hosts[node].machine.wall - newest > self._hint_age_ms
        host = self._hosts[node].node
        for each in self._keyspace.homes_by_state(key, host.state if host else None):
            homes = {target} if target in each else each
            if all(self._copies.has(home, key, version) for home in homes):
                return
        if expired and any(self._copies.has(heir, key, version) for heir in primaries):
            return
        if expired and node in primaries:  # in the same log, before this
            mine = EncodedVersion(self._hosts[node].engine.get(key) or b"")
            if self._keyspace.dominates(key, mine, version):
                return
        raise Violation(
            f"{node} deletes its hint for {target} about {self._keyspace.name(key)}: "
            f"{shown(version)} is not there"
        )

    def data_deleted(self, node: str, key: InternalKey, tombstone: EncodedVersion) -> None:
        """Nobody can see it, and nothing is under way that may bring back what it covers."""
        reaping = self._hosts[node].node
        if reaping is not None and node not in self._keyspace.homes(key, reaping.state):
            self._counts["left behind is dropped"] += 1
            return
        self._counts["reaped is nowhere under way"] += 1
        if decoded(tombstone).visible(self._hosts[node].machine.wall):
            raise Violation(
                f"{node} reaps {shown(tombstone)} of {self._keyspace.name(key)}, which can be seen"
            )
        for name, host in self._hosts.items():
            if host.node is None:
                continue
            for how, version in self._under_way(name, host, host.node.base, key):
                if version and (older := self._keyspace.lost_to(key, tombstone, version)):
                    raise Violation(
                        f"{node} reaps {self._keyspace.name(key)} while {older[0].dot}, which is older, "
                        f"is in {how} of {name}"
                    )
        self._writes.reaped[key].append(tombstone)

    def _under_way(
        self, name: str, host: Watched, base: Foundation, key: InternalKey
    ) -> Iterable[tuple[str, EncodedVersion]]:
        """What the replica, hints, operations and exchanges of a node may yet bring to somebody."""
        if name in self._keyspace.primaries(key):
            yield "the replica", host.engine.durable(key) or NO_VERSION
        for target in base.local.hints.targets:
            yield "a hint", base.local.hints.read(target, key)
        for operation in base.rpc.all():
            for write in self._messages.asked_to_write(name, operation.number):
                if write.key == key:
                    yield "an operation", write.version
            if isinstance(operation, ReadOperation) and operation.touches() == key:
                for answer in (operation.local, *operation.answers.values()):
                    yield "a read", answer
            for told, version in self._messages.told_to(name, operation.number):
                if told == key:
                    yield "an exchange", version
