"""Refetching what is quarantined: what a damaged block might have held comes back from the other replicas.

What a fence hides is fetched from *every* other primary before any of it is written here: a version that was
acknowledged by this replica and one other is with that one, whichever it is. Until then this replica cannot
say what those keys have, and refuses both to tell and to be written to. One that is damaged there as well
is passed over when all others have answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from kvstore.errors import Corruption, Overloaded, StorageFull, VersionTooLarge
from kvstore.lsm import Engine, Fence
from kvstore.protocol.instant import Instant
from kvstore.quorum.background.conversation import Conversation
from kvstore.quorum.background.exchange import Exchange
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.counters.repair import RepairCounters
from kvstore.quorum.flow import Flow, Flows, Sync
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.mint import Mint
from kvstore.quorum.placement import Placements
from kvstore.ring import partition_bounds, replicas
from kvstore.versions import NO_VERSION, EncodedVersion, InternalKey

_NOT_DATA = -1
"""In the place of a partition: hints and this node's own records, which nobody else has."""


@dataclass(slots=True)
class _Part:
    """What a fence hides of one partition, of buckets with one n: keys of [first, end)."""

    partition: int
    n: int
    first: bytes
    end: bytes
    peers: frozenset[str]
    mine: bool
    waiting: set[str]
    damaged: set[str] = field(default_factory=set)
    fetched: dict[InternalKey, EncodedVersion] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all have answered that can; a key that nobody else should have stays hidden."""
        if self.mine and self.damaged >= self.peers:
            return False
        return self.waiting <= self.damaged


class Quarantine:
    """The fences of one node's engine, and how far each is from being lifted.

    `lifted` is called when one is, and trees may be missing. `pause` in seconds is between two tries.
    """

    def __init__(
        self,
        flows: Flows,
        engine: Engine,
        local: LocalCopy,
        trees: Trees,
        placements: Placements,
        mint: Mint,
        durability: HeldOutputs,
        counters: RepairCounters,
        pause: float,
        lifted: Callable[[], None],
    ) -> None:
        self._flows = flows
        self._engine = engine
        self._local = local
        self._trees = trees
        self._placements = placements
        self._mint = mint
        self._durability = durability
        self._counters = counters
        self._pause = pause
        self._lifted = lifted
        self._parts: dict[Fence, list[_Part]] = {}
        self._tried: dict[str, float] = {}
        self._timer = flows.deadlines.timer(self._on_time)

    def notice(self, now: Instant) -> None:
        """The engine has put up fences."""
        for fence in self._engine.quarantine.take_noticed():
            self._counters.quarantines += 1
            self._trees.forget(fence.first, fence.last)
            self._parts[fence] = list(self._split(fence))
        self._timer.set(now.mono)

    def on_state(self, now: Instant) -> None:
        """The cluster state has changed: others may have to be asked, from the start."""
        self._parts = {fence: list(self._split(fence)) for fence in self._parts}
        self._timer.set(now.mono)

    def _split(self, fence: Fence) -> Iterator[_Part]:
        state, name = self._placements.state, self._placements.name
        partitions = state.ring.partitions
        behind = fence.last + b"\0"
        after_data = partition_bounds(partitions - 1, partitions)[1]
        if behind > after_data:
            first = max(fence.first, after_data)
            yield _Part(_NOT_DATA, 0, first, behind, frozenset(), False, set())
        for partition in range(partitions):
            start, end = partition_bounds(partition, partitions)
            first, end = max(start, fence.first), min(end, behind)
            if first >= end:
                continue
            for n in self._trees.ns:
                primaries = frozenset(replicas(state, partition, n))
                mine = name in primaries
                peers = primaries - {name} if mine else frozenset[str]()
                yield _Part(partition, n, first, end, peers, mine, set(peers))

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The peers that must answer before all fences are lifted."""
        return tuple(sorted({peer for part in self._all_parts() for peer in part.waiting}))

    def _all_parts(self) -> list[_Part]:
        return [part for parts in self._parts.values() for part in parts]

    # from the others: rounds are driven by kvstore.quorum.background.anti_entropy

    def next_peer(self, now: Instant) -> str:
        """A live peer that should be asked now; empty: none."""
        alive = self._placements.alive
        due = [p for p in self.waiting_for if self._tried.get(p, 0.0) <= now.mono and alive(p)]
        return min(due, key=lambda peer: self._tried.get(peer, 0.0), default="")

    def tried(self, peer: str, now: Instant) -> None:
        """A round with `peer` is over; what it left is tried again after a while."""
        self._tried[peer] = now.mono + self._pause

    def round(self, peer: str, conversation: Conversation, now: Instant) -> Flow[None]:
        """Fetch from one peer what it has of all that is hidden here."""
        for part in [part for part in self._all_parts() if peer in part.waiting]:
            store = partial(self._fetched, part)
            exchange = Exchange(conversation, self._trees, self.known, store, _ignore)
            try:
                now = yield from exchange.fetch(part.partition, part.n, part.first, part.end, now)
            except Overloaded:  # another peer is being served there: our turn comes
                continue
            except Corruption:
                part.damaged.add(peer)
            else:
                part.waiting.discard(peer)
                part.damaged.discard(peer)
            self._timer.set(now.mono)

    def known(self, start: bytes, end: bytes | None) -> Iterator[tuple[InternalKey, EncodedVersion]]:
        """As `Engine.scan`, without what is hidden."""
        for key, version in self._engine.scan_around(start, end):
            if version is not None:
                yield InternalKey(key), EncodedVersion(version)

    def _fetched(self, part: _Part, key: InternalKey, version: EncodedVersion) -> EncodedVersion:
        """Take a peer's version: at once where what is here is known, else when all have answered."""
        replica = self._local.replica
        try:
            lsn = self._local.store(key, version)
        except Corruption:
            together = replica.combine(key, part.fetched.get(key, NO_VERSION), version)
            if len(together) <= replica.largest:
                part.fetched[key] = together
        except VersionTooLarge:  # as in an exchange: whoever reads the key has to resolve it
            pass
        else:
            self._durability.soon(lsn)
        return version

    # here

    def _on_time(self, now: Instant) -> None:
        """Write what is complete, and lift the fences behind which all is."""
        standing = set(self._engine.quarantine.fences)
        for fence, parts in list(self._parts.items()):
            if fence not in standing:  # a compaction could read it after all
                self._gone(fence)
                continue
            try:
                for part in [part for part in parts if part.complete]:
                    self._write(part)
                    parts.remove(part)
            except (StorageFull, Overloaded):
                self._timer.set(now.mono + self._pause)
                return
            if not parts:
                self._flows.begin(self._lift(fence), now)

    def _write(self, part: _Part) -> None:
        """What the others have; what nobody has was reaped, or was never anywhere else.

        A dot that only the damaged block knew may be forgotten now: the actors of this node are renewed
        before anything can be written over what has come back (riak_kv#679).
        """
        trees, replica = self._trees, self._local.replica
        hidden: dict[bytes, bytes | None] = {
            key: part.fetched.get(InternalKey(key))
            for key, version in self._engine.scan_around(part.first, part.end)
            if version is None and (part.partition == _NOT_DATA or trees.n_of(InternalKey(key)) == part.n)
        }
        hidden |= {key: version for key, version in part.fetched.items() if self._unknown(key)}
        if not hidden:
            return
        self._mint.renew_actors()
        for entry in sorted(hidden.items()):  # one by one: together they may be more than a batch can hold
            replica.write([entry])  # their trees are not known either
        self._durability.soon(self._durability.last)
        self._counters.refetched += sum(1 for version in hidden.values() if version is not None)

    def _unknown(self, key: InternalKey) -> bool:
        try:
            self._local.replica.read(key)
        except Corruption:
            return True
        return False

    def _lift(self, fence: Fence) -> Flow[None]:
        now, _ = yield Sync(self._durability.last)
        try:
            self._engine.lift(fence)
        except StorageFull:
            self._timer.set(now.mono + self._pause)
            return
        self._gone(fence)

    def _gone(self, fence: Fence) -> None:
        if self._parts.pop(fence, None) is None:
            return
        # also where nothing was written: what only a damaged hint knew is forgotten as well
        self._mint.renew_actors()
        self._local.hints.recount()
        self._lifted()


def _ignore(root: object, asked_at: object) -> None:
    """The default: no roots are compared here."""
