"""Transfers: a node that is to hold a partition is filled with it, and proves that it holds all there is.

A replica that is coming to a partition, and one that was emptied, is named so by the cluster state. It gets
the writes of the present step; what was written before, it fetches here, in order of the tokens, from one old
replica, and reconciles it into what it has. Then it compares its Merkle trees with those of a read quorum of
the old replicas.

*Proven* it is when it holds, durably, all that each of these held at some moment since it had taken up the
step. A replica answers a question of the step's epoch only then, and takes no write of an earlier one from
there on: so whatever was acknowledged by the step before is among what was compared. That does not wear off:
what is durable here stays, whatever is written elsewhere, and a restart takes nothing of it away. A disk that
is lost does, as it does from any replica: then the node knows at its start that it has no data, counts for
nothing, and is filled again in a step of a later epoch, by which this proof says nothing. So a proof is told
with its epoch, and is not kept on the disk; after a restart the node compares again, which is cheap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import TypeAlias

from kvstore.config import AntiEntropySettings
from kvstore.errors import KVError, Overloaded, StorageFull, VersionTooLarge
from kvstore.protocol.instant import Instant
from kvstore.protocol.move import Move, Step
from kvstore.protocol.peer import KeyVersion, TreeNode
from kvstore.quorum.background.conversation import Conversation
from kvstore.quorum.background.cursors import Cursor, Cursors
from kvstore.quorum.background.exchange import ALL_LEAVES, Comparison
from kvstore.quorum.background.merkle_tree import ROOT
from kvstore.quorum.background.pacing import Pacing
from kvstore.quorum.counters import Counters
from kvstore.quorum.flow import Flow, Flows, Idle, Lost, Pause, Sync
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.replica import Changes
from kvstore.quorum.transfer_status import TransferStatus
from kvstore.ring import ClusterState, coming_replicas, old_replicas, partition_bounds, read_quorum
from kvstore.versions import EncodedVersion, InternalKey

Equal: TypeAlias = Callable[[TreeNode, Instant], None]

_AT_A_TIME = 4
"""Partitions that are filled at the same time."""
_CURSOR_BYTES = 4 * 1024 * 1024
"""After so much of a partition it is put down how far it is."""
_TRIES = 8
"""Comparisons with one old replica in a row, before others are looked after."""
_ALL = 2**32 - 1
"""More replicas than a key can have: the `n` of the cursor of a partition that was fetched to its end."""


@dataclass(slots=True, eq=False)
class _Coming:
    """A partition that this node is filled with, in one step of its move."""

    partition: int
    move: Move
    cursor: Cursor
    busy: bool = False
    retry_at: float = 0.0
    proven: bool = False
    failed: set[str] = field(default_factory=set)
    """Sources that did not deliver."""
    contained: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By n the old replicas of which this node holds all that they held in this step."""


