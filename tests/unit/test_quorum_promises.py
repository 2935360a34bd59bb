"""Promises that could be taken out of the code once without any test noticing: one test each."""

from __future__ import annotations

import pytest

from kvstore.config import AntiEntropySettings, BucketSettings, Limits, QuorumSettings
from kvstore.errors import Outcome, StaleRing, WriteTimeout
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import ClientRequest, Failed
from kvstore.protocol.gossip import PushPull, Status, Update
from kvstore.protocol.peer import (
    Candidate,
    Forward,
    RangeItems,
    ReapCheck,
    Refusal,
    ReplicaRead,
    ReplicaWrite,
    TreeRead,
    WriteAck,
)
from kvstore.protocol.table import PeerMessage
from kvstore.versions import Digest, Dot, EncodedVersion, Sibling, Version, decode_version, encode_version
from tests.plain import Delete, Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster

KEY = b"user:1"
INTERNAL = data_key(token("carts", KEY), "carts", KEY)
ALONE = NodeSettings(
    quorum=QuorumSettings(hint_count=0), anti_entropy=AntiEntropySettings(interval=float("inf"))
)


def plant(cluster: Cluster, node: str, version: Version) -> None:
    cluster.hosts[node].node.base.local.store(INTERNAL, encode_version(version), "")
    cluster.hosts[node].sync_wanted = True
    cluster.run()


def siblings(count: int) -> Version:
    dots = [Dot("other side", i) for i in range(1, count + 1)]
    return Version((dots[-1],), tuple(Sibling(dot, b"%d" % dot.counter) for dot in dots))


@pytest.mark.parametrize("call", [Get("carts", KEY), Delete("carts", KEY)], ids=["get", "delete"])
def test_bugs_14_a_strict_read_never_asks_a_fallback(call: ClientRequest) -> None:
    """A fallback in the place of a dead primary has nothing: what W=2 acknowledged was read as nothing."""
    cluster = Cluster(5, settings=ALONE)
    first, second, third = cluster.replicas("carts", KEY)
    cluster.passes = lambda _, to, message: not isinstance(message, ReplicaWrite) or to == second
    cluster.stored_reply(first, Put("carts", KEY, b"v"))
    cluster.kill(first)
    cluster.passes = lambda sender, to, message: True
    asked: list[str] = []

    def note(_: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, ReplicaRead):
            asked.append(to)
        return True

    cluster.passes = note
    if not call.writes:
        assert [s.value for s in cluster.found(third, call).siblings] == [b"v"]
    else:
        assert cluster.stored_reply(third, call).siblings == 0
        assert cluster.found(second, Get("carts", KEY)).siblings == ()
    assert set(asked) <= {second, third}


@pytest.mark.parametrize("stuck", [{"n2", "n3"}, {"n1"}], ids=["the replicas' disks", "the coordinator's"])
def test_no_replica_shows_a_version_before_it_is_durable(stuck: set[str]) -> None:
    """Two disks have not synced: a crash of both could still take back what the read would have shown."""
    cluster = Cluster(3, [BucketSettings("carts", w=1)])
    cluster.stuck = stuck
    cluster.start("n1" if "n1" not in stuck else "n2", Put("carts", KEY, b"v"))
    cluster.run()
    assert all(cluster.stored(node, "carts", KEY) for node in cluster.hosts)
    number = cluster.start("n1", Get("carts", KEY, r=3))
    cluster.run()
    assert number not in cluster.hosts["n1"].replies
    cluster.stuck = set()
    cluster.run()
    found = cluster.hosts["n1"].replies[number]
    assert [s.value for s in found.siblings] == [b"v"]  # type: ignore[union-attr]


@pytest.mark.parametrize("lost", ["the connection", "time"])
def test_a_forwarded_write_is_never_passed_on_again(lost: str) -> None:
    """It may have been carried out: done twice it would be two writes, and a sibling of itself."""
    cluster = Cluster(5)
    via = next(node for node in cluster.hosts if node not in cluster.replicas("carts", KEY))
    forwards: list[str] = []

    def no_reply(_: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, Forward):
            forwards.append(to)
        return to != via

    cluster.passes = no_reply
    number = cluster.start(via, Put("carts", KEY, b"v", timeout=4.0))
    cluster.run()
    if lost == "the connection":
        cluster.hosts[via].node.on_link_lost(forwards[0], cluster.instant)
        cluster.run()
    else:
        cluster.move(5.0)
    error = cluster.hosts[via].replies[number].error  # type: ignore[union-attr]
    assert isinstance(error, WriteTimeout)
    assert error.outcome is Outcome.UNKNOWN
    cluster.passes = lambda sender, to, message: True
    cluster.move(10.0)
    assert len(forwards) == 1
    stored = cluster.stored(forwards[0], "carts", KEY)
    assert stored is not None
    assert (
        len(decode_version(EncodedVersion(stored)).context)
        == len(decode_version(EncodedVersion(stored)).siblings)
        == 1
    )


