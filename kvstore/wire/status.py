"""A node's status as the admin calls return it, and back. Counters travel by name."""

from __future__ import annotations

from dataclasses import asdict, fields

from kvstore.errors import InvalidRequest
from kvstore.lsm import EngineStatistics
from kvstore.node.status import MemberStatus, NodeStatus
from kvstore.protocol.gossip import Status
from kvstore.quorum.anti_entropy_status import AntiEntropyStatus
from kvstore.quorum.counters import Counters
from kvstore.quorum.hints import PendingHints
from kvstore.quorum.transfer_status import TransferStatus
from kvstore.v1 import admin_pb2 as pb
from kvstore.v1 import peer_pb2 as peer_pb

_COUNTERS = frozenset(field.name for field in fields(Counters))
_STATUS_NUMBERS: dict[Status, peer_pb.Status] = {
    Status.ALIVE: peer_pb.STATUS_ALIVE,
    Status.SUSPECT: peer_pb.STATUS_SUSPECT,
    Status.DEAD: peer_pb.STATUS_DEAD,
}
_STATUSES: dict[int, Status] = {number: status for status, number in _STATUS_NUMBERS.items()}
_PLAIN = (
    "node",
    "cluster_id",
    "epoch",
    "in_flight",
    "in_flight_bytes",
    "most_in_flight_bytes",
    "version",
    "pid",
    "queued_bytes",
    "most_queued_bytes",
    "most_reply_bytes",
)
"""Fields that are the same on both sides."""


def node_status_to_wire(status: NodeStatus) -> pb.GetStatusResponse:
    """All that a status says."""
    return pb.GetStatusResponse(
        uptime_s=status.uptime,
        members=map(_member_to_wire, status.members),
        hints=(
            pb.PendingHints(target=hints.target, count=hints.count, bytes=hints.bytes, oldest_s=hints.oldest)
            for hints in status.hints
        ),
        counters=asdict(status.counters),
        engine=pb.EngineStatus(**asdict(status.engine)),
        anti_entropy=_anti_entropy_to_wire(status.anti_entropy),
        refetching_from=status.refetching_from,
        coming=status.transfers.coming,
        coming_proven=status.transfers.proven,
        settings=status.settings,
        **{name: getattr(status, name) for name in _PLAIN},
    )


def node_status_from_wire(response: pb.GetStatusResponse) -> NodeStatus:
    """Inverse of `node_status_to_wire`; raises InvalidRequest for a member's status that does not exist.

    A counter that this version does not know is left out, one that the node does not know is 0.
    """
    engine = {field.name: getattr(response.engine, field.name) for field in fields(EngineStatistics)}
    counters = {name: count for name, count in response.counters.items() if name in _COUNTERS}
    return NodeStatus(
        uptime=response.uptime_s,
        members=tuple(map(_member_from_wire, response.members)),
        hints=tuple(PendingHints(h.target, h.count, h.bytes, h.oldest_s) for h in response.hints),
        counters=Counters(**counters),
        engine=EngineStatistics(**engine),
        anti_entropy=_anti_entropy_from_wire(response.anti_entropy),
        refetching_from=tuple(response.refetching_from),
        transfers=TransferStatus(response.coming, response.coming_proven),
        settings=dict(response.settings),
        **{name: getattr(response, name) for name in _PLAIN},
    )


def repair_to_wire(status: AntiEntropyStatus) -> pb.RepairResponse:
    """How far a repair is."""
    return pb.RepairResponse(anti_entropy=_anti_entropy_to_wire(status))


def repair_from_wire(response: pb.RepairResponse) -> AntiEntropyStatus:
    """Inverse of `repair_to_wire`."""
    return _anti_entropy_from_wire(response.anti_entropy)


def _member_to_wire(member: MemberStatus) -> pb.MemberStatus:
    return pb.MemberStatus(
        node=member.node,
        address=member.address,
        zone=member.zone,
        host=member.host,
        status=_STATUS_NUMBERS[member.status],
        incarnation=member.incarnation,
        connected=member.connected,
    )


def _member_from_wire(m: pb.MemberStatus) -> MemberStatus:
    if m.status not in _STATUSES:
        raise InvalidRequest("status", f"{m.status} is no status of a member")
    return MemberStatus(m.node, m.address, m.zone, m.host, _STATUSES[m.status], m.incarnation, m.connected)


def _anti_entropy_to_wire(status: AntiEntropyStatus) -> pb.AntiEntropyStatus:
    return pb.AntiEntropyStatus(
        pairs=status.pairs,
        unproven=status.unproven,
        oldest_s=status.oldest,
        wanted=status.wanted,
        waiting_for=status.waiting_for,
    )


def _anti_entropy_from_wire(m: pb.AntiEntropyStatus) -> AntiEntropyStatus:
    return AntiEntropyStatus(m.pairs, m.unproven, m.oldest_s, m.wanted, tuple(m.waiting_for))
