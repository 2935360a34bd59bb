"""Reads, writes and deletes through real nodes: quorums, siblings, contexts, errors."""

from __future__ import annotations

import pytest

from kvstore.config import (
    AntiEntropySettings,
    BucketSettings,
    Conflict,
    Limits,
    QuorumMode,
    QuorumSettings,
)
from kvstore.errors import (
    InvalidRequest,
    Outcome,
    ReadTimeout,
    StaleRing,
    StorageFull,
    TooManySiblings,
    Unavailable,
    VersionTooLarge,
    WriteTimeout,
)
from kvstore.lsm import Durability, Options
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import ClientRequest, Found, Stored, WriteRequest
from kvstore.protocol.peer import Refusal, ReplicaRead, ReplicaWrite, WriteAck
from kvstore.quorum.mint import Mint
from kvstore.versions import (
    Dot,
    EncodedVersion,
    Sibling,
    SignedContext,
    Version,
    decode_version,
    encode_version,
)
from tests.plain import Delete, Get, Put, data_key, token
from tests.unit.quorum_cluster import WALL, Cluster

KEY = b"user:1"
NEVER = AntiEntropySettings(interval=float("inf"))
WITHOUT_HINTS = QuorumSettings(hint_count=0)


def test_a_put_is_found_from_every_node_with_its_metadata() -> None:
    cluster = Cluster(5)
    cluster.stored_reply("n1", Put("carts", KEY, b"v", content_type="text/plain"))
    for node in cluster.hosts:
        found = cluster.found(node, Get("carts", KEY))
        assert [(s.value, s.content_type, s.time) for s in found.siblings] == [(b"v", "text/plain", WALL)]


def test_all_replicas_and_no_other_node_hold_the_same_bytes() -> None:
    cluster = Cluster(5)
    cluster.stored_reply("n1", Put("carts", KEY, b"v"))
    replicas = cluster.replicas("carts", KEY)
    assert len({cluster.stored(node, "carts", KEY) for node in replicas}) == 1
    assert all(cluster.stored(n, "carts", KEY) is None for n in cluster.hosts if n not in replicas)


def test_two_unseen_writes_leave_two_siblings_everywhere_and_a_third_with_their_context_one() -> None:
    cluster = Cluster()
    first = cluster.stored_reply("n1", Put("carts", KEY, b"one"))
    second = cluster.stored_reply("n2", Put("carts", KEY, b"two"))
    assert (first.siblings, second.siblings) == (1, 2)
    for node in cluster.hosts:
        read = cluster.found(node, Get("carts", KEY, r=1))
        assert sorted(s.value for s in read.siblings) == [b"one", b"two"]
    third = cluster.stored_reply("n3", Put("carts", KEY, b"three", context=read.context))
    assert third.siblings == 1
    for node in cluster.hosts:
        assert [s.value for s in cluster.found(node, Get("carts", KEY, r=1)).siblings] == [b"three"]


def test_the_context_of_a_put_allows_the_next_one() -> None:
    cluster = Cluster()
    context = cluster.stored_reply("n1", Put("carts", KEY, b"one")).context
    assert cluster.stored_reply("n2", Put("carts", KEY, b"two", context=context)).siblings == 1


def test_a_write_with_an_old_context_keeps_what_it_did_not_see() -> None:
    cluster = Cluster()
    old = cluster.stored_reply("n1", Put("carts", KEY, b"one")).context
    cluster.stored_reply("n1", Put("carts", KEY, b"two", context=old))
    cluster.stored_reply("n1", Put("carts", KEY, b"three", context=old))
    assert sorted(s.value for s in cluster.found("n1", Get("carts", KEY)).siblings) == [b"three", b"two"]


def test_a_delete_without_context_deletes_what_is_there() -> None:
    cluster = Cluster()
    cluster.stored_reply("n1", Put("carts", KEY, b"one"))
    cluster.stored_reply("n2", Put("carts", KEY, b"two"))
    assert cluster.stored_reply("n3", Delete("carts", KEY)).siblings == 0
    found = cluster.found("n1", Get("carts", KEY))
    assert found.siblings == ()
    assert found.context, "a deleted key still has a history"


