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
from typing import TYPE_CHECKING

from kvstore.errors import Corruption, Overloaded, StorageFull, VersionTooLarge
from kvstore.lsm import Engine, Fence
from kvstore.quorum.background.exchange import Exchange, Flow
from kvstore.ring import partition_bounds, preference_list

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator

_FOR_EVER = float("inf")
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
    fetched: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all have answered that can; a key that nobody else should have stays hidden."""
        if self.mine and self.damaged >= self.peers:
            return False
        return self.waiting <= self.damaged


class Quarantine:
    """The fences of one node's engine, and how far each is from being lifted."""

    def __init__(
        self,
        core: Coordinator,
        engine: Engine,
        alive: Callable[[str], bool],
        pause: float,
        lifted: Callable[[], None],
    ) -> None:
        self._core = core
        self._engine = engine
        self._alive = alive
        self._pause = pause
        self._lifted = lifted
        self._parts: dict[Fence, list[_Part]] = {}
        self._tried: dict[str, float] = {}
        self._wake_at = _FOR_EVER

    def notice(self) -> None:
        """The engine has put up fences."""
        core = self._core
        for fence in self._engine.take_noticed():
            core.counters.quarantines += 1
            core.replica.trees.forget(fence.first, fence.last)
            self._parts[fence] = list(self._split(fence))
        self._wake_at = core.now

    def _split(self, fence: Fence) -> Iterator[_Part]:
        state, name = self._core.state, self._core.name
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
            for n in self._core.replica.trees.ns:
                primaries = frozenset(preference_list(state.ring, partition, n))
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

    def next_peer(self, now: float) -> str:
        """A live peer that should be asked now; empty: none."""
        due = [p for p in self.waiting_for if self._tried.get(p, 0.0) <= now and self._alive(p)]
        return min(due, key=lambda peer: self._tried.get(peer, 0.0), default="")

    def tried(self, peer: str, now: float) -> None:
        """A round with `peer` is over; what it left is tried again after a while."""
        self._tried[peer] = now + self._pause

    def round(self, peer: str) -> Flow[None]:
        """Fetch from one peer what it has of all that is hidden here."""
        core = self._core
        for part in [part for part in self._all_parts() if peer in part.waiting]:
            store = partial(self._fetched, part)
            exchange = Exchange(core.state.epoch, core.replica.trees, self.known, store, _nobody_cares)
            try:
                yield from exchange.fetch(part.partition, part.n, part.first, part.end)
            except Overloaded:  # another peer is being served there: our turn comes
                continue
            except Corruption:
                part.damaged.add(peer)
            else:
                part.waiting.discard(peer)
                part.damaged.discard(peer)
            self._wake_at = core.now

    def known(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """As `Engine.scan`, without what is hidden."""
        for key, version in self._engine.scan_around(start, end):
            if version is not None:
                yield key, version

    def _fetched(self, part: _Part, key: bytes, version: bytes) -> bytes:
        """Take a peer's version: at once where what is here is known, else when all have answered."""
        core = self._core
        try:
            lsn = core.store(key, version, "")
        except Corruption:
            together = core.replica.combine(key, part.fetched.get(key, b""), version)
            if len(together) <= core.replica.largest:
                part.fetched[key] = together
        except VersionTooLarge:  # as in an exchange: whoever reads the key has to resolve it
            pass
        else:
            core.durability.soon(lsn)
        return version

    # here

    def next_deadline(self) -> float:
        """When `on_timer` next has work, in monotonic seconds."""
        return self._wake_at

    def on_timer(self, now: float) -> None:
        """Write what is complete, and lift the fences behind which all is."""
        if now < self._wake_at:
            return
        self._wake_at = _FOR_EVER
        standing = set(self._engine.fences)
        for fence, parts in list(self._parts.items()):
            if fence not in standing:  # a compaction could read it after all
                self._gone(fence)
                continue
            try:
                for part in [part for part in parts if part.complete]:
                    self._write(part)
                    parts.remove(part)
            except (StorageFull, Overloaded):
                self._wake_at = now + self._pause
                return
            if not parts:
                durability = self._core.durability
                durability.after(durability.last, partial(self._lift, fence))

    def _write(self, part: _Part) -> None:
        """What the others have; what nobody has was reaped, or was never anywhere else.

        A dot that only the damaged block knew may be forgotten now: the actors of this node are renewed
        before anything can be written over what has come back (riak_kv#679).
        """
        core = self._core
        trees = core.replica.trees
        hidden = {
            key: part.fetched.get(key)
            for key, version in self._engine.scan_around(part.first, part.end)
            if version is None and (part.partition == _NOT_DATA or trees.n_of(key) == part.n)
        }
        hidden |= {key: version for key, version in part.fetched.items() if self._unknown(key)}
        if not hidden:
            return
        core.renew_actors()
        for entry in sorted(hidden.items()):  # one by one: together they may be more than a batch can hold
            core.replica.write([entry])  # their trees are not known either
        core.durability.soon(core.durability.last)
        core.counters.refetched += sum(1 for version in hidden.values() if version is not None)

    def _unknown(self, key: bytes) -> bool:
        try:
            self._core.replica.read(key)
        except Corruption:
            return True
        return False

    def _lift(self, fence: Fence) -> None:
        try:
            self._engine.lift(fence)
        except StorageFull:
            self._wake_at = self._core.now + self._pause
            return
        self._gone(fence)

    def _gone(self, fence: Fence) -> None:
        if self._parts.pop(fence, None) is None:
            return
        core = self._core
        # also where nothing was written: what only a damaged hint knew is forgotten as well
        core.renew_actors()
        core.hints.recount()
        core.replica.trees.build_missing()
        self._lifted()


def _nobody_cares(root: object) -> None:
    """For roots that are not compared."""