class Transfers:
    """Of one node, to it. `comparison` makes one with a peer; `told` hears when a partition is proven."""

    def __init__(
        self,
        flows: Flows,
        local: LocalCopy,
        comparison: Callable[[Conversation, Equal], Comparison],
        cursors: Cursors,
        state: ClusterState,
        alive: Callable[[str], bool],
        pacing: Pacing,
        counters: Counters,
        settings: AntiEntropySettings,
    ) -> None:
        self._durability = flows.durability
        self._local = local
        self._name = flows.name
        self._compared = comparison
        self._cursors = cursors
        self._state = state
        self._alive = alive
        self._pacing = pacing
        self._counters = counters
        self._settings = settings
        self._coming: dict[int, _Coming] = {}
        self._paced_until = 0.0
        self._workers = [flows.lasting(self._work) for _ in range(_AT_A_TIME)]
        self.told: Callable[[Instant], None] = _ignore

    # what there is to do

    def start(self, now: Instant) -> None:
        """Go on with what the state says, as soon as the others may be connected."""
        self._look()
        self._counters.transfers_resumed += sum(coming.cursor.n > 0 for coming in self._coming.values())
        for worker in self._workers:
            worker.start_at(now.mono + self._settings.settle)

    def on_state(self, state: ClusterState, now: Instant) -> None:
        """The cluster state has changed: other partitions may be coming, or one in another step."""
        self._state = state
        self._look()
        for worker in self._workers:
            worker.hurry(now.mono)

    def _look(self) -> None:
        """What is coming by the present state; what is coming no more is given up, and its cursor dropped."""
        state, before = self._state, self._coming
        self._coming = {}
        for move in state.moves:
            if move.step is Step.WRITE_BOTH_READ_OLD and any(self._ns(move)):
                known, since = before.get(move.partition), state.since.partition(move.partition)
                if known is None or known.cursor.since != since:
                    known = _Coming(move.partition, move, self._cursors.since(move.partition, since))
                self._coming[move.partition] = known
        with suppress(StorageFull, Overloaded):  # one that stays is of an earlier step, and says nothing
            self._cursors.keep_only(self._coming)

    def _ns(self, move: Move) -> Iterator[int]:
        """The numbers of replicas with which keys of a partition are coming to this node."""
        return (n for n in self._state.ns if self._name in coming_replicas(move, n))

    @property
    def proven(self) -> tuple[int, ...]:
        """The partitions coming to this node of which it holds all: by the state that it knows."""
        return tuple(partition for partition, coming in self._coming.items() if coming.proven)

    @property
    def status(self) -> TransferStatus:
        """How many partitions are coming to this node, and how many of these are proven."""
        return TransferStatus(len(self._coming), len(self.proven))

    # the work

    def _work(self, now: Instant) -> Flow[None]:
        while True:
            coming = self._next(now)
            if coming is None:
                now, _ = yield Idle(self._until_due(now))
                continue
            coming.busy = True
            try:
                yield from self._fill(coming, now)
            except (Lost, KVError):  # a later try goes on from where this one was
                pass
            finally:
                coming.busy = False
            now, _ = yield Pause(0.0)
            coming.retry_at = now.mono + self._settings.settle

    def _waiting(self) -> Iterator[_Coming]:
        return (coming for coming in self._coming.values() if not coming.proven and not coming.busy)

    def _next(self, now: Instant) -> _Coming | None:
        return next((coming for coming in self._waiting() if coming.retry_at <= now.mono), None)

    def _until_due(self, now: Instant) -> float:
        return min((max(0.0, c.retry_at - now.mono) for c in self._waiting()), default=inf)

    def _fill(self, coming: _Coming, now: Instant) -> Flow[None]:
        for n in self._ns(coming.move):
            if n >= coming.cursor.n:
                now = yield from self._fetch(coming, n, now)
        if coming.cursor.n < _ALL:
            yield from self._put_down(coming, Cursor(coming.cursor.since, _ALL, b""))
        for n in self._ns(coming.move):
            now = yield from self._compare(coming, n, now)
        now, _ = yield Sync(self._durability.last)
        self._still(coming)
        coming.proven = True
        self._counters.transfers_proven += 1
        self.told(now)

    def _still(self, coming: _Coming) -> None:
        """Raise Lost when this has ended while the flow waited: what comes now is of another step."""
        if self._coming.get(coming.partition) is not coming:
            raise Lost

    # fetching

    def _fetch(self, coming: _Coming, n: int, now: Instant) -> Flow[Instant]:
        """Take what an old replica has of the keys with `n` replicas; another one when it fails."""
        first, end = partition_bounds(coming.partition, self._state.ring.partitions)
        after = coming.cursor.after if n == coming.cursor.n else first
        unsaved = 0
        while after and (source := self._source(coming, n)):
            comparison = self._comparison(source, coming, [])
            try:
                page = comparison.page(coming.partition, n, ALL_LEAVES, after, end, now)
                now, versions, after = yield from page
            except (Lost, KVError):
                coming.failed.add(source)
                now, _ = yield Pause(self._pacing.pause(now))
                continue
            self._still(coming)
            self._take_all(versions)
            size = sum(len(key) + len(version) for key, version in versions)
            self._counters.transfer_keys += len(versions)
            self._counters.transfer_bytes += size
            unsaved += size
            if after and unsaved >= _CURSOR_BYTES:
                yield from self._put_down(coming, Cursor(coming.cursor.since, n, after))
                unsaved = 0
            now = yield from self._paced(size, now)
        return now

    def _source(self, coming: _Coming, n: int) -> str:
        """The old replica to fetch from: near, and not the same for all; empty: nothing is left anywhere.

        Raises Lost when none can be asked now.
        """
        state, old = self._state, old_replicas(coming.move, n)
        if not old:
            return ""
        turn = coming.partition % len(old)
        here = state.member(self._name)
        able = [
            member
            for node in (*old[turn:], *old[:turn])
            if self._alive(node) and node not in coming.failed and (member := state.member(node))
        ]
        if not able:
            coming.failed.clear()
            raise Lost
        return min(able, key=lambda member: here is None or member.zone != here.zone).node

    def _put_down(self, coming: _Coming, cursor: Cursor) -> Flow[None]:
        """Keep how far it is, when all before is on the disk."""
        yield Sync(self._durability.last)
        self._still(coming)
        self._cursors.save(coming.partition, cursor)
        coming.cursor = cursor

    def _paced(self, size: int, now: Instant) -> Flow[Instant]:
        """Wait until so many bytes more may be fetched."""
        starts = max(self._paced_until, now.mono)
        self._paced_until = starts + size / self._settings.transfer_byte_rate
        if self._paced_until > now.mono:
            now, _ = yield Pause(self._paced_until - now.mono)
        return now

    # the proof

    def _compare(self, coming: _Coming, n: int, now: Instant) -> Flow[Instant]:
        """Compare with a read quorum of the old replicas, one after the other; raises Lost if it fails."""
        old = old_replicas(coming.move, n)
        needed = min(read_quorum(self._state, n), len(old))
        for peer in old:
            if len(coming.contained[n]) >= needed:
                break
            if peer not in coming.contained[n] and self._alive(peer):
                with suppress(Lost, KVError):
                    yield from self._compare_with(peer, coming, n, now)
                now, _ = yield Pause(self._pacing.pause(now))
        if len(coming.contained[n]) < needed:
            raise Lost
        return now

    def _compare_with(self, peer: str, coming: _Coming, n: int, now: Instant) -> Flow[None]:
        """Until nothing of the peer is missing here; what was, is taken, and all compared again.

        Where writes go on, two trees may never be equal at one moment. A leaf that differs is settled, too,
        when the peer has nothing in it that is new here.
        """
        equal: list[TreeNode] = []
        root = TreeNode(coming.partition, n, ROOT)
        comparison = self._comparison(peer, coming, equal)
        for _ in range(_TRIES):
            now, differing = yield from comparison.compare([root], self._settings.settle, now)
            if not differing:
                break
            now, leaves = yield from comparison.differing_leaves(root, now)
            after, news = b"", False
            while leaves:
                page = comparison.page(coming.partition, n, leaves, after, b"", now)
                now, versions, after = yield from page
                self._still(coming)
                news |= self._take_all(versions)
                if not after:
                    break
            if not news:
                equal.append(root)
                break
        self._still(coming)
        if equal:
            coming.contained[n].add(peer)

    def _comparison(self, peer: str, coming: _Coming, equal: list[TreeNode]) -> Comparison:
        """By the epoch of the step: who has not taken it up refuses, who is further answers all the same."""
        conversation = Conversation(
            peer,
            coming.cursor.since,
            self._local.replica.read,
            lambda _: None,
            self._pacing.pause,
            self._counters,
            self._settings,
        )
        return self._compared(conversation, lambda root, _: equal.append(root))

    # what has come

    def _take_all(self, versions: tuple[KeyVersion, ...]) -> bool:
        """Reconcile versions into what is here; whether one of them was new."""
        news = False
        for key, version in versions:
            news |= self._take(key, version)
        return news

    def _take(self, key: InternalKey, version: EncodedVersion) -> bool:
        changes: Changes = {}
        try:
            self._local.replica.prepare(key, version, changes)
        except VersionTooLarge:  # whoever reads the key has to resolve it; until then it is missing here
            return True
        if changes:
            self._durability.soon(self._local.replica.replace(changes))
        return bool(changes)


def _ignore(now: Instant) -> None:
    """Until a callback is set."""