def test_a_delete_of_nothing_writes_nothing() -> None:
    cluster = Cluster()
    assert cluster.stored_reply("n1", Delete("carts", KEY)).siblings == 0
    assert cluster.stored("n1", "carts", KEY) is None


def test_a_concurrent_write_survives_a_delete() -> None:
    cluster = Cluster()
    context = cluster.stored_reply("n1", Put("carts", KEY, b"one")).context
    cluster.stored_reply("n2", Put("carts", KEY, b"two"))
    cluster.stored_reply("n3", Delete("carts", KEY, context=context))
    assert [s.value for s in cluster.found("n1", Get("carts", KEY)).siblings] == [b"two"]


def test_a_value_expires_by_the_wall_clock() -> None:
    cluster = Cluster()
    cluster.stored_reply("n1", Put("carts", KEY, b"v", ttl=60))
    assert cluster.found("n2", Get("carts", KEY)).siblings[0].expiry == WALL + 60_000
    cluster.move(59.0)
    assert cluster.found("n2", Get("carts", KEY)).siblings
    cluster.move(2.0)
    assert cluster.found("n2", Get("carts", KEY)).siblings == ()


def test_an_lww_bucket_keeps_only_the_last_write() -> None:
    cluster = Cluster(buckets=[BucketSettings("last", conflict=Conflict.LWW)])
    cluster.stored_reply("n1", Put("last", KEY, b"one"))
    cluster.move(1.0)
    assert cluster.stored_reply("n2", Put("last", KEY, b"two")).siblings == 1
    assert [s.value for s in cluster.found("n3", Get("last", KEY)).siblings] == [b"two"]


def test_with_one_dead_replica_the_quorum_still_serves_and_keeps_a_hint() -> None:
    cluster = Cluster()
    cluster.kill("n3")
    reply = cluster.stored_reply("n1", Put("carts", KEY, b"v", explain=True))
    assert reply.explain is not None
    assert (reply.explain.answered, reply.explain.hinted) == (("n1", "n2"), ("n3",))
    assert cluster.hints("n1") == {"n3": 1}
    cluster.revive("n3")
    assert cluster.hints("n1") == {}
    assert cluster.stored("n3", "carts", KEY) == cluster.stored("n1", "carts", KEY)


def test_with_two_dead_replicas_nothing_is_tried() -> None:
    cluster = Cluster()
    cluster.kill("n2", "n3")
    write, read = cluster.error("n1", Put("carts", KEY, b"v")), cluster.error("n1", Get("carts", KEY))
    assert isinstance(write, Unavailable)
    assert (write.required, write.alive, write.outcome) == (2, 1, Outcome.NOT_APPLIED)
    assert isinstance(read, Unavailable)
    assert cluster.stored("n1", "carts", KEY) is None
    assert cluster.stored_reply("n1", Put("carts", KEY, b"v", w=1)).siblings == 1


def test_an_unnoticed_dead_replica_times_the_write_out_with_unknown_outcome() -> None:
    cluster = Cluster()
    cluster.dead = {"n2", "n3"}
    error = cluster.error("n1", Put("carts", KEY, b"v", timeout=0.5))
    assert isinstance(error, WriteTimeout)
    assert (error.received, error.required, error.outcome) == (1, 2, Outcome.UNKNOWN)
    cluster = Cluster()
    cluster.dead = {"n2", "n3"}
    assert isinstance(cluster.error("n1", Get("carts", KEY, timeout=0.5)), ReadTimeout)


def test_sloppy_writes_reach_fallbacks_and_come_home() -> None:
    cluster = Cluster(5, [BucketSettings("sloppy", quorum=QuorumMode.SLOPPY)])
    primaries = cluster.replicas("sloppy", KEY)
    outsider = next(node for node in cluster.hosts if node not in primaries)
    cluster.kill(*primaries[1:])
    assert isinstance(cluster.error(outsider, Put("carts", _key_of(cluster, primaries), b"v")), Unavailable)
    cluster.stored_reply(outsider, Put("sloppy", KEY, b"v"))
    assert [s.value for s in cluster.found(primaries[0], Get("sloppy", KEY)).siblings] == [b"v"]
    cluster.revive(*primaries[1:])
    assert all(not cluster.hints(node) for node in cluster.hosts)
    assert len({cluster.stored(node, "sloppy", KEY) for node in primaries}) == 1


