"""Building the Merkle trees from scans, a slice at a time: at the start, now and then, and after damage."""

from __future__ import annotations

from collections.abc import Callable

from kvstore.config import AntiEntropySettings
from kvstore.lsm.reading import Scan
from kvstore.protocol.instant import Instant
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.pacing import Pacing
from kvstore.quorum.counters.repair import RepairCounters
from kvstore.quorum.deadlines import NEVER, Deadlines
from kvstore.quorum.guard import Guard
from kvstore.ring import ClusterState
from kvstore.versions import InternalKey


class TreeBuilding:
    """Of one node. `built` is called when all trees are known."""

    def __init__(
        self,
        trees: Trees,
        scan: Scan,
        deadlines: Deadlines,
        guard: Guard,
        pacing: Pacing,
        counters: RepairCounters,
        settings: AntiEntropySettings,
    ) -> None:
        self._trees = trees
        self._scan = scan
        self._guard = guard
        self._pacing = pacing
        self._counters = counters
        self._settings = settings
        self._timer = deadlines.timer(self._on_time)
        self._rebuild_at = NEVER
        self.built: Callable[[Instant], None] = _ignore

    def start(self, now: Instant) -> None:
        """Begin with the first slice."""
        self._timer.set(now.mono)

    def on_state(self, state: ClusterState) -> None:
        """The cluster state has changed."""
        if self._trees.on_state(state):
            self._rebuild_at = NEVER
            self._timer.set(0.0)

    def missing(self) -> None:
        """Some trees are not known: build them soon."""
        self._trees.build_missing()
        self._timer.set(0.0)

    def distrust(self, key: InternalKey, error: Exception) -> None:
        """The trees of a key could not follow a write: they say nothing until they are built anew."""
        self._trees.forget(key, key)
        self.missing()
        self._guard.report(error)

    def _on_time(self, now: Instant) -> None:
        if now.mono >= self._rebuild_at:
            self._trees.rebuild()
            self._rebuild_at = NEVER
        self._trees.build(self._scan, self._settings.slice)
        self._counters.trees_corrected = self._trees.corrected
        if self._trees.building:
            self._timer.set(now.mono + self._pacing.pause(now))
            return
        self._rebuild_at = now.mono + self._settings.rebuild
        self._timer.set(self._rebuild_at)
        self.built(now)


def _ignore(now: Instant) -> None:
    """Until a callback is set."""
