"""The invariants of one cluster."""

from __future__ import annotations

from collections import Counter

from kvstore.node.settings import NodeSettings
from kvstore.ring import ClusterState
from kvstore.sim.invariants.balances import Balances
from kvstore.sim.invariants.copies import Copies
from kvstore.sim.invariants.deletions import Deletions
from kvstore.sim.invariants.engines import Engines
from kvstore.sim.invariants.keyspace import Keyspace
from kvstore.sim.invariants.messages import Messages
from kvstore.sim.invariants.replies import Replies
from kvstore.sim.invariants.watched import Watched
from kvstore.sim.invariants.writes import Writes
from kvstore.sim.scheduler import Scheduler


class Invariants:
    """Watches all hosts; raises Violation within the turn that breaks a promise."""

    def __init__(self, scheduler: Scheduler, state: ClusterState, settings: NodeSettings) -> None:
        self.hosts: dict[str, Watched] = {}
        self.counts: Counter[str] = Counter()
        """How often each was checked."""
        self.keyspace = keyspace = Keyspace(state, scheduler)
        self.writes = Writes(keyspace, scheduler, self.counts)
        copies = Copies(self.hosts, keyspace, self.counts)
        self.replies = Replies(state, self.writes, copies, self.counts)
        self.messages = Messages(
            self.hosts, keyspace, scheduler, self.writes, copies, self.replies, self.counts
        )
        hint_age_ms = settings.quorum.hint_age * 1000
        deletions = Deletions(
            self.hosts, keyspace, self.writes, copies, self.messages, hint_age_ms, self.counts
        )
        self.engines = Engines(self.writes, copies, deletions, self.counts)
        self.balances = Balances(self.hosts, self.counts)
