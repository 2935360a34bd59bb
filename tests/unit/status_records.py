"""Statuses of nodes, made up."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from kvstore.lsm import EngineStatistics
from kvstore.node.status import MemberStatus, NodeStatus
from kvstore.protocol.gossip import Status
from kvstore.quorum.anti_entropy_status import AntiEntropyStatus
from kvstore.quorum.counters import Counters
from kvstore.quorum.hints import PendingHints
from kvstore.quorum.transfer_status import TransferStatus


def node_status(node: str, **known: Any) -> NodeStatus:
    """A status of which only this is known; all else is empty."""
    values: dict[str, Any] = {
        "cluster_id": "",
        "epoch": 0,
        "members": (),
        "hints": (),
        "counters": Counters(),
        "engine": _nothing(EngineStatistics),
        "anti_entropy": AntiEntropyStatus(0, 0, 0.0, 0, ()),
        "in_flight": 0,
        "in_flight_bytes": 0,
        "most_in_flight_bytes": 0,
        "refetching_from": (),
        "transfers": TransferStatus(0, 0),
    }
    return NodeStatus(node, **values | known)


def _nothing(kind: Any) -> Any:
    return kind(**dict.fromkeys((f.name for f in fields(kind)), 0))


def full_status() -> NodeStatus:
    """A status without an empty field, no two of which are equal."""
    numbers = iter(range(1, 1000))

    def filled(kind: Any) -> Any:
        return kind(**{f.name: f.type == "bool" or next(numbers) for f in fields(kind)})

    plain = {f.name: next(numbers) for f in fields(NodeStatus) if f.type in ("int", "float")}
    return node_status(
        "n1",
        **plain,
        cluster_id="c1",
        version="9.8.7",
        members=(
            MemberStatus("n1", "h:1", "a", "m1", Status.ALIVE, 7, True),
            MemberStatus("n2", "h:2", "b", "m2", Status.DEAD, 8),
        ),
        hints=(PendingHints("n2", 5, 70, 1.5), PendingHints("n3", 6, 80, 2.5)),
        counters=filled(Counters),
        engine=filled(EngineStatistics),
        anti_entropy=AntiEntropyStatus(31, 32, 33.5, 34, ("n2", "n3")),
        refetching_from=("n2", "n4"),
        transfers=TransferStatus(41, 42),
        settings={"max-value": "1000"},
    )
