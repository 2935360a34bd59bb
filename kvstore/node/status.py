"""What a node says about itself when an operator asks: one record in the node, on the wire and in clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kvstore.gossip import MemberRow
from kvstore.lsm import EngineStatistics
from kvstore.protocol.gossip import Status
from kvstore.quorum.anti_entropy_status import AntiEntropyStatus
from kvstore.quorum.counters import Counters
from kvstore.quorum.hints import PendingHints
from kvstore.quorum.transfer_status import TransferStatus
from kvstore.ring import ClusterState


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A member of the cluster as the node that was asked sees it, itself included."""

    node: str
    """Its id."""
    address: str
    """HOST:PORT; empty for one that is not in the cluster state."""
    zone: str
    """Empty when it has none."""
    host: str
    """The machine that it shares with other nodes; empty: none."""
    status: Status
    """Alive, suspect or dead."""
    incarnation: int
    """The number of its claim to be alive that is believed (docs/gossip.md)."""
    connected: bool = False
    """Whether the node's stream to it is open; of itself: true. The server knows, a bare node does not."""

    @property
    def alive(self) -> bool:
        """Whether the node thinks it alive."""
        return self.status is Status.ALIVE


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The state of one node, as it sees it. Sizes are in bytes, times in seconds."""

    node: str
    """Its id."""
    cluster_id: str
    """The name of the cluster."""
    epoch: int
    """Of the cluster state that it knows."""
    members: tuple[MemberStatus, ...]
    """All members as it sees them, itself included."""
    hints: tuple[PendingHints, ...]
    """What it keeps for others: `.target`, `.count`, `.bytes`, and `.oldest`, the age of the oldest."""
    counters: Counters
    """What it has done since it started; a copy."""
    engine: EngineStatistics
    """Sizes and counts of its storage engine."""
    anti_entropy: AntiEntropyStatus
    """How far its replicas are proven equal to those of others."""
    in_flight: int
    """Requests of clients that are under way."""
    in_flight_bytes: int
    """What their operations hold."""
    most_in_flight_bytes: int
    """The most that they held at one time."""
    refetching_from: tuple[str, ...]
    """The nodes that must answer before what is quarantined here is whole again."""
    transfers: TransferStatus
    """How many partitions it is filled with, and of how many it is proven to hold all."""
    version: str = ""
    """Of kvstore. This and all that follows are the server's: empty or 0 in a simulated cluster."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What all nodes should have alike, as texts by name; of tables only what is not the default."""
    pid: int = 0
    """Of its process."""
    uptime: float = 0.0
    """Since the server started."""
    queued_bytes: int = 0
    """What waits to be written to other nodes."""
    most_queued_bytes: int = 0
    """The longest that the queue of one stream to another node was."""
    most_reply_bytes: int = 0
    """The most that has waited for the client of a session that is over."""


def member_statuses(members: Iterable[MemberRow], state: ClusterState) -> tuple[MemberStatus, ...]:
    """What gossip knows of the members, with what the cluster state says of them."""
    return tuple(_member_status(member, state) for member in members)


def _member_status(seen: MemberRow, state: ClusterState) -> MemberStatus:
    member = state.member(seen.node)
    address, zone, host = (member.address, member.zone, member.host) if member else ("", "", "")
    return MemberStatus(seen.node, address, zone, host, seen.status, seen.incarnation)
