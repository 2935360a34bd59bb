"""What must hold at every moment, of all nodes together; asserted when it happens, not only at the end.

The simulator sees all disks and all messages at once, so it can say what no node can: on how many disks a
version is when a client is told that it is stored. Frames that are under way are not searched: what one of
them must not bring any more is found when it is written. `counts` tells how often each was checked.

A message *shows* a version if its receiver may conclude that the sender holds it. A ReplicaWrite does not,
whoever sends it: it asks to store, and its receiver believes nothing of it before its own sync. A coordinator
sends one while its own copy is being synced, a repair has what R others hold, and a hint that is given away
before it is durable is on its target's disk when that says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from kvstore.config import Conflict, QuorumMode
from kvstore.errors import Corruption, InvalidRequest
from kvstore.hlc import wall_time
from kvstore.lsm.quarantine import Fence
from kvstore.node.outbox import PeerMessage
from kvstore.node.settings import NodeSettings
from kvstore.protocol.messages import (
    ClientRequest,
    Delete,
    Forward,
    ForwardReply,
    Found,
    Get,
    RangeDifference,
    ReadReply,
    ReadSame,
    ReapCheck,
    ReapConfirm,
    ReplicaRead,
    ReplicaWrite,
    Reply,
    Stored,
    TreeHashes,
    TreeRead,
    WriteAck,
)
from kvstore.quorum.coordinator import Coordinator
from kvstore.quorum.hints import HINT_KEYSPACE, hint_key, split_hint_key
from kvstore.quorum.read import ReadOperation
from kvstore.ring import DATA_KEYSPACE, ClusterState, data_key, partition_of, preference_list, token
from kvstore.ring import split_data_key as split
from kvstore.sim.checker import Violation
from kvstore.sim.history import Mint
from kvstore.sim.scheduler import Scheduler
from kvstore.sim.watched_engine import WatchedEngine
from kvstore.versions import (
    Dot,
    Sibling,
    Version,
    covers,
    decode_version,
    digest,
    encode_version,
    reconcile,
    reconcile_lww,
)

_HINTS = (HINT_KEYSPACE, bytes([HINT_KEYSPACE[0] + 1]))
"""Where an engine keeps hints: first key, and the first behind them."""


class Machine(Protocol):
    """What is looked at of a host."""

    @property
    def coordinator(self) -> Coordinator | None:
        """Of the running node; None while it is down."""

    @property
    def engine(self) -> WatchedEngine:
        """Of the running node."""

    @property
    def wall(self) -> int:
        """Its clock, in milliseconds since 1970."""

    @property
    def unanswered(self) -> int:
        """Requests of clients that it has taken and not answered."""


class Invariants:
    """Looks over the shoulders of all hosts; raises Violation within the turn that breaks a promise."""

    def __init__(self, scheduler: Scheduler, state: ClusterState, settings: NodeSettings) -> None:
        self._scheduler = scheduler
        self._state = state
        self._hint_age_ms = settings.quorum.hint_age * 1000
        self.machines: Mapping[str, Machine] = {}
        self.counts: Counter[str] = Counter()
        self.values_name_writes = False
        """Whether clients write no value twice to a key."""
        self.mints: defaultdict[bytes, list[Mint]] = defaultdict(list)
        """All writes by internal key."""
        self._meanings: dict[Dot, tuple[bytes, Sibling]] = {}
        self._held: defaultdict[Dot, set[str]] = defaultdict(set)
        """Nodes whose disk had a write, or a hint that has it, when they told somebody."""
        self._versions: dict[bytes, bytes] = {}
        """By digest, all that was ever written."""
        self._reaped: defaultdict[bytes, list[bytes]] = defaultdict(list)
        self._primaries: dict[bytes, tuple[str, ...]] = {}
        self._writes: defaultdict[tuple[str, int], dict[str, ReplicaWrite]] = defaultdict(dict)
        """By who asks and the number: what each node was asked to store."""
        self._reads: dict[tuple[str, int, str], ReplicaRead] = {}
        self._checks: dict[tuple[str, int], ReapCheck] = {}
        self._forwards: dict[tuple[str, int], tuple[ClientRequest, float]] = {}
        self._tree_reads: dict[tuple[str, int, str], int] = {}
        self._differences: dict[tuple[str, int], tuple[tuple[bytes, bytes], ...]] = {}
        self._sent: dict[type, Callable[..., None]] = {
            ReplicaWrite: self._asks_to_write,
            ReplicaRead: self._asks_to_read,
            ReapCheck: self._asks_to_reap,
            Forward: self._forwarded,
            WriteAck: self._acknowledges,
            ReadSame: self._holds_the_same,
            ReadReply: self._answers_read,
            RangeDifference: self._answers_range,
            TreeHashes: self._answers_tree,
            ReapConfirm: self._confirms,
            ForwardReply: self._answers_forward,
        }

    def mints_by_place(self) -> dict[tuple[str, bytes], list[Mint]]:
        """All writes by bucket and key."""
        return {split(key)[1:]: mints for key, mints in self.mints.items()}

    # messages

    def sent(self, sender: str, to: str, message: PeerMessage) -> None:
        """A node sends a message."""
        if handle := self._sent.get(type(message)):
            handle(sender, to, message)

    def received(self, node: str, sender: str, messages: Iterable[PeerMessage]) -> None:
        """A frame is about to be handed to a node."""
        for message in messages:
            if type(message) is TreeRead:
                self._tree_reads[sender, message.request, node] = self.machines[node].engine.last_lsn

    def _asks_to_write(self, sender: str, to: str, message: ReplicaWrite) -> None:
        self._writes[sender, message.request][to] = message

    def _asks_to_read(self, sender: str, to: str, message: ReplicaRead) -> None:
        self._reads[sender, message.request, to] = message

    def _asks_to_reap(self, sender: str, _: str, message: ReapCheck) -> None:
        self._checks[sender, message.request] = message

    def _forwarded(self, sender: str, _: str, message: Forward) -> None:
        self._forwards.setdefault((sender, message.request), (message.call, self._scheduler.now))

    # nothing is shown that is not durable

    def _acknowledges(self, sender: str, to: str, message: WriteAck) -> None:
        for number in message.requests:
            if asked := self._writes.get((to, number), {}).get(sender):
                self._is_durable(sender, asked.key, asked.version, asked.hint_for, "acknowledges")

    def _holds_the_same(self, sender: str, to: str, message: ReadSame) -> None:
        asked = self._reads.get((to, message.request, sender))
        if asked and (version := self._versions.get(asked.digest)):
            self._is_durable(sender, asked.key, version, asked.hint_for, "says that it holds")

    def _answers_read(self, sender: str, to: str, message: ReadReply) -> None:
        asked = self._reads.get((to, message.request, sender))
        if asked and message.version:
            self._is_durable(sender, asked.key, message.version, asked.hint_for, "answers with")

    def _answers_range(self, sender: str, to: str, message: RangeDifference) -> None:
        self._differences[to, message.request] = message.versions
        for key, version in message.versions:
            self._is_durable(sender, key, version, "", "tells in an exchange of")

    def _answers_tree(self, sender: str, to: str, message: TreeHashes) -> None:
        self.counts["shown is durable"] += 1
        engine = self.machines[sender].engine
        if self._tree_reads.get((to, message.request, sender), 0) > engine.durable_lsn:
            raise Violation(f"{sender} tells {to} hashes of what is not on its disk")

    def _confirms(self, sender: str, to: str, message: ReapConfirm) -> None:
        asked = self._checks.get((to, message.request))
        if asked is None or asked.commit:
            return
        for position in message.positions:
            key, wanted = asked.candidates[position]
            if sender in self.primaries(key):
                self.counts["shown is durable"] += 1
                held = self.machines[sender].engine.durable(key)
                if held is not None and digest(held) != wanted:
                    raise Violation(
                        f"{sender} confirms a tombstone of {self._name(key)}, and has {_shown(held)}"
                    )

    def _is_durable(self, node: str, key: bytes, version: bytes, hint_for: str, how: str) -> None:
        self.counts["shown is durable"] += 1
        engine = self.machines[node].engine
        if not engine.waits_for_disk:
            return
        durable = engine.durable(hint_key(hint_for, key) if hint_for else key)
        if durable is not None and not self._dominates(key, durable, version):
            # a hint may have gone home while it was being synced
            if not hint_for or not any(self._has(each, key, version) for each in self.primaries(key)):
                raise Violation(
                    f"{node} {how} {_shown(version)} of {self._name(key)}"
                    f"{' for ' + hint_for if hint_for else ''}: on its disk is {_shown(durable)}"
                )
            return
        for sibling in _decoded(version).siblings:
            self._held[sibling.dot].add(node)

    def _has(self, node: str, key: bytes, version: bytes) -> bool:
        """Whether a version, or one that knows it, is on a node's disk, as far as that can be said."""
        if all(node in self._held[sibling.dot] for sibling in _decoded(version).siblings):
            return True
        if self.machines[node].coordinator is None:
            return False
        durable = self.machines[node].engine.durable(key)
        return durable is None or self._dominates(key, durable, version)

    # what clients are told is on as many disks as they are told

    def _answers_forward(self, sender: str, to: str, message: ForwardReply) -> None:
        if forwarded := self._forwards.get((to, message.request)):
            self.replied(sender, *forwarded, message.reply)

    def replied(self, node: str, call: ClientRequest, since: float, reply: Reply) -> None:
        """A client, or the node that has forwarded its request, is answered; asked `since` then."""
        bucket = self._state.bucket(call.bucket)
        sloppy = (call.quorum or bucket.quorum) is QuorumMode.SLOPPY
        key = data_key(token(call.bucket, call.key), call.bucket, call.key)
        if isinstance(reply, Found) and isinstance(call, Get):
            for sibling in reply.siblings:
                self.counts["read is on R disks"] += 1
                minted = [mint for mint in self.mints[key] if mint.value == sibling.value]
                self._on_disks(node, key, minted, call.r or bucket.r, sloppy, "is read")
        elif isinstance(reply, Stored) and not isinstance(call, Get):
            value = None if isinstance(call, Delete) else call.value
            minted = [mint for mint in self.mints[key] if mint.value == value and mint.at >= since]
            if minted or value is not None:  # a delete of nothing writes nothing
                self.counts["acknowledged is on W disks"] += 1
                self._on_disks(node, key, minted, call.w or bucket.w, sloppy, "is acknowledged")

    def _on_disks(
        self, node: str, key: bytes, minted: Sequence[Mint], needed: int, sloppy: bool, how: str
    ) -> None:
        having: set[str] = set()
        for mint in minted:
            having = self._disks_with(key, mint.dot, sloppy, needed)
            if len(having) >= needed:
                return
        what = minted[-1].dot if minted else "a write that no disk has seen"
        raise Violation(
            f"{what} of {self._name(key)} {how} by {node} as on {needed} disks, "
            f"and is on those of {sorted(having) or 'nobody'}"
        )

    def _disks_with(self, key: bytes, dot: Dot, sloppy: bool, needed: int) -> set[str]:
        """Nodes that durably have a write: of its primaries, where sloppy also in hints."""
        primaries = self.primaries(key)
        having = {node for node in self._held[dot] if sloppy or node in primaries}
        if len(having) < needed:
            for node in self.machines if sloppy else primaries:
                if node not in having and self._looked_up(node, key, dot):
                    having.add(node)
                    self._held[dot].add(node)
        return having

    def _looked_up(self, node: str, key: bytes, dot: Dot) -> bool:
        """Whether the disk of a node has a write, or what knows it: a primary as data, others in a hint."""
        if self.machines[node].coordinator is None:
            return False
        engine, primaries = self.machines[node].engine, self.primaries(key)
        places = [key] if node in primaries else [hint_key(target, key) for target in primaries]
        return any((kept := engine.durable(p)) and covers(_decoded(kept).context, dot) for p in places)

    # what is written

    def written(self, node: str, key: bytes, old: bytes | None, new: bytes) -> None:
        """See Watcher."""
        try:
            if key[:1] == DATA_KEYSPACE:
                if new:
                    self._data_written(node, key, key, old, new)
                elif old:
                    self._data_deleted(node, key, old)
            elif key[:1] == HINT_KEYSPACE:
                target, about = split_hint_key(key)
                if new:
                    self._data_written(node, key, about, old, new)
                elif old:
                    self._hint_deleted(node, target, about, old)
        except (Corruption, InvalidRequest):
            return  # rubbish, which tests put there: whether nodes bear it is for them to say

    def _data_written(self, node: str, place: bytes, key: bytes, old: bytes | None, new: bytes) -> None:
        """As data, or as a hint about `key`."""
        split(key)
        self._versions[digest(new)] = new
        for sibling in _decoded(new).siblings:
            meaning = self._meanings.get(sibling.dot)
            if meaning is None:
                self._minted(key, sibling)
            elif meaning != (key, sibling):
                self.counts["dots name one write"] += 1
                raise Violation(
                    f"{sibling.dot} names two writes: {meaning} and, written by {node}, {(key, sibling)}"
                )
        if old:
            self.counts["versions only grow"] += 1
            if not self._dominates(key, new, old):
                kind = "a hint about " if place != key else ""
                raise Violation(
                    f"{node} forgets: {kind}{self._name(key)} was {_shown(old)}, and is {_shown(new)}"
                )
        for tombstone in self._reaped.get(key, ()):
            self.counts["reaped stays away"] += 1
            if back := self._lost_to(key, tombstone, new):
                raise Violation(f"{back[0].dot} of {self._name(key)} is back at {node}: it was reaped")

    def _minted(self, key: bytes, sibling: Sibling) -> None:
        self._meanings[sibling.dot] = key, sibling
        self.counts["dots name one write"] += 1
        if self.values_name_writes and sibling.value is not None:
            self.counts["a write has one dot"] += 1
            for mint in self.mints[key]:
                if mint.value == sibling.value:
                    raise Violation(
                        f"{sibling.value[:40]!r} of {self._name(key)} was written twice: as {mint.dot} and "
                        f"as {sibling.dot}"
                    )
        self.mints[key].append(Mint(sibling.dot, sibling.value, sibling.time, self._scheduler.now))

    # what is deleted

    def _hint_deleted(self, node: str, target: str, key: bytes, version: bytes) -> None:
        """The target has it; or, of one that is too old, some primary, who repairs the target."""
        self.counts["deleted hints are home"] += 1
        primaries = self.primaries(key)
        newest = max(wall_time(sibling.time) for sibling in _decoded(version).siblings)
        expired = self.machines[node].wall - newest > self._hint_age_ms
        if all(self._has(home, key, version) for home in ({target} if target in primaries else primaries)):
            return
        if expired and any(self._has(heir, key, version) for heir in primaries):
            return
        if expired and node in primaries:  # in the same log, before this
            mine = self.machines[node].engine.get(key) or b""
            if self._dominates(key, mine, version):
                return
        raise Violation(
            f"{node} deletes its hint for {target} about {self._name(key)}: {_shown(version)} is not there"
        )

    def _data_deleted(self, node: str, key: bytes, tombstone: bytes) -> None:
        """Nobody can see it, and nothing is under way that may bring back what it covers."""
        self.counts["reaped is nowhere under way"] += 1
        if _decoded(tombstone).visible(self.machines[node].wall):
            raise Violation(f"{node} reaps {_shown(tombstone)} of {self._name(key)}, which can be seen")
        for name, machine in self.machines.items():
            if machine.coordinator is None:
                continue
            for how, version in self._under_way(name, machine, machine.coordinator, key):
                if version and (older := self._lost_to(key, tombstone, version)):
                    raise Violation(
                        f"{node} reaps {self._name(key)} while {older[0].dot}, which is older, is in {how} "
                        f"of {name}"
                    )
        self._reaped[key].append(tombstone)

    def _under_way(
        self, name: str, machine: Machine, core: Coordinator, key: bytes
    ) -> Iterable[tuple[str, bytes]]:
        """What the replica, hints, operations and exchanges of a node may yet bring to somebody."""
        if name in self.primaries(key):
            yield "the replica", machine.engine.durable(key) or b""
        for target in core.hints.targets:
            yield "a hint", machine.engine.get(hint_key(target, key)) or b""
        for operation in core.operations.all():
            for write in self._writes.get((name, operation.number), {}).values():
                if write.key == key:
                    yield "an operation", write.version
            if isinstance(operation, ReadOperation) and operation.touches() == key:
                for version in (operation.local, *operation.answers.values()):
                    yield "a read", version
            for told, version in self._differences.get((name, operation.number), ()):
                if told == key:
                    yield "an exchange", version

    def lifting(self, node: str, engine: WatchedEngine, fence: Fence) -> None:
        """See Watcher."""
        self.counts["fences are lifted when refetched is durable"] += 1
        if keys := engine.restored_in_memory(fence):
            raise Violation(f"{node} lifts a fence, and {len(keys)} keys behind it are not on its disk")

    # counts

    def turned(self, node: str) -> None:
        """A node has done what an input wanted."""
        machine = self.machines[node]
        if (core := machine.coordinator) is None:
            return
        self.counts["counts are not negative"] += 1
        counted = [core.admission.unanswered, core.admission.bytes]
        if not core.hints.empty:
            counted += [min(each.count, each.bytes) for each in core.hints.all_pending(machine.wall)]
        if min(counted) < 0:
            raise Violation(f"a count of {node} is negative: requests, bytes, hints are {counted}")

    def busy(self) -> list[str]:
        """What is not zero as it must be when nothing is under way; hosts that are up."""
        found: list[str] = []
        for name, machine in self.machines.items():
            if (core := machine.coordinator) is None:
                continue
            self.counts["counts are zero when calm"] += 1
            counted = {
                "requests": core.admission.unanswered,
                "bytes": core.admission.bytes,
                "clients": machine.unanswered,
                "hints": sum(each.count for each in core.hints.all_pending(machine.wall)),
                "hints on the disk": sum(1 for _, kept in machine.engine.scan_around(*_HINTS) if kept),
            }
            found += [f"{name}: {count} {what}" for what, count in counted.items() if count]
        return found

    # versions

    def primaries(self, key: bytes) -> tuple[str, ...]:
        """The nodes that should hold an internal key."""
        found = self._primaries.get(key)
        if found is None:
            key_token, bucket, _ = split(key)
            ring = self._state.ring
            partition = partition_of(key_token, ring.partitions)
            found = self._primaries[key] = preference_list(ring, partition, self._state.bucket(bucket).n)
        return found

    def _lww(self, key: bytes) -> bool:
        return self._state.bucket(split(key)[1]).conflict is Conflict.LWW

    def _dominates(self, key: bytes, known: bytes, version: bytes) -> bool:
        """Whether `known` has all that `version` has, or what replaced it."""
        return known == version or (bool(known) and _combined(self._lww(key), known, version) == known)

    def _lost_to(self, key: bytes, tombstone: bytes, version: bytes) -> list[Sibling]:
        """The values of a version that the tombstone covers, and that would be back without it."""
        left = {s.dot for s in _decoded(_combined(self._lww(key), tombstone, version)).siblings}
        seen = _decoded(tombstone).context  # in an lww bucket what it has not seen may be a later write
        return [
            s
            for s in _decoded(version).siblings
            if s.value is not None and s.dot not in left and covers(seen, s.dot)
        ]

    def _name(self, key: bytes) -> str:
        _, bucket, name = split(key)
        return f"{bucket}/{name!r} at {self._scheduler.now:.3f}"


@lru_cache(4096)
def _decoded(encoded: bytes) -> Version:
    return decode_version(encoded)


@lru_cache(4096)
def _combined(lww: bool, a: bytes, b: bytes) -> bytes:
    return encode_version((reconcile_lww if lww else reconcile)(_decoded(a), _decoded(b)))


def _shown(encoded: bytes) -> str:
    if not encoded:
        return "nothing"
    siblings = _decoded(encoded).siblings
    return " and ".join(
        f"{s.dot.actor}#{s.dot.counter} ({(s.value or b'a tombstone')[:20]!r})" for s in siblings
    )