def _key_of(cluster: Cluster, primaries: tuple[str, ...]) -> bytes:
    """A key of the strict bucket with the same replicas."""
    keys = (b"key-%d" % i for i in range(10_000))
    return next(key for key in keys if set(cluster.replicas("carts", key)) == set(primaries))


def test_a_sloppy_write_is_taken_and_read_with_all_primaries_dead() -> None:
    cluster = Cluster(7, [BucketSettings("sloppy", quorum=QuorumMode.SLOPPY)])
    primaries = cluster.replicas("sloppy", KEY)
    cluster.kill(*primaries)
    one, two = cluster.live()[:2]
    context = cluster.stored_reply(one, Put("sloppy", KEY, b"one")).context
    cluster.stored_reply(one, Put("sloppy", KEY, b"two", context=context))
    assert [s.value for s in cluster.found(two, Get("sloppy", KEY, r=3)).siblings] == [b"two"]
    cluster.revive(*primaries)
    assert {cluster.stored(node, "sloppy", KEY) for node in primaries} != {None}
    assert len({cluster.stored(node, "sloppy", KEY) for node in primaries}) == 1


def test_a_fallback_that_gave_its_hints_away_mints_with_a_new_actor() -> None:
    """riak_kv#679 (BUGS 2): with the old actor the second write would erase the first, unseen."""
    cluster = Cluster(7, [BucketSettings("sloppy", quorum=QuorumMode.SLOPPY)])
    primaries = cluster.replicas("sloppy", KEY)
    outsider = next(node for node in cluster.hosts if node not in primaries)
    for value in (b"one", b"two"):
        cluster.kill(*primaries)
        cluster.stored_reply(outsider, Put("sloppy", KEY, value))
        cluster.revive(*primaries)
    found = cluster.found(primaries[0], Get("sloppy", KEY, r=3))
    assert sorted(s.value for s in found.siblings) == [b"one", b"two"]


def test_an_ack_waits_for_the_coordinators_own_disk() -> None:
    cluster = Cluster()
    cluster.stuck = {"n1"}
    number = cluster.start("n1", Put("carts", KEY, b"v", w=2, timeout=60.0))
    cluster.run()
    assert number not in cluster.hosts["n1"].replies
    cluster.stuck = set()
    cluster.run()
    assert number in cluster.hosts["n1"].replies


def test_an_ack_waits_for_w_disks() -> None:
    cluster = Cluster()
    cluster.stuck = {"n2", "n3"}
    number = cluster.start("n1", Put("carts", KEY, b"v", timeout=60.0))
    cluster.run()
    assert number not in cluster.hosts["n1"].replies
    cluster.stuck = {"n3"}
    cluster.run()
    assert number in cluster.hosts["n1"].replies


@pytest.mark.parametrize("r", [1, 2])
def test_a_read_does_not_show_what_a_crash_could_still_take_back(r: int) -> None:
    cluster = Cluster()
    cluster.stuck = {"n1", "n2", "n3"}
    cluster.start("n1", Put("carts", KEY, b"v", timeout=60.0))
    cluster.run()
    number = cluster.start("n2", Get("carts", KEY, r=r, timeout=60.0))
    cluster.run()
    assert number not in cluster.hosts["n2"].replies
    cluster.stuck = set()
    cluster.run()
    assert number in cluster.hosts["n2"].replies


