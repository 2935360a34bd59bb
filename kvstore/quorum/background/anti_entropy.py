"""Anti-entropy: finds and repairs what replicas differ in, without anyone asking (Dynamo section 4.7).

This node compares its trees with those of one peer at a time (`exchange`). Who stands first in a partition's
replica list repairs; the other only notes when they are equal. Whatever goes wrong ends the exchange: the
next one starts from what is there then. What is damaged here is refetched in rounds like those of an
exchange, and before them (`quarantine`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvstore.config import AntiEntropySettings
from kvstore.errors import KVError, VersionTooLarge
from kvstore.lsm.reading import Scan
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import RangeItems, RepairWanted, TreeNode
from kvstore.quorum.background.conversation import Conversation
from kvstore.quorum.background.exchange import Exchange
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.merkle_tree import ROOT
from kvstore.quorum.background.pacing import Pacing
from kvstore.quorum.background.proofs import Proofs
from kvstore.quorum.background.quarantine import Quarantine
from kvstore.quorum.counters.repair import RepairCounters
from kvstore.quorum.deadlines import NEVER
from kvstore.quorum.flow import Flow, Flows, Idle, Lost, Pause, Question
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.ownership import Ownership
from kvstore.ring import Step, coming_replicas, replicas, split_data_key
from kvstore.versions import EncodedVersion, InternalKey

_NONE = -1


class AntiEntropy:
    """One node's own exchanges, one at a time."""

    def __init__(
        self,
        flows: Flows,
        local: LocalCopy,
        trees: Trees,
        scan: Scan,
        proofs: Proofs,
        quarantine: Quarantine,
        ownership: Ownership,
        alive: Callable[[str], bool],
        sync_soon: Callable[[int], None],
        pacing: Pacing,
        counters: RepairCounters,
        settings: AntiEntropySettings,
    ) -> None:
        self._send = flows.rpc.send
        self._local = local
        self._trees = trees
        self._scan = scan
        self._proofs = proofs
        self._quarantine = quarantine
        self._ownership = ownership
        self._alive = alive
        self._sync_soon = sync_soon
        self._pacing = pacing
        self._counters = counters
        self._settings = settings
        self._told: dict[tuple[str, TreeNode], float] = {}
        """When a primary was told of a dropped hint: by target and tree."""
        self._exchanging = _NONE
        self._found_work = False
        self._flow = flows.lasting(self._rounds)

    # what others want

    def exchanging(self, partition: int) -> bool:
        """Whether versions of a partition may be on their way here for an exchange of this node."""
        return partition == self._exchanging

    def repair_now(self, now: Instant) -> None:
        """Compare everything with everyone, without pauses."""
        self._proofs.want_all(now)
        self._pacing.hurry(now)
        self.hurry(now.mono)

    def hurry(self, when: float) -> None:
        """Look at `when` what there is to do; not before all trees are known."""
        if not self._trees.building:
            self._flow.hurry(when)

    def built(self, now: Instant) -> None:
        """All trees are known."""
        self._flow.hurry(now.mono)

    def on_damage(self, now: Instant) -> None:
        """The engine has quarantined something: refetching it comes before all else."""
        self._quarantine.notice(now)
        self._flow.hurry(now.mono)

    def on_state(self, now: Instant) -> None:
        """The cluster state has changed: compare with whoever is a peer now."""
        self._proofs.on_state()
        self._quarantine.on_state(now)
        self.hurry(now.mono)

    def hint_dropped(self, peer: str, key: InternalKey, now: Instant) -> None:
        """A hint about `key` for `peer` was dropped: their partition is next, here or at a primary."""
        ownership = self._ownership
        _, bucket, _ = split_data_key(key)
        root = TreeNode(ownership.partition(key), ownership.state.bucket(bucket).n, ROOT)
        primaries = ownership.primaries(key)
        if ownership.name in primaries:
            self.mark(peer, root, now)
            return
        others = [node for node in primaries if node != peer and self._alive(node)]
        told_at = self._told.get((peer, root), -NEVER)
        if others and told_at + self._settings.settle <= now.mono:
            self._told[peer, root] = now.mono
            epoch = ownership.state.epoch
            self._send(others[0], RepairWanted(epoch, root.partition, root.n, peer))

    def on_repair_wanted(self, sender: str, message: RepairWanted, now: Instant) -> None:
        """Another node has dropped a hint."""
        if self._ownership.state.is_current_for_all(message.partition, message.epoch):
            self.mark(message.node, TreeNode(message.partition, message.n, ROOT), now)

    def mark(self, peer: str, root: TreeNode, now: Instant) -> None:
        """Compare a partition with `peer` next, and repair it whoever of the two stands first."""
        soon = now.mono + self._settings.settle
        if self._proofs.mark(peer, root, soon):
            self.hurry(soon)

    # the rounds of this node

    def start(self, now: Instant) -> None:
        """Wait for the trees."""
        self._flow.start(now)

    def _rounds(self, now: Instant) -> Flow[None]:
        if self._trees.building:
            now, _ = yield Idle(NEVER)
        while True:
            if peer := self._quarantine.next_peer(now):
                yield from self._unless_lost(self._quarantine.round(peer, self._conversation(peer), now))
                now, _ = yield Pause(self._pacing.pause(now))
                self._quarantine.tried(peer, now)
            elif peer := self._proofs.next_peer(now):
                self._found_work = False
                yield from self._unless_lost(self._compare(peer, now))
                now, _ = yield Pause(self._pacing.pause(now))
                self._proofs.compared(peer, self._found_work, now)
            else:
                now, _ = yield Idle(self._until_next(now))

    def _unless_lost(self, round_: Flow[None]) -> Flow[None]:
        """Whatever goes wrong ends a round: the next one starts from what is there then."""
        try:
            yield from round_
        except (Lost, KVError):
            pass
        finally:
            self._exchanging = _NONE

    def _until_next(self, now: Instant) -> float:
        seconds = self._proofs.next_round(now)
        return min(seconds, self._settings.settle) if self._quarantine.waiting_for else seconds

    def _compare(self, peer: str, now: Instant) -> Flow[None]:
        conversation = self._conversation(peer)
        equal = partial(self._proofs.proven, peer, conversation.epoch)
        exchange = Exchange(conversation, self._trees, self._scan, self._store, equal)
        roots = self._proofs.roots[peer]
        now, differing = yield from exchange.compare(roots, self._settings.settle, now)
        mine = [r for r in differing if self._repairs(r, peer) or self._proofs.is_marked(peer, r)]
        self._found_work = bool(mine)
        while mine:
            # looked at each time: it may have been marked meanwhile
            root = min(mine, key=lambda root: not self._proofs.is_marked(peer, root))
            mine.remove(root)
            now = yield from exchange.repair(root, now)

    def _conversation(self, peer: str) -> Conversation:
        return Conversation(
            peer,
            self._ownership.state.epoch,
            self._local.replica.read,
            self._asking,
            self._pacing.pause,
            self._counters,
            self._settings,
        )

    def _asking(self, question: Question) -> None:
        self._exchanging = question.partition if isinstance(question, RangeItems) else _NONE

    def _repairs(self, root: TreeNode, peer: str) -> bool:
        move = self._ownership.state.move(root.partition)
        if move is not None and move.step is Step.WRITE_BOTH_READ_OLD:
            coming = coming_replicas(move, root.n)
            if peer in coming or self._ownership.name in coming:
                return False  # it fetches what it lacks (kvstore.quorum.background.transfers)
        primaries = replicas(self._ownership.state, root.partition, root.n)
        if peer not in primaries or self._ownership.name not in primaries:
            return False  # it has moved away meanwhile
        return primaries.index(self._ownership.name) < primaries.index(peer)

    def _store(self, key: InternalKey, version: EncodedVersion) -> EncodedVersion:
        replica = self._local.replica
        before = replica.read(key)
        try:
            lsn = self._local.store(key, version)
        except VersionTooLarge:  # whoever reads the key has to resolve it; the others go on
            return before
        self._sync_soon(lsn)
        after = replica.read(key)
        if after != before:
            self._counters.repairs += 1
        return after
