"""On whose disks a write is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from kvstore.quorum.hints import hint_key
from kvstore.sim.checker import Violation
from kvstore.sim.history import Mint
from kvstore.sim.invariants.keyspace import Keyspace, decoded, shown
from kvstore.sim.invariants.watched import Watched
from kvstore.versions import Dot, EncodedVersion, InternalKey, covers


class Copies:
    """Durable copies of writes; raises Violation where there are too few."""

    def __init__(self, hosts: Mapping[str, Watched], keyspace: Keyspace, counts: Counter[str]) -> None:
        self._hosts = hosts
        self._keyspace = keyspace
        self._counts = counts
        self._held: defaultdict[Dot, set[str]] = defaultdict(set)
        """Nodes whose disk had a write, or a hint that has it, when they told somebody."""
        self._shown: dict[tuple[str, InternalKey], EncodedVersion] = {}
        """By node and key the last version that it has let others know to be on its disk."""

    def must_be_durable(
        self, node: str, key: InternalKey, version: EncodedVersion, hint_for: str, how: str
    ) -> None:
        """A node lets another know that it has a version, as data or as a hint; `how` it does so."""
        self._counts["shown is durable"] += 1
        engine = self._hosts[node].engine
        if not engine.waits_for_disk:
            if not hint_for:
                self._shown[node, key] = version
            return
        durable = engine.durable(hint_key(hint_for, key) if hint_for else key)
        if durable is not None and not self._keyspace.dominates(key, durable, version):
            # a hint may have been delivered while it was being synced
            homes = self._keyspace.primaries(key)
            if not hint_for or not any(self.has(each, key, version) for each in homes):
                raise Violation(
                    f"{node} {how} {shown(version)} of {self._keyspace.name(key)}"
                    f"{' for ' + hint_for if hint_for else ''}: on its disk is {shown(durable)}"
                )
            return
        if not hint_for:
            self._shown[node, key] = version
        for sibling in decoded(version).siblings:
            self._held[sibling.dot].add(node)

    def reaped(self, node: str, key: InternalKey) -> None:
        """A node deletes what it has of a key: nobody expects that of it any more."""
        self._shown.pop((node, key), None)

    def must_come_back(self, node: str, key: InternalKey, new: EncodedVersion) -> None:
        """`new` is written over what a node cannot read any more: it has all that others still hold of it."""
        shown_before = self._shown.get((node, key))
        if shown_before is None:
            return
        self._counts["what was damaged comes back"] += 1
        if self._keyspace.dominates(key, new, shown_before):
            return
        for other in self._keyspace.primaries(key):
            if other == node or self._hosts[other].node is None:
                continue
            durable = self._hosts[other].engine.durable(key)
            if durable and self._keyspace.dominates(key, durable, shown_before):
                raise Violation(
                    f"{node} has said that it holds {shown(shown_before)} of {self._keyspace.name(key)}, "
                    f"which {other} holds, and puts {shown(new)} in the place of what it cannot read"
                )

    def has(self, node: str, key: InternalKey, version: EncodedVersion) -> bool:
        """Whether a version, or one that knows it, is on a node's disk, as far as that can be said."""
        if all(node in self._held[sibling.dot] for sibling in decoded(version).siblings):
            return True
        if self._hosts[node].node is None:
            return False
        durable = self._hosts[node].engine.durable(key)
        return durable is None or self._keyspace.dominates(key, durable, version)

    def must_be_on(
        self, node: str, key: InternalKey, minted: Sequence[Mint], needed: int, sloppy: bool, how: str
    ) -> None:
        """One of these writes is on `needed` disks, as `node` has told a client; `how` it did so."""
        having: set[str] = set()
        for mint in minted:
            having = self._disks_with(key, mint.dot, sloppy, needed)
            if len(having) >= needed:
                return
        what = minted[-1].dot if minted else "a write that no disk has seen"
        raise Violation(
            f"{what} of {self._keyspace.name(key)} {how} by {node} as on {needed} disks, "
            f"and is on those of {sorted(having) or 'nobody'}"
        )

    def must_be_on_each_list(self, node: str, key: InternalKey, minted: Sequence[Mint], w: int) -> None:
        """One of these writes is on W disks of each list that it needed by some state, as `node` has told.

        Where there has been one state only, that is what `must_be_on` looks at.
        """
        if not self._keyspace.has_changed:
            return
        self._counts["acknowledged is on W disks of each list"] += 1
        for mint in minted:
            having = {name for name in self._hosts if self._has_dot(name, key, mint.dot)}
            for lists in self._keyspace.written(key):
                if all(len(having.intersection(nodes)) >= min(w, len(nodes)) for nodes in lists):
                    return
        raise Violation(
            f"{self._keyspace.name(key)} is acknowledged by {node} as on {w} disks of each list, and is on "
            "fewer of one"
        )

    def _has_dot(self, node: str, key: InternalKey, dot: Dot) -> bool:
        if node in self._held[dot]:
            return True
        host = self._hosts[node]
        kept = host.engine.durable(key) if host.node else None
        return bool(kept) and covers(decoded(kept).context, dot)

    def _disks_with(self, key: InternalKey, dot: Dot, sloppy: bool, needed: int) -> set[str]:
        """Nodes that durably have a write: of its primaries, where sloppy also in hints."""
        primaries = self._keyspace.primaries(key)
        having = {node for node in self._held[dot] if sloppy or node in primaries}
        if len(having) < needed:
            for node in self._hosts if sloppy else primaries:
                if node not in having and self._looked_up(node, key, dot):
                    having.add(node)
                    self._held[dot].add(node)
        return having

    def _looked_up(self, node: str, key: InternalKey, dot: Dot) -> bool:
        """Whether the disk of a node has a write, or what knows it: a primary as data, others in a hint."""
        if self._hosts[node].node is None:
            return False
        engine, primaries = self._hosts[node].engine, self._keyspace.primaries(key)
        places = [key] if node in primaries else [hint_key(target, key) for target in primaries]
        return any((kept := engine.durable(p)) and covers(decoded(kept).context, dot) for p in places)
