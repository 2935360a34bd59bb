"""What the engines of all nodes do: see WatchedEngine."""

from __future__ import annotations

from collections import Counter

from kvstore.errors import Corruption, InvalidRequest
from kvstore.lsm.quarantine import Fence
from kvstore.quorum.hints import HINT_KEYSPACE, split_hint_key
from kvstore.ring import DATA_KEYSPACE
from kvstore.sim.checker import Violation
from kvstore.sim.invariants.copies import Copies
from kvstore.sim.invariants.deletions import Deletions
from kvstore.sim.invariants.writes import Writes
from kvstore.sim.watched_engine import WatchedEngine
from kvstore.versions import EncodedVersion, InternalKey


class Engines:
    """The watcher of all engines: tells writes from deletions; raises Violation."""

    def __init__(self, writes: Writes, copies: Copies, deletions: Deletions, counts: Counter[str]) -> None:
        self._copies = copies
        self._writes = writes
        self._deletions = deletions
        self._counts = counts

    def written(self, node: str, key: bytes, old: bytes | None, new: bytes) -> None:
        """See Watcher."""
        before = None if old is None else EncodedVersion(old)
        try:
            if key[:1] == DATA_KEYSPACE:
                self._data_written(node, InternalKey(key), before, EncodedVersion(new))
            elif key[:1] == HINT_KEYSPACE:
                self._hint_written(node, key, before, EncodedVersion(new))
        except (Corruption, InvalidRequest):
            return  # not an internal key: tests write such, to see that nodes survive it

    def _data_written(
        self, node: str, key: InternalKey, old: EncodedVersion | None, new: EncodedVersion
    ) -> None:
        if old is None:
            self._copies.must_come_back(node, key, new)
        if new:
            self._writes.written(node, key, key, old, new)
        elif old:
            self._deletions.data_deleted(node, key, old)
            self._copies.reaped(node, key)

    def _hint_written(self, node: str, place: bytes, old: EncodedVersion | None, new: EncodedVersion) -> None:
        target, key = split_hint_key(place)
        if new:
            self._writes.written(node, place, key, old, new)
        elif old:
            self._deletions.hint_deleted(node, target, key, old)

    def lifting(self, node: str, engine: WatchedEngine, fence: Fence) -> None:
        """See Watcher."""
        self._counts["fences are lifted when refetched is durable"] += 1
        if keys := engine.restored_in_memory(fence):
            raise Violation(f"{node} lifts a fence, and {len(keys)} keys behind it are not on its disk")
