"""Anti-entropy: finds and repairs what replicas differ in, without anyone asking (Dynamo section 4.7).

This node compares its trees with those of one peer at a time (`exchange`). Who stands first in a
partition's replica list repairs; the other only notes when they are equal. Whatever goes wrong ends the
exchange: the next one starts from what is there then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from kvstore.config import MIB, AntiEntropySettings
from kvstore.errors import KVError, Overloaded, VersionTooLarge
from kvstore.lsm import Engine
from kvstore.protocol.messages import (
    AntiEntropyMessage,
    RangeDifference,
    RangeItems,
    RepairWanted,
    ReplicaWrite,
    TreeHashes,
    TreeNode,
    TreeRead,
)
from kvstore.quorum.background.exchange import (
    Exchange,
    Flow,
    Lost,
    Pause,
    Push,
    Step,
    can_be_sent,
    difference,
)
from kvstore.quorum.background.merkle import ROOT, Trees
from kvstore.quorum.background.quarantine import Quarantine
from kvstore.quorum.operation import Errand
from kvstore.ring import partition_of, preference_list, split_data_key

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator

_FOR_EVER = float("inf")
_PUSH_BYTES = MIB


@dataclass(frozen=True, slots=True)
class AntiEntropyStatus:
    """How many (partition, n) this node shares with a peer, how many of these pairs were never proven equal.

    `oldest` is the age in seconds of the oldest proof (0 without any). `wanted`: of a repair that an operator
    has asked for, how many pairs are not proven since. `waiting_for` are the peers of these.
    """

    pairs: int
    unproven: int
    oldest: float
    wanted: int
    waiting_for: tuple[str, ...]


class AntiEntropy:
    """One node's part in it: its own exchanges, one at a time, and answers to those of others."""

    def __init__(
        self,
        core: Coordinator,
        engine: Engine,
        alive: Callable[[str], bool],
        settings: AntiEntropySettings,
    ) -> None:
        self._core = core
        self.quarantine = Quarantine(core, engine, alive, settings.settle, self._build_soon)
        """What is damaged here is refetched in rounds like those of an exchange, and before them."""
        self._refetching = False
        self._trees: Trees = core.replica.trees
        self._scan = engine.scan
        self._alive = alive
        self._settings = settings
        self._roots = self._shared()
        self._next = dict.fromkeys(self._roots, 0.0 if settings.interval < _FOR_EVER else _FOR_EVER)
        self._proven: dict[tuple[str, TreeNode], float] = {}
        self._marked: set[tuple[str, TreeNode]] = set()
        self._told: dict[tuple[str, int, int], float] = {}
        """When a primary was told of a dropped hint: target, partition and n."""
        self._wanted_since = -_FOR_EVER
        self._flow: Flow[None] | None = None
        self._peer = ""
        self._asked_at = 0.0
        self._answer: object = None
        self._error: Exception | None = None
        self._pushing: list[bytes] = []
        self._under_way: set[int] = set()
        self._found_work = False
        self._exchanging = -1
        self._wake_at = _FOR_EVER
        self._build_at = 0.0
        self._rebuild_at = _FOR_EVER
        core.replica.on_distrust = self._rebuild_missing
        self._served: dict[int, tuple[str, float]] = {}

    def _shared(self) -> dict[str, list[TreeNode]]:
        """By peer the roots of the trees that both should have."""
        shared: dict[str, list[TreeNode]] = {}
        ring, name = self._core.state.ring, self._core.name
        for partition in range(ring.partitions):
            for n in self._trees.ns:
                primaries = preference_list(ring, partition, n)
                for peer in primaries:
                    if name in primaries and peer != name:
                        shared.setdefault(peer, []).append(TreeNode(partition, n, ROOT))
        return dict(sorted(shared.items()))

    # what others want to know

    def status(self) -> AntiEntropyStatus:
        """How far the replicas are known to be equal."""
        now = self._core.now
        pairs = [(peer, root) for peer, roots in self._roots.items() for root in roots]
        times = [self._proven[pair] for pair in pairs if pair in self._proven]
        waiting = [peer for peer, _ in self._unproven()]
        return AntiEntropyStatus(
            len(pairs),
            len(pairs) - len(times),
            now - min(times, default=now),
            len(waiting),
            tuple(sorted(set(waiting))),
        )

    def _unproven(self) -> list[tuple[str, TreeNode]]:
        """Pairs that were not proven since an operator has asked; none if nobody has."""
        return [
            (peer, root)
            for peer, roots in self._roots.items()
            for root in roots
            if self._proven.get((peer, root), -_FOR_EVER) < self._wanted_since
        ]

    def exchanging(self, partition: int) -> bool:
        """Whether versions of a partition may be on their way here for an exchange of this node."""
        return partition == self._exchanging

    def repair_now(self) -> None:
        """Compare everything with everyone, without pauses."""
        self._wanted_since = self._core.now
        self._next = dict.fromkeys(self._roots, 0.0)
        if self._flow is None and not self._trees.building:
            self._wake_at = self._core.now

    def hint_dropped(self, peer: str, key: bytes) -> None:
        """A hint about `key` for `peer` was dropped: their partition is next, here or at a primary."""
        core = self._core
        primaries = core.primaries(key)
        key_token, bucket, _ = split_data_key(key)
        partition = partition_of(key_token, self._trees.partitions)
        n = core.state.bucket(bucket).n
        if core.name in primaries:
            self.mark(peer, partition, n)
            return
        others = [node for node in primaries if node != peer and self._alive(node)]
        told_at = self._told.get((peer, partition, n), -_FOR_EVER)
        if others and told_at + self._settings.settle <= core.now:
            self._told[peer, partition, n] = core.now
            core.transport.send(others[0], RepairWanted(core.state.epoch, partition, n, peer))

    def mark(self, peer: str, partition: int, n: int) -> None:
        """Compare a partition with `peer` next, and repair it whoever of the two stands first."""
        root = TreeNode(partition, n, ROOT)
        if (peer, root) in self._marked or root not in self._roots.get(peer, ()):
            return
        self._marked.add((peer, root))
        soon = self._core.now + self._settings.settle
        self._next[peer] = min(self._next[peer], soon)
        if self._flow is None and not self._trees.building:
            self._wake_at = min(self._wake_at, soon)

    # time

    def next_deadline(self) -> float:
        """When `on_timer` next has work, in monotonic seconds."""
        return min(self._wake_at, self._build_at, self.quarantine.next_deadline())

    def on_damage(self) -> None:
        """The engine has quarantined something: refetching it comes before all else."""
        self.quarantine.notice()
        if self._flow is None:
            self._wake_at = self._core.now

    def _build_soon(self) -> None:
        self._build_at = self._core.now

    def _rebuild_missing(self, error: Exception) -> None:
        """Some trees could not follow a write: they say nothing until they are built anew."""
        self._trees.build_missing()
        self._build_soon()
        self._core.guard.report(error)

    def on_timer(self, now: float) -> None:
        """Take a slice of the scan into the trees; take the exchange a step further, or begin the next."""
        if now >= self._build_at:
            self._build(now)
        self.quarantine.on_timer(now)
        if now >= self._wake_at:
            if self._flow is None:
                self._begin(now)
            else:
                self._go_on()

    def _build(self, now: float) -> None:
        if now >= self._rebuild_at:
            self._trees.rebuild()
            self._rebuild_at = _FOR_EVER
        self._trees.build(self._scan, self._settings.slice)
        if self._trees.building:
            self._build_at = now + self._pause()
            return
        self._build_at = self._rebuild_at = now + self._settings.rebuild
        if self._flow is None:
            self._wake_at = now

    def _pause(self) -> float:
        """Between two steps."""
        if self._wanted_since + self._settings.interval > self._core.now:
            return 0.0
        return min(self._settings.pause * (1 + self._core.load), self._settings.longest_pause)

    # the exchange of this node

    def _begin(self, now: float) -> None:
        self._answer = self._error = None
        self._found_work = False
        if peer := self.quarantine.next_peer(now):
            self._refetching = True
            self._peer, self._flow = peer, self.quarantine.round(peer)
            self._go_on()
            return
        self._refetching = False
        due = [peer for peer, when in self._next.items() if when <= now and self._alive(peer)]
        if not due:
            self._sleep(now)
            return
        marked = {peer for peer, _ in self._marked}
        self._peer = min(due, key=lambda peer: (peer not in marked, self._next[peer]))
        self._flow = self._round(self._peer)
        self._go_on()

    def _sleep(self, now: float) -> None:
        """Until the next peer is due; the dead are looked at again after a while."""
        times = [max(when, now + self._settings.settle) for when in self._next.values()]
        if self.quarantine.waiting_for:
            times.append(now + self._settings.settle)
        self._wake_at = min(times, default=_FOR_EVER)

    def _round(self, peer: str) -> Flow[None]:
        core = self._core
        exchange = Exchange(
            core.state.epoch, self._trees, self._scan, self._store, partial(self._equal, peer)
        )
        roots = self._roots[peer]
        differing = yield from exchange.compare(roots, self._settings.settle)
        mine = [root for root in differing if self._repairs(root, peer) or (peer, root) in self._marked]
        self._found_work = bool(mine)
        while mine:
            # looked at each time: it may have been marked meanwhile
            root = min(mine, key=lambda root: (peer, root) not in self._marked)
            mine.remove(root)
            yield from exchange.repair(root)

    def _repairs(self, root: TreeNode, peer: str) -> bool:
        primaries = preference_list(self._core.state.ring, root.partition, root.n)
        return primaries.index(self._core.name) < primaries.index(peer)

    def _equal(self, peer: str, root: TreeNode) -> None:
        self._proven[peer, root] = self._asked_at
        self._marked.discard((peer, root))

    def _store(self, key: bytes, version: bytes) -> bytes:
        core = self._core
        before = core.replica.read(key)
        try:
            lsn = core.store(key, version, "")
        except VersionTooLarge:  # whoever reads the key has to resolve it; the others go on
            return before
        core.durability.soon(lsn)
        after = core.replica.read(key)
        if after != before:
            core.counters.repairs += 1
        return after

    def _go_on(self) -> None:
        """Give the flow what it waited for; do what it wants next."""
        assert self._flow is not None
        answer, self._answer = self._answer, None
        error, self._error = self._error, None
        self._wake_at = _FOR_EVER
        try:
            step = self._flow.throw(error) if error else self._flow.send(answer)
        except (StopIteration, Lost, KVError):
            self._end()
        else:
            self._carry_out(step)

    def _end(self) -> None:
        now = self._core.now
        self._flow = None
        self._exchanging = -1
        if self._refetching:
            self.quarantine.tried(self._peer, now)
        else:
            waiting = (*self._unproven(), *self._marked)
            soon = self._found_work or any(peer == self._peer for peer, _ in waiting)
            self._next[self._peer] = now + (self._settings.settle if soon else self._settings.interval)
        self._wake_at = now + self._pause()

    def _carry_out(self, step: Step) -> None:
        match step:
            case Pause(seconds):
                self._wake_at = self._core.now + seconds
            case Push(keys):
                self._pushing = list(reversed(keys))
                self._push_page()
            case _:
                self._asked_at = self._core.now
                self._exchanging = step.partition if isinstance(step, RangeItems) else -1
                AskOperation(self, self._core, self._peer, step, self._settings.timeout)

    def on_answer(self, answer: object) -> None:
        """What the exchange waited for is here; it goes on after a pause."""
        self._answer = answer
        self._wake_at = self._core.now + self._pause()

    def on_failed(self, error: Exception) -> None:
        """The peer did not do what was asked."""
        self._error = error
        self._wake_at = self._core.now + self._pause()

    def _push_page(self) -> None:
        size = 0
        while self._pushing and size < _PUSH_BYTES:
            key = self._pushing.pop()
            try:
                version = self._core.replica.read(key)
            except KVError as error:
                self._give_up(error)
                return
            if version and not can_be_sent(version):
                self._core.counters.unreadable += 1
            elif version:
                push = PushOperation(self, self._core, self._peer, key, version, self._settings.timeout)
                self._under_way.add(push.number)
                self.count(len(key) + len(version))
                size += len(version)
        if not self._under_way:
            self.on_answer(None)

    def on_pushed(self, number: int, taken: bool = True) -> None:
        """The peer has one version durably, or (not `taken`) never will."""
        if number in self._under_way:
            self._core.counters.repairs += taken
            self._under_way.remove(number)
            if not self._under_way:
                self._push_page()

    def on_push_failed(self, number: int) -> None:
        """The peer may not have one version."""
        if number in self._under_way:
            self._give_up(Lost())

    def _give_up(self, error: Exception) -> None:
        self._under_way.clear()
        self._pushing.clear()
        self.on_failed(error)

    # answers to others

    def on_tree_read(self, sender: str, message: TreeRead) -> None:
        """Tell the hashes that another node asks for."""
        hashes = tuple([self._trees.node(node) for node in message.nodes])
        self._reply(sender, TreeHashes(message.request, hashes))

    def on_range_items(self, sender: str, message: RangeItems) -> None:
        """Tell how this node's replica differs; of each partition to one node at a time.

        Two peers that bring the same versions at once would move them twice.
        """
        now = self._core.now
        peer, until = self._served.get(message.partition, (sender, 0.0))
        if peer != sender and now < until:
            raise Overloaded(until - now, f"partition {message.partition} is being repaired by {peer}")
        self._served[message.partition] = sender, now + self._settings.settle
        self._reply(sender, difference(self._trees, self._scan, message, self._settings.answer_bytes))

    def _reply(self, to: str, answer: TreeHashes | RangeDifference) -> None:
        """Only what is durable is shown: it could be lost, and with it what the asker has been told of it."""
        self.count(content_bytes(answer))
        durability = self._core.durability
        durability.after(durability.last, partial(self._core.transport.send, to, answer))

    def count(self, size: int) -> None:
        """So many bytes are sent for anti-entropy."""
        self._core.counters.repair_bytes += size


