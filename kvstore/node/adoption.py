"""Taking up a newer cluster state while the node runs: on its disk first, then everywhere it matters."""

from __future__ import annotations

from collections.abc import Callable

from kvstore.errors import Overloaded, StorageFull
from kvstore.membership.follow import check_follows
from kvstore.node import state_store
from kvstore.node.liveness import Liveness
from kvstore.node.outbox import Outbox
from kvstore.node.parts import Background, Foundation
from kvstore.protocol.instant import Instant
from kvstore.quorum.deadlines import NEVER
from kvstore.quorum.flow import Flow, Idle, Pause, Sync
from kvstore.ring import ClusterState

_FULL_PAUSE = 1.0
"""Seconds between two tries to keep a state on a full disk."""


class Adoption:
    """Of one node. States may come in any order, and more than once."""

    def __init__(self, outbox: Outbox, base: Foundation, background: Background, liveness: Liveness) -> None:
        self._outbox = outbox
        self._base = base
        self._background = background
        self._liveness = liveness
        self.newest = base.placements.state
        """The newest state that has come; it may not be on the disk yet."""
        self.on_adopted: Callable[[Instant], None] = lambda now: None
        """Called when another state is acted by."""
        self._flow = background.flows.lasting(self._take_up)

    def start(self, now: Instant) -> None:
        """Wait for the first one."""
        self._flow.start(now)

    def on_state(self, state: ClusterState, now: Instant) -> None:
        """A state of this cluster; one that is not newer than what is known changes nothing.

        Raises InvalidRequest for one that cannot follow on the present one.
        """
        same = state.cluster_id == self.newest.cluster_id
        if state.epoch > self.newest.epoch or not same:
            check_follows(self.newest, state)
            self.newest = state
            self._flow.hurry(now.mono)

    def _take_up(self, now: Instant) -> Flow[None]:
        placements = self._base.placements
        while True:
            if (state := self.newest) is placements.state:
                yield Idle(NEVER)
                continue
            try:
                lsn = self._base.local.replica.write([state_store.entry(state)])
            except (StorageFull, Overloaded):
                yield Pause(_FULL_PAUSE)
                continue
            now, _ = yield Sync(lsn)
            self._adopt(state, now)

    def _adopt(self, state: ClusterState, now: Instant) -> None:
        base, background = self._base, self._background
        placements, before = base.placements, base.placements.state
        placements.on_state(state)
        partitions, since = range(state.ring.partitions), state.since
        base.mint.on_state(p for p in partitions if since.partition(p) > before.epoch)
        base.context_keys.on_state(placements.others)
        background.tree_building.on_state(state)
        background.anti_entropy.on_state(now)
        background.replay.on_state()
        background.transfers.on_state(state, now)
        self._liveness.on_members(placements.others, now)
        self._outbox.on_state(state)
        self.on_adopted(now)
