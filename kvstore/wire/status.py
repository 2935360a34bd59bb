"""A node's status as the admin call returns it."""

from __future__ import annotations

from dataclasses import asdict

from kvstore.node.status import NodeStatus
from kvstore.quorum.background.anti_entropy import AntiEntropyStatus
from kvstore.ring import ClusterState
from kvstore.v1 import admin_pb2 as pb
from kvstore.wire.peer import status_to_wire

StatusResponse = pb.GetStatusResponse
RepairResponse = pb.RepairResponse


def status_to_wire_response(status: NodeStatus, state: ClusterState) -> pb.GetStatusResponse:
    """What a node knows; the shell adds what only it knows (pid, version, frames)."""
    response = pb.GetStatusResponse(node=status.node, cluster_id=status.cluster_id, epoch=status.epoch)
    for seen in status.members:
        member = state.member(seen.node)
        response.members.add(
            node=seen.node,
            address=member.address if member else "",
            zone=member.zone if member else "",
            status=status_to_wire(seen.status),
            incarnation=seen.incarnation,
        )
    for hints in status.hints:
        response.hints.add(target=hints.target, count=hints.count, bytes=hints.bytes, oldest_s=hints.oldest)
    response.counters.MergeFrom(pb.Counters(**asdict(status.counters)))
    response.counters.in_flight = status.in_flight
    response.counters.in_flight_bytes = status.in_flight_bytes
    response.counters.most_in_flight_bytes = status.most_in_flight_bytes
    pairs = status.anti_entropy
    response.anti_entropy.MergeFrom(
        pb.AntiEntropyStatus(pairs=pairs.pairs, unproven=pairs.unproven, oldest_s=pairs.oldest)
    )
    response.refetching_from.extend(status.refetching_from)
    response.engine.MergeFrom(pb.EngineStatus(**asdict(status.engine)))
    return response


def repair_to_wire(status: AntiEntropyStatus) -> pb.RepairResponse:
    """How far a repair is."""
    return pb.RepairResponse(pairs=status.pairs, left=status.wanted, waiting_for=status.waiting_for)