class AskOperation(Errand):
    """One question of an exchange."""

    __slots__ = ("_owner", "message")

    def __init__(
        self, owner: AntiEntropy, core: Coordinator, peer: str, message: TreeRead | RangeItems, timeout: float
    ) -> None:
        super().__init__(core, peer, timeout)
        self._owner = owner
        self.message = message
        owner.count(content_bytes(message))
        core.transport.send(peer, msgspec.structs.replace(message, request=self.number))

    def on_answer(self, node: str, answer: TreeHashes | RangeDifference) -> None:
        """The peer's answer."""
        if node == self.node:
            self.finish()
            self._owner.on_answer(answer)

    def on_refusal(self, node: str, error: KVError) -> None:
        """The peer will not answer now."""
        if node == self.node:
            self.finish()
            self._owner.on_failed(error)

    def on_lost(self) -> None:
        """See Errand."""
        self._owner.on_failed(Lost())


class PushOperation(Errand):
    """One version on its way to a peer that lacks it."""

    __slots__ = ("_owner", "key")

    def __init__(
        self, owner: AntiEntropy, core: Coordinator, peer: str, key: bytes, version: bytes, timeout: float
    ) -> None:
        super().__init__(core, peer, timeout)
        self._owner = owner
        self.key = key
        core.transport.send(peer, ReplicaWrite(self.number, core.state.epoch, key, version, replay=True))

    def touches(self) -> bytes:
        """See Operation."""
        return self.key

    def on_write_ack(self, node: str) -> None:
        """The peer has it durably."""
        if node == self.node:
            self.finish()
            self._owner.on_pushed(self.number)

    def on_refusal(self, node: str, error: KVError) -> None:
        """The peer cannot take this version; it may take the others."""
        if node == self.node and isinstance(error, VersionTooLarge):
            self.finish()
            self._owner.on_pushed(self.number, taken=False)
        else:
            super().on_refusal(node, error)

    def on_lost(self) -> None:
        """See Errand."""
        self._owner.on_push_failed(self.number)


def content_bytes(message: AntiEntropyMessage) -> int:
    """The bytes of an exchange's message that are no envelope."""
    match message:
        case TreeRead(_, _, nodes):
            return 4 * len(nodes)
        case TreeHashes(_, hashes):
            return 10 * len(hashes)
        case RangeItems():
            return len(message.leaves) + len(message.items) + len(message.after) + len(message.until)
        case RangeDifference(_, versions, wanted):
            return 2 * len(wanted) + sum(len(key) + len(version) for key, version in versions)
