"""Requests that arrive at a node which is no replica of their key."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.config import BucketSettings, QuorumMode
from kvstore.errors import NodeStopping, Outcome, StaleRing
from kvstore.node import coordinator as coordinating
from kvstore.principal import ANYONE, Principal
from kvstore.protocol.client import Failed, Stored
from kvstore.protocol.peer import Forward, ForwardReply
from kvstore.quorum.request import Request, admit
from tests.plain import Get, Put
from tests.unit.quorum_cluster import Cluster

KEY = b"key"


def outsider(cluster: Cluster, bucket: str) -> str:
    """A node that is no replica of the key."""
    return next(name for name in cluster.hosts if name not in cluster.replicas(bucket, KEY))


def repeat(cluster: Cluster, sender: str) -> None:
    """The network delivers once more what `sender` has just passed on."""
    for to, message in cluster.hosts[sender].sent:
        if isinstance(message, Forward):
            cluster.hosts[to].node.on_frame(sender, [message], cluster.instant)


def test_a_repeated_forward_is_carried_out_once() -> None:
    cluster = Cluster(5)
    via = outsider(cluster, "carts")
    number = cluster.start(via, Put("carts", KEY, b"book"))
    repeat(cluster, via)
    cluster.run()
    assert number in cluster.hosts[via].replies
    assert len(cluster.found(via, Get("carts", KEY)).siblings) == 1


def test_what_was_said_to_be_not_applied_stays_so_when_the_network_repeats() -> None:
    cluster = Cluster(5, [BucketSettings("strict", quorum=QuorumMode.STRICT)])
    coordinator, *others = cluster.replicas("strict", KEY)
    via = outsider(cluster, "strict")
    cluster.kill(*others)
    number = cluster.start(via, Put("strict", KEY, b"book"))
    (forward,) = [message for _, message in cluster.hosts[via].sent if isinstance(message, Forward)]
    cluster.run()
    reply = cluster.hosts[via].replies[number]
    assert isinstance(reply, Failed)
    assert reply.error.outcome is Outcome.NOT_APPLIED
    cluster.revive(*others)
    cluster.hosts[coordinator].node.on_frame(via, [forward], cluster.instant)
    cluster.run()
    assert cluster.found(coordinator, Get("strict", KEY)).siblings == ()


def test_who_is_no_replica_of_what_is_passed_on_to_it_says_that_the_ring_is_another() -> None:
    """It passes nothing on: two nodes with different rings would do so for ever."""
    cluster = Cluster(5)
    replicas = cluster.replicas("carts", KEY)
    stranger = outsider(cluster, "carts")
    sender = replicas[0]
    forward = Forward(77, cluster.state.epoch, Put("carts", KEY, b"book"))
    cluster.hosts[stranger].node.on_frame(sender, [forward], cluster.instant)
    ((to, reply),) = [(to, m) for to, m in cluster.hosts[stranger].sent if isinstance(m, ForwardReply)]
    assert to == sender
    assert isinstance(reply.reply, Failed)
    assert isinstance(reply.reply.error, StaleRing)
    assert not [m for _, m in cluster.hosts[stranger].sent if isinstance(m, Forward)]


def test_the_principal_of_a_forwarded_request_travels_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(5)
    via = outsider(cluster, "carts")
    seen: list[Principal] = []

    def note(principal: Principal, *arguments: Any) -> Request:
        seen.append(principal)
        return admit(principal, *arguments)

    monkeypatch.setattr(coordinating, "admit", note)
    host = cluster.hosts[via]
    host.node.on_requests([(99, Put("carts", KEY, b"v"))], cluster.instant, Principal("somebody"))
    cluster.run()
    assert isinstance(host.replies[99], Stored)
    assert seen == [Principal("somebody")] * 2, "at the node that has it from the client, and at a replica"
    cluster.stored_reply(via, Put("carts", KEY, b"w"))
    assert seen[2:] == [ANYONE] * 2


def test_what_was_passed_on_to_a_node_that_stops_is_passed_on_to_another() -> None:
    cluster = Cluster(5)
    replicas = cluster.replicas("carts", KEY)
    via = outsider(cluster, "carts")
    for name in replicas[:2]:
        cluster.hosts[name].node.drain()
    cluster.stored_reply(via, Put("carts", KEY, b"book"))
    assert len(cluster.found(replicas[2], Get("carts", KEY)).siblings) == 1


def test_when_all_stop_the_client_is_told_that_nothing_was_done() -> None:
    cluster = Cluster(5)
    via = outsider(cluster, "carts")
    for name in cluster.replicas("carts", KEY):
        cluster.hosts[name].node.drain()
    number = cluster.start(via, Put("carts", KEY, b"book"))
    cluster.run()
    reply = cluster.hosts[via].replies[number]
    assert isinstance(reply, Failed)
    assert isinstance(reply.error, NodeStopping)
    assert reply.error.outcome is Outcome.NOT_APPLIED


def test_a_node_that_stops_finishes_what_is_under_way() -> None:
    cluster = Cluster(3)
    coordinator = cluster.replicas("carts", KEY)[0]
    number = cluster.start(coordinator, Put("carts", KEY, b"book"))
    cluster.hosts[coordinator].node.drain()
    cluster.run()
    assert isinstance(cluster.hosts[coordinator].replies[number], Stored)