def test_a_stale_replica_is_repaired_before_the_reply() -> None:
    cluster = Cluster()
    cluster.passes = lambda sender, to, message: not (isinstance(message, ReplicaWrite) and to == "n3")
    cluster.stored_reply("n1", Put("carts", KEY, b"v"))
    cluster.passes = lambda sender, to, message: True
    assert cluster.stored("n3", "carts", KEY) is None
    others = [node for node in cluster.replicas("carts", KEY) if node != "n3"]
    cluster.dead = {others[0]}
    found = cluster.found("n3", Get("carts", KEY, explain=True))
    assert [s.value for s in found.siblings] == [b"v"]
    assert found.explain is not None
    assert found.explain.repaired == ("n3",)
    assert cluster.stored("n3", "carts", KEY) == cluster.stored(others[1], "carts", KEY)


def test_a_slow_replica_is_not_waited_for() -> None:
    cluster = Cluster()
    cluster.stored_reply("n1", Put("carts", KEY, b"v"))
    asked = next(node for node in cluster.replicas("carts", KEY) if node != "n1")
    cluster.passes = lambda sender, to, message: not (isinstance(message, ReplicaRead) and to == asked)
    began = cluster.now
    number = cluster.start("n1", Get("carts", KEY))
    cluster.run()
    cluster.move(0.3)
    assert number in cluster.hosts["n1"].replies
    assert cluster.now - began < 0.5


def test_a_replica_that_does_not_answer_gets_a_hint_and_then_the_write() -> None:
    cluster = Cluster()
    cluster.passes = lambda sender, to, message: not (isinstance(message, ReplicaWrite) and to == "n3")
    cluster.stored_reply("n1", Put("carts", KEY, b"v"))
    cluster.move(2.5)
    assert cluster.hints("n1") == {"n3": 1}
    cluster.passes = lambda sender, to, message: True
    cluster.move(10.0)
    assert cluster.hints("n1") == {}
    assert cluster.stored("n3", "carts", KEY) == cluster.stored("n1", "carts", KEY)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (Get("Bad Bucket", KEY), "bucket"),
        (Get("", KEY), "bucket"),
        (Get("carts", b""), "key"),
        (Get("carts", b"k" * 4097), "key"),
        (Put("carts", KEY, b"v" * (1024 * 1024 + 1)), "value"),
        (Put("carts", KEY, b"v", context=SignedContext(b"c" * 16385)), "context"),
        (Put("carts", KEY, b"v", context=SignedContext(b"nonsense")), "context"),
        (Put("carts", KEY, b"v", w=4), "w"),
        (Get("carts", KEY, r=4), "r"),
    ],
)
def test_what_is_invalid_changes_nothing(call: ClientRequest, field: str) -> None:
    cluster = Cluster()
    error = cluster.error("n1", call)
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert cluster.stored("n1", "carts", KEY) is None


def test_the_limits_themselves_are_allowed() -> None:
    cluster = Cluster()
    key, value = b"k" * 4096, b"v" * (1024 * 1024)
    cluster.stored_reply("n1", Put("carts", key, value))
    assert cluster.found("n2", Get("carts", key)).siblings[0].value == value


def test_the_context_of_another_key_is_refused() -> None:
    cluster = Cluster()
    context = cluster.stored_reply("n1", Put("carts", KEY, b"v")).context
    assert isinstance(cluster.error("n1", Put("carts", b"user:2", b"v", context=context)), InvalidRequest)


def test_another_epoch_is_refused() -> None:
    assert isinstance(Cluster().error("n1", Get("carts", KEY, epoch=9)), StaleRing)


def test_the_hundred_and_first_sibling_is_refused_and_a_context_still_helps() -> None:
    cluster = Cluster()
    for i in range(100):
        cluster.stored_reply("n1", Put("carts", KEY, b"%d" % i))
    assert isinstance(cluster.error("n1", Put("carts", KEY, b"more")), TooManySiblings)
    context = cluster.found("n1", Get("carts", KEY)).context
    assert cluster.stored_reply("n1", Put("carts", KEY, b"all", context=context)).siblings == 1


