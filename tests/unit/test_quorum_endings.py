"""However an operation ends, its client has one reply, and nothing of it stays: no entry, byte or count."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvstore.config import AntiEntropySettings, BucketSettings, QuorumMode, QuorumSettings
from kvstore.contexts import encode_seen
from kvstore.errors import (
    Corruption,
    Overloaded,
    ReadTimeout,
    StaleRead,
    StorageFull,
    Unavailable,
    WriteTimeout,
)
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import ClientRequest, Failed, Found, Stored
from kvstore.protocol.peer import (
    Forward,
    ForwardReply,
    ReadReply,
    ReadSame,
    Refusal,
    ReplicaRead,
    ReplicaWrite,
    WriteAck,
)
from kvstore.protocol.table import PeerMessage
from kvstore.versions import Dot, Sibling, Version, encode_version
from tests.plain import Delete, Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster

KEY = b"user:1"
INTERNAL = data_key(token("carts", KEY), "carts", KEY)
SLOPPY = BucketSettings("sloppy", quorum=QuorumMode.SLOPPY)


def cluster_of(nodes: int = 5) -> Cluster:
    settings = NodeSettings(
        quorum=QuorumSettings(hint_count=0),
        anti_entropy=AntiEntropySettings(interval=float("inf"), reap_interval=float("inf")),
    )
    return Cluster(nodes, [SLOPPY], settings=settings)


def left_over(cluster: Cluster) -> dict[str, tuple[int, int, int, int]]:
    """What nodes still count: operations, their bytes, unanswered requests, outputs that wait for a disk."""
    found = {}
    for name, host in cluster.hosts.items():
        base = host.node.base
        found[name] = (
            len(base.rpc.waiting),
            base.admission.bytes,
            base.admission.unanswered,
            len(base.durability._waiting),
        )
    return {name: counts for name, counts in found.items() if any(counts)}


def plant(cluster: Cluster, node: str, actor: str = "another") -> None:
    dot = Dot(actor, 1)
    version = encode_version(Version((dot,), (Sibling(dot, actor.encode()),)))
    cluster.hosts[node].node.base.local.store(INTERNAL, version, "")
    cluster.hosts[node].sync_wanted = True
    cluster.run()


def drops(*kinds: type[PeerMessage], to: str = "") -> Callable[[str, str, PeerMessage], bool]:
    return lambda _, receiver, message: not (isinstance(message, kinds) and to in ("", receiver))


CALLS: dict[str, ClientRequest] = {
    "get": Get("carts", KEY, r=3, timeout=3.0),
    "put": Put("carts", KEY, b"v" * 1000, w=3, timeout=3.0),
    "delete": Delete("carts", KEY, r=3, w=3, timeout=3.0),
}
LOSSES: dict[str, tuple[type[PeerMessage], ...]] = {
    "nothing": (),
    "questions": (ReplicaRead, ReplicaWrite),
    "writes": (ReplicaWrite,),
    "answers": (ReadReply, ReadSame, WriteAck),
    "forwards": (Forward,),
    "forward replies": (ForwardReply,),
}


@pytest.mark.parametrize("lost", LOSSES)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("at", ["a replica", "no replica"])
def test_a_request_ends_once_and_wholly_whatever_is_lost(lost: str, call: str, at: str) -> None:
    cluster = cluster_of()
    replicas = cluster.replicas("carts", KEY)
    plant(cluster, replicas[1])
    node = replicas[0] if at == "a replica" else next(n for n in cluster.hosts if n not in replicas)
    cluster.passes = drops(*LOSSES[lost])
    number = cluster.start(node, CALLS[call])
    cluster.run()
    cluster.move(12.0)
    reply = cluster.hosts[node].replies[number]
    if lost == "nothing" or (at == "a replica" and lost.startswith("forward")):
        assert isinstance(reply, Found | Stored), reply
    else:
        assert isinstance(reply, Failed | Found), reply
    cluster.passes = lambda sender, to, message: True
    cluster.move(12.0)
    assert left_over(cluster) == {}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("at", ["a replica", "no replica"])
@pytest.mark.parametrize("stuck", [True, False], ids=["disks stand still", "disks work"])
def test_a_client_that_leaves_leaves_nothing(call: str, at: str, stuck: bool) -> None:
    cluster = cluster_of()
    replicas = cluster.replicas("carts", KEY)
    plant(cluster, replicas[1])
    node = replicas[0] if at == "a replica" else next(n for n in cluster.hosts if n not in replicas)
    cluster.stuck = set(cluster.hosts) if stuck else set()
    number = cluster.start(node, CALLS[call])
    cluster.hosts[node].node.on_cancelled({number}, cluster.instant)
    assert number in cluster.hosts[node].replies
    cluster.run()
    cluster.move(12.0)
    cluster.stuck = set()
    cluster.move(12.0)
    assert left_over(cluster) == {}
    assert cluster.hosts[node].status().counters.cancelled == 1


@pytest.mark.parametrize(
    "error", [StorageFull("no space"), Overloaded(0.05), Corruption("a table", "damaged")]
)
@pytest.mark.parametrize("call", CALLS)
def test_replicas_that_refuse_end_a_request_with_their_error(call: str, error: Exception) -> None:
    cluster = cluster_of()
    first, *others = cluster.replicas("carts", KEY)
    plant(cluster, first)
    refused = [0]

    def refuse(sender: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, ReplicaRead | ReplicaWrite) and to in others:
            refused[0] += 1
            refusal = Refusal(message.number, error)  # type: ignore[arg-type]
            cluster.hosts[sender].node.on_frame(to, [refusal], cluster.instant)
            return False
        return True

    cluster.passes = refuse
    number = cluster.start(first, CALLS[call])
    cluster.run()
    cluster.move(12.0)
    assert refused[0] >= 2
    reply = cluster.hosts[first].replies[number]
    assert isinstance(reply, Failed), reply
    cluster.passes = lambda sender, to, message: True
    cluster.move(12.0)
    assert left_over(cluster) == {}


def test_a_repair_that_is_refused_makes_the_read_ask_another_replica_at_once() -> None:
    cluster = cluster_of(3)
    first, second, third = cluster.replicas("carts", KEY)
    plant(cluster, first)

    def refuse(sender: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, ReplicaWrite) and to == second:
            refusal = Refusal(message.number, StorageFull("no space"))
            cluster.hosts[sender].node.on_frame(to, [refusal], cluster.instant)
            return False
        return True

    cluster.passes = refuse
    number = cluster.start(first, Get("carts", KEY))
    cluster.run()
    assert isinstance(cluster.hosts[first].replies[number], Found), "no time has passed"
    assert cluster.stored(third, "carts", KEY) == cluster.stored(first, "carts", KEY)
    assert cluster.hosts[first].status().counters.read_repairs == 1
    assert left_over(cluster) == {}


def test_a_repair_whose_answer_never_comes_is_forgotten_with_its_read() -> None:
    cluster = cluster_of(3)
    first, _, _ = cluster.replicas("carts", KEY)
    plant(cluster, first)
    cluster.passes = drops(ReplicaWrite)
    number = cluster.start(first, Get("carts", KEY, timeout=2.0))
    cluster.run()
    cluster.move(1.9)
    assert number not in cluster.hosts[first].replies
    cluster.move(0.2)
    error = cluster.hosts[first].replies[number].error  # type: ignore[union-attr]
    assert isinstance(error, ReadTimeout)
    assert (error.received, error.required) == (3, 2), "the third was asked after a while"
    assert left_over(cluster) == {}


def test_a_repair_that_is_refused_when_its_read_has_ended_changes_nothing() -> None:
    """Seen: a defect, of a read that ended a second time."""
    cluster = cluster_of(3)
    first, second, _ = cluster.replicas("carts", KEY)
    plant(cluster, first)
    repairs: list[int] = []

    def note(_: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, ReplicaWrite) and to == second:
            repairs.append(message.number)
        return not isinstance(message, ReplicaWrite)

    cluster.passes = note
    number = cluster.start(first, Get("carts", KEY))
    cluster.run()
    host = cluster.hosts[first]
    host.node.on_cancelled({number}, cluster.instant)
    assert isinstance(host.replies[number], Failed)
    (repair,) = repairs
    host.node.on_frame(second, [Refusal(repair, StorageFull("no space"))], cluster.instant)
    assert left_over(cluster) == {}
    assert host.status().counters.defects == 0


@pytest.mark.parametrize("answering", [True, False])
def test_a_read_of_a_session_that_nobody_can_serve_says_so(answering: bool) -> None:
    cluster = cluster_of(3)
    first = cluster.replicas("carts", KEY)[0]
    dots = (Dot("never seen here", 1),)
    cluster.passes = drops() if answering else drops(ReplicaRead)
    call = Get("carts", KEY, r=1, seen=encode_seen(dots, token("carts", KEY)), timeout=2.0)
    number = cluster.start(first, call)
    cluster.run()
    cluster.move(5.0)
    error = cluster.hosts[first].replies[number].error  # type: ignore[union-attr]
    assert isinstance(error, StaleRead)
    assert error.received == (3 if answering else 1)
    assert cluster.hosts[first].status().counters.wide_reads == 1
    assert left_over(cluster) == {}


@pytest.mark.parametrize("at", ["the replica", "another"])
def test_a_read_of_a_session_whose_first_copy_is_unreadable_is_answered_once_by_another(at: str) -> None:
    """Seen: when its time was over it replied once more, and the count of requests fell below zero."""
    cluster = cluster_of(5)
    replicas = cluster.replicas("carts", KEY)
    for node in replicas:
        plant(cluster, node)
    bad = cluster.hosts[replicas[0]]
    bad.engine.write([(INTERNAL, b"rubbish")])
    bad.sync_wanted = True
    cluster.run()
    node = replicas[0] if at == "the replica" else next(n for n in cluster.hosts if n not in replicas)
    seen = encode_seen((Dot("another", 1),), token("carts", KEY))
    found = cluster.found(node, Get("carts", KEY, r=1, seen=seen))
    assert [value.value for value in found.siblings] == [b"another"]
    cluster.move(12.0)
    assert left_over(cluster) == {}


def test_a_copy_that_cannot_be_decoded_is_not_sent_to_replicas_that_have_none() -> None:
    """Seen: beside an answer of nothing it was taken for the newer version, unread, and sent as a repair."""
    cluster = cluster_of(3)
    first = cluster.replicas("carts", KEY)[0]
    bad = cluster.hosts[first]
    bad.engine.write([(INTERNAL, b"rubbish")])
    bad.sync_wanted = True
    cluster.run()
    assert cluster.found(first, Get("carts", KEY, r=2)).siblings == ()
    assert cluster.refused == 0, "no node would take it"
    cluster.move(12.0)
    assert left_over(cluster) == {}


def test_a_write_that_too_few_can_take_says_so_before_its_time_is_over() -> None:
    cluster = cluster_of(3)
    first, second, third = cluster.replicas("carts", KEY)
    cluster.stuck = {second, third}
    number = cluster.start(first, Put("carts", KEY, b"v", timeout=60.0))
    cluster.run()
    cluster.hosts[first].node.on_link_lost(second, cluster.instant)
    assert number not in cluster.hosts[first].replies
    cluster.hosts[first].node.on_link_lost(third, cluster.instant)
    error = cluster.hosts[first].replies[number].error  # type: ignore[union-attr]
    assert isinstance(error, WriteTimeout)
    assert (error.received, error.required) == (1, 2)
    cluster.stuck = set()
    cluster.move(70.0)
    assert left_over(cluster) == {}


def test_an_answer_that_has_come_counts_although_its_link_breaks() -> None:
    cluster = cluster_of(3)
    first, second, third = cluster.replicas("carts", KEY)
    cluster.passes = lambda sender, to, message: not (to == third and isinstance(message, ReplicaRead))
    number = cluster.start(first, Get("carts", KEY, r=3))
    cluster.run()
    (operation,) = cluster.hosts[first].node.base.rpc.waiting
    cluster.hosts[first].node.on_link_lost(second, cluster.instant)
    same = ReadSame((operation,))
    cluster.hosts[first].node.on_frame(third, [same], cluster.instant)
    assert isinstance(cluster.hosts[first].replies[number], Found)
    assert left_over(cluster) == {}


def test_a_read_is_over_when_all_others_have_answered_although_its_own_disk_has_not() -> None:
    cluster = cluster_of(3)
    first, second, third = cluster.replicas("carts", KEY)
    for node in (first, second, third):
        plant(cluster, node)
    cluster.stuck = {first}
    host = cluster.hosts[first]
    replica = host.node.base.local.replica
    replica.replace({INTERNAL: (replica.read(INTERNAL), replica.read(INTERNAL))})
    number = cluster.start(first, Get("carts", KEY))
    cluster.run()
    assert number not in host.replies, "of two copies one is not durable"
    cluster.move(1.0)
    assert isinstance(host.replies[number], Found), "the third was asked"
    assert host.node.base.rpc.waiting == {}


def test_who_is_no_replica_refuses_at_once_when_all_replicas_are_dead() -> None:
    cluster = cluster_of(5)
    replicas = cluster.replicas("carts", KEY)
    outsider = next(node for node in cluster.hosts if node not in replicas)
    cluster.kill(*replicas)
    for call in (Get("carts", KEY), Put("carts", KEY, b"v")):
        number = cluster.start(outsider, call)
        error = cluster.hosts[outsider].replies[number].error  # type: ignore[union-attr]
        assert isinstance(error, Unavailable)
        assert (error.required, error.alive) == (2, 0)


@pytest.mark.parametrize(
    "call", [Get("carts", KEY), Delete("carts", KEY)], ids=lambda call: type(call).__name__
)
def test_what_no_replica_can_read_is_told_to_whoever_asks_for_it(call: ClientRequest) -> None:
    """A delete reads first: it ended with its timeout, as a defect of the node."""
    cluster = cluster_of(3)
    for host in cluster.hosts.values():
        host.engine.write([(INTERNAL, b"rubbish")])
    assert isinstance(cluster.error("n2", call), Corruption)
    assert cluster.hosts["n2"].status().in_flight == 0
