"""What a node says about itself when an operator asks."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.gossip import Member
from kvstore.lsm import EngineStatistics
from kvstore.quorum.background.anti_entropy import AntiEntropyStatus
from kvstore.quorum.counters import Counters
from kvstore.quorum.hints import PendingHints


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The state of one node, as it sees it."""

    node: str
    cluster_id: str
    epoch: int
    members: tuple[Member, ...]
    hints: tuple[PendingHints, ...]
    counters: Counters
    engine: EngineStatistics
    anti_entropy: AntiEntropyStatus
    in_flight: int
    """Requests of clients that are under way."""
    in_flight_bytes: int
    """What operations hold."""
    most_in_flight_bytes: int
    refetching_from: tuple[str, ...]
    """Who must answer before what is quarantined here is whole again."""