def test_a_forwarded_read_is_passed_on_again() -> None:
    cluster = Cluster(5)
    cluster.stored_reply("n1", Put("carts", KEY, b"v"))
    via = next(node for node in cluster.hosts if node not in cluster.replicas("carts", KEY))
    forwards: list[str] = []

    def only_the_second(sender: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, Forward):
            forwards.append(to)
        return to != via or sender != forwards[0]

    cluster.passes = only_the_second
    number = cluster.start(via, Get("carts", KEY))
    cluster.run()
    cluster.hosts[via].node.on_link_lost(forwards[0], cluster.instant)
    cluster.run()
    found = cluster.hosts[via].replies[number]
    assert [s.value for s in found.siblings] == [b"v"]  # type: ignore[union-attr]
    assert len(forwards) == 2


@pytest.mark.parametrize(
    "message",
    [
        ReplicaWrite(1, 2, INTERNAL, encode_version(siblings(1))),
        ReplicaWrite(1, 2, INTERNAL, encode_version(siblings(1)), "n3"),
        ReplicaRead(1, 2, INTERNAL, Digest(bytes(16))),
        TreeRead(1, 2, ()),
        RangeItems(1, 2, 0, 3, b"\0", b"", b"", b""),
        ReapCheck(1, 2, (Candidate(INTERNAL, Digest(bytes(16))),), True),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_node_of_another_epoch_is_refused_and_told_which_this_is(message: PeerMessage) -> None:
    cluster = Cluster()
    host = cluster.hosts["n1"]
    host.node.on_frame("n2", [message], cluster.instant)
    (refusal,) = [sent for _, sent in host.sent if isinstance(sent, Refusal)]
    assert isinstance(refusal.error, StaleRing)
    assert refusal.error.epoch == 1
    assert cluster.contents("n1") == {}
    assert cluster.hints("n1") == {}


def test_an_incarnation_that_was_told_to_others_is_never_used_again() -> None:
    cluster = Cluster()
    rumour = PushPull((Update("n1", Status.SUSPECT, 40),), False)
    cluster.hosts["n1"].node.on_frame("n2", [rumour], cluster.instant)
    cluster.run()
    assert incarnation(cluster) == 41
    cluster.start_again()
    assert incarnation(cluster) == 42


def incarnation(cluster: Cluster) -> int:
    members = cluster.hosts["n1"].status().members
    return next(member.incarnation for member in members if member.node == "n1")


def test_a_bucket_s_time_to_live_is_that_of_writes_which_name_none() -> None:
    cluster = Cluster(3, [BucketSettings("carts", ttl=60)])
    cluster.stored_reply("n1", Put("carts", b"a", b"v"))
    cluster.stored_reply("n1", Put("carts", b"b", b"v", ttl=600))
    cluster.stored_reply("n1", Put("other", b"a", b"v"))
    cluster.move(59.0)
    assert cluster.found("n2", Get("carts", b"a")).siblings
    cluster.move(2.0)
    assert not cluster.found("n2", Get("carts", b"a")).siblings
    assert cluster.found("n2", Get("carts", b"b")).siblings
    assert cluster.found("n2", Get("other", b"a")).siblings


def test_a_write_that_leaves_fewer_siblings_is_taken_although_they_are_above_the_limit() -> None:
    """What two sides of a split have written is above it, and a client may resolve it little by little."""
    cluster = Cluster(settings=NodeSettings(limits=Limits(siblings=5)))
    some = siblings(3)
    plant(cluster, "n1", some)
    context = cluster.found("n1", Get("carts", KEY, r=1)).context
    for node in cluster.hosts:
        plant(cluster, node, siblings(9))
    assert cluster.stored_reply("n1", Put("carts", KEY, b"three in one", context)).siblings == 7


@pytest.mark.parametrize("timeout", [2.0, 5.0], ids=["at the patience's end", "later"])
def test_a_fallback_that_was_asked_at_the_deadline_leaves_a_hint_here(timeout: float) -> None:
    """No time is left for it: without a hint nobody would know what the replica has missed."""
    cluster = Cluster(5)
    first, second, third = cluster.replicas("carts", KEY)
    cluster.passes = lambda _, to, message: not isinstance(message, ReplicaWrite) or to == second
    cluster.stored_reply(first, Put("carts", KEY, b"v", timeout=timeout))
    cluster.move(timeout + 0.1)
    assert cluster.hints(first) == {third: 1}


def test_a_hint_that_has_changed_since_it_was_sent_is_not_deleted_by_the_ack() -> None:
    cluster = Cluster(settings=NodeSettings(anti_entropy=AntiEntropySettings(interval=float("inf"))))
    cluster.kill("n3")
    cluster.stored_reply("n1", Put("carts", KEY, b"old"))
    held: list[WriteAck] = []

    def no_acks(sender: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, WriteAck) and (sender, to) == ("n3", "n1"):
            held.append(message)
            return False
        return True

    cluster.passes = no_acks
    cluster.dead.clear()
    cluster.move(3.0)
    assert held, "the hint is at its target, and the ack on its way"
    newer = encode_version(siblings(2))
    cluster.hosts["n1"].node.base.local.store(INTERNAL, newer, "n3")
    cluster.hosts["n1"].sync_wanted = True
    cluster.run()
    for ack in held:
        cluster.hosts["n1"].node.on_frame("n3", [ack], cluster.instant)
    assert cluster.hints("n1") == {"n3": 1}
    cluster.passes = lambda sender, to, message: True
    cluster.move(30.0)
    assert cluster.hints("n1") == {}
    stored = cluster.stored("n3", "carts", KEY)
    assert stored is not None
    assert {s.value for s in decode_version(EncodedVersion(stored)).siblings} == {b"old", b"1", b"2"}


def test_a_coordinator_s_refusal_of_a_forwarded_request_is_the_client_s_answer() -> None:
    """It is known at once that nothing was done, and why: no reason to let the client wait."""
    cluster = Cluster(5)
    via = next(node for node in cluster.hosts if node not in cluster.replicas("carts", KEY))
    forwards: list[tuple[str, Forward]] = []

    def note(_: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, Forward):
            forwards.append((to, message))
        return not isinstance(message, Forward)

    cluster.passes = note
    for call in (Put("carts", KEY, b"v"), Get("carts", KEY)):
        number = cluster.start(via, call)
        cluster.run()
        to, forward = forwards.pop()
        stranger = next(node for node in cluster.hosts if node not in (via, to))
        for sender in (stranger, to):
            assert number not in cluster.hosts[via].replies
            refusal = Refusal(forward.number, StaleRing(7))
            cluster.hosts[via].node.on_frame(sender, [refusal], cluster.instant)
        reply = cluster.hosts[via].replies[number]
        assert isinstance(reply, Failed)
        assert isinstance(reply.error, StaleRing)


def test_the_ack_of_an_earlier_repair_says_nothing_of_a_later_one() -> None:
    """What is shown must be on R disks as it is, not as it was when the first repair was sent."""
    cluster = Cluster(3, settings=ALONE)
    first, second, third = cluster.replicas("carts", KEY)
    one, two = siblings(1), Version((Dot("this side", 1),), (Sibling(Dot("this side", 1), b"two"),))
    plant(cluster, first, one)
    plant(cluster, third, two)
    repairs: list[tuple[str, bytes]] = []
    acks: list[WriteAck] = []

    def hold(_: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, ReplicaWrite):
            repairs.append((to, message.version))
            return message.version == encode_version(one)
        if isinstance(message, WriteAck):
            acks.append(message)
            return False
        return True

    cluster.passes = hold
    number = cluster.start(first, Get("carts", KEY))
    cluster.run()
    assert repairs == [(second, encode_version(one))]
    cluster.move(3.0)  # late as the ack is, the third is asked
    assert {to for to, version in repairs if version != encode_version(one)} == {second, third}
    cluster.hosts[first].node.on_frame(second, [*acks], cluster.instant)
    cluster.run()
    assert len(acks) == 1
    assert len(repairs) == 3, "the later repair is still under way: it is not sent again"
    assert number not in cluster.hosts[first].replies, "of what would be shown this node has the only copy"
    cluster.passes = lambda sender, to, message: True
    cluster.move(10.0)
    both = {b"1", b"two"}
    assert {s.value for s in cluster.found(first, Get("carts", KEY)).siblings} == both


@pytest.mark.parametrize("size", [16, 100_000], ids=["few bytes", "more than an answer holds"])
def test_anti_entropy_pushes_back_what_differs_on_both_sides(size: int) -> None:
    """Each side has a value of each key that the other has not seen: both must end with both."""
    cluster = Cluster(3, settings=NodeSettings(anti_entropy=AntiEntropySettings(interval=float("inf"))))
    partition = cluster.state.ring.partition("carts", KEY)
    names = [b"k%d" % i for i in range(2000)]
    keys = [key for key in names if cluster.state.ring.partition("carts", key) == partition][:12]
    for node in ("n1", "n2"):
        for key in keys:
            dot = Dot(f"{node}.0", 1)
            version = encode_version(Version((dot,), (Sibling(dot, node.encode() * size),)))
            cluster.hosts[node].node.base.local.store(
                data_key(token("carts", key), "carts", key), version, ""
            )
        cluster.hosts[node].sync_wanted = True
    cluster.run()
    asked = 0

    def count(_: str, __: str, message: PeerMessage) -> bool:
        nonlocal asked
        asked += isinstance(message, RangeItems)
        assert asked < 100, "the same is asked again and again"
        return True

    cluster.passes = count
    for host in cluster.hosts.values():
        host.node.repair_now(cluster.instant)
    cluster.move(60.0)
    for key in keys:
        held = {cluster.stored(node, "carts", key) for node in cluster.hosts}
        assert len(held) == 1
        (version_of_all,) = held
        assert version_of_all is not None
        assert len(decode_version(EncodedVersion(version_of_all)).siblings) == 2