def test_for_a_sibling_too_many_nothing_is_minted(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, minted = Cluster(settings=NodeSettings(limits=Limits(siblings=1))), list[object]()
    cluster.stored_reply("n1", Put("carts", KEY, b"v"))
    monkeypatch.setattr(Mint, "_sibling", lambda *arguments: minted.append(arguments))
    assert isinstance(cluster.error("n1", Put("carts", KEY, b"more")), TooManySiblings)
    assert minted == []


@pytest.mark.parametrize("large", [False, True])
def test_siblings_that_nobody_sees_any_more_give_way_to_a_new_value(large: bool) -> None:
    limits = Limits(version=30_000) if large else Limits()
    cluster = Cluster(settings=NodeSettings(limits=limits))
    size, count = (2000, 14) if large else (1, 99)
    lasting = cluster.stored_reply("n1", Put("carts", KEY, b"lasting"))
    for _ in range(count):
        cluster.stored_reply("n1", Put("carts", KEY, bytes(size), ttl=60))
    refused = cluster.error("n1", Put("carts", KEY, bytes(size)))
    assert isinstance(refused, VersionTooLarge if large else TooManySiblings)
    cluster.move(61.0)
    new = b"new".ljust(size)
    assert cluster.stored_reply("n2", Put("carts", KEY, new)).siblings == 2
    for node in ("n1", "n2", "n3"):
        assert {s.value for s in cluster.found(node, Get("carts", KEY, r=3)).siblings} == {b"lasting", new}
    assert cluster.stored_reply("n3", Put("carts", KEY, b"over", context=lasting.context)).siblings == 2


def test_a_node_that_is_no_replica_passes_requests_on() -> None:
    cluster = Cluster(5)
    outsider = next(node for node in cluster.hosts if node not in cluster.replicas("carts", KEY))
    reply = cluster.stored_reply(outsider, Put("carts", KEY, b"v", explain=True))
    assert reply.explain is not None
    assert reply.explain.coordinator in cluster.replicas("carts", KEY)
    assert isinstance(cluster.error(outsider, Put("carts", b"", b"v")), InvalidRequest)
    assert isinstance(
        cluster.error(outsider, Put("carts", KEY, b"v", context=SignedContext(b"bad"))), InvalidRequest
    )


def test_versions_of_one_key_in_one_frame_are_reconciled() -> None:
    cluster = Cluster(3)
    first, *others = cluster.replicas("carts", KEY)
    host = cluster.hosts[first]
    cluster.passes = lambda _sender, _to, message: not isinstance(message, ReplicaWrite)
    for value in (b"book", b"pen"):
        for other in others:
            cluster.start(other, Put("carts", KEY, value))
    frame = [
        message
        for other in others
        for to, message in cluster.hosts[other].sent
        if to == first and isinstance(message, ReplicaWrite)
    ]
    assert len(frame) == 4
    before = host.engine.last_lsn
    host.node.on_frame(others[0], frame, cluster.instant)
    assert host.engine.last_lsn == before + 1
    acks = [message for _, message in host.sent if isinstance(message, WriteAck)]
    assert acks == [], "nothing is durable yet"
    host.engine.sync()
    host.node.on_durable(host.engine.durable_lsn, cluster.instant)
    acks = [message for _, message in host.sent if isinstance(message, WriteAck)]
    assert acks == [WriteAck(tuple(message.number for message in frame))]
    stored = host.engine.get(frame[0].key)
    assert stored is not None
    assert (
        sorted(s.value or b"" for s in decode_version(EncodedVersion(stored)).siblings)
        == [b"book"] * 2 + [b"pen"] * 2
    )


def test_a_frame_that_the_disk_has_no_room_for_is_refused_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(3)
    host = cluster.hosts["n1"]

    def full(_batch: object) -> int:
        raise StorageFull("no space left on the disk")

    monkeypatch.setattr(host.engine, "write", full)
    version = encode_version(Version((Dot("a", 1),), (Sibling(Dot("a", 1), b"v"),)))
    frame = [
        ReplicaWrite(number, 1, data_key(token("b", b"k%d" % number), "b", b"k%d" % number), version)
        for number in (1, 2)
    ]
    host.node.on_frame("n2", frame, cluster.instant)
    refused = [message.number for _, message in host.sent if isinstance(message, Refusal)]
    assert refused == [1, 2]
    assert not any(isinstance(message, WriteAck) for _, message in host.sent)


@pytest.mark.parametrize(
    ("bucket", "delete"),
    [
        (BucketSettings("carts", r=3, w=1), Delete("carts", KEY)),
        (BucketSettings("carts", r=2, w=2), Delete("carts", KEY, w=1)),
        (BucketSettings("carts", r=1, w=2), Delete("carts", KEY, r=3, w=1)),
    ],
    ids=["the bucket's r", "the bucket's r, a w of its own", "an r of its own"],
)
@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
def test_a_delete_without_a_context_sees_what_a_read_of_r_replicas_sees(
    bucket: BucketSettings, delete: ClientRequest, node: str
) -> None:
    """It read with w: an acknowledged value that this node had not got yet stayed in place."""
    cluster = Cluster(3, [bucket], settings=NodeSettings(anti_entropy=NEVER, quorum=WITHOUT_HINTS))
    acknowledged_by = {"n1", "n2"} if bucket.w == 2 else {"n1"}
    writer = min(acknowledged_by - {node}, default="n1")
    cluster.passes = lambda _, to, message: not isinstance(message, ReplicaWrite) or to in acknowledged_by
    cluster.stored_reply(writer, Put("carts", KEY, b"v"))
    cluster.move(10.0)
    cluster.passes = lambda sender, to, message: True
    assert cluster.stored_reply(node, delete).siblings == 0
    assert cluster.found("n2", Get("carts", KEY, r=3)).siblings == ()


def test_a_delete_needs_the_replicas_of_both_its_read_and_its_write() -> None:
    cluster = Cluster(3, [BucketSettings("carts", r=3, w=1)])
    context = cluster.stored_reply("n1", Put("carts", KEY, b"v")).context
    cluster.kill("n3")
    error = cluster.error("n1", Delete("carts", KEY))
    assert isinstance(error, Unavailable)
    assert (error.required, error.alive) == (3, 2)
    assert cluster.stored_reply("n1", Delete("carts", KEY, context)).siblings == 0, "it reads nothing"


@pytest.mark.parametrize(
    "call", [Delete("carts", KEY, r=4), Delete("carts", KEY, w=4), Get("carts", KEY, r=4)]
)
def test_more_replicas_than_there_are_cannot_be_waited_for(call: ClientRequest) -> None:
    error = Cluster().error("n1", call)
    assert isinstance(error, InvalidRequest)
    assert error.field == ("w" if isinstance(call, WriteRequest) and call.w else "r")


def test_a_node_that_does_not_wait_for_its_disk_acknowledges_and_shows_at_once() -> None:
    cluster = Cluster(options=Options(durability=Durability.NONE))
    cluster.stuck = set(cluster.hosts)
    number = cluster.start("n1", Put("carts", KEY, b"v", w=3))
    cluster.run()
    assert isinstance(cluster.hosts["n1"].replies[number], Stored)
    number = cluster.start("n2", Get("carts", KEY, r=3))
    cluster.run()
    found = cluster.hosts["n2"].replies[number]
    assert isinstance(found, Found)
    assert [sibling.value for sibling in found.siblings] == [b"v"]


def test_a_write_is_later_than_all_that_it_replaces_whatever_the_clocks_say() -> None:
    """Within what clocks may differ by: who orders by time would take the old one for the newest."""
    cluster = Cluster()
    later = (WALL + 60_000) << 16
    dots = (Dot("a", 1), Dot("b", 1))
    siblings = (Sibling(dots[0], b"early", WALL << 16), Sibling(dots[1], b"late", later))
    internal = data_key(token("carts", KEY), "carts", KEY)
    for host in cluster.hosts.values():
        host.node.base.local.store(internal, encode_version(Version(dots, siblings)), "")
        host.sync_wanted = True
    cluster.run()
    context = cluster.found("n1", Get("carts", KEY)).context
    cluster.stored_reply("n1", Put("carts", KEY, b"new", context))
    stored = cluster.stored("n1", "carts", KEY)
    assert stored is not None
    (sibling,) = decode_version(EncodedVersion(stored)).siblings
    assert sibling.time > later
