"""What operators ask of a node: each method of Admin, for its server, for clients and for the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from kvstore.node.node import Node
from kvstore.node.status import NodeStatus
from kvstore.protocol.instant import Instant
from kvstore.quorum.anti_entropy_status import AntiEntropyStatus
from kvstore.v1 import admin_pb2 as pb
from kvstore.wire.status import node_status_from_wire, node_status_to_wire, repair_from_wire, repair_to_wire

A = TypeVar("A")


class Operated(NamedTuple):
    """A node as whoever runs it offers it to operators."""

    node: Node
    now: Instant
    status: Callable[[], NodeStatus]
    """What the node says of itself, with what only its server knows."""


class AdminMethod(NamedTuple, Generic[A]):
    """One method of the Admin service; `A` is what its client gets."""

    name: str
    request: type[Message]
    perform: Callable[[Operated, Any], Message]
    """Carry a request out; raises the KVError that its client gets."""
    read: Callable[[bytes], A]
    """What was answered; raises ValueError or InvalidRequest when it is no such answer."""


def _get_status(operated: Operated, _request: pb.GetStatusRequest) -> Message:
    return node_status_to_wire(operated.status())


def _repair(operated: Operated, request: pb.RepairRequest) -> Message:
    if request.start:
        operated.node.repair_now(operated.now)
    return repair_to_wire(operated.status().anti_entropy)


GET_STATUS: AdminMethod[NodeStatus] = AdminMethod(
    "GetStatus",
    pb.GetStatusRequest,
    _get_status,
    lambda answer: node_status_from_wire(pb.GetStatusResponse.FromString(answer)),
)
REPAIR: AdminMethod[AntiEntropyStatus] = AdminMethod(
    "Repair",
    pb.RepairRequest,
    _repair,
    lambda answer: repair_from_wire(pb.RepairResponse.FromString(answer)),
)
METHODS: tuple[AdminMethod[Any], ...] = (GET_STATUS, REPAIR)
"""All that the service has."""
