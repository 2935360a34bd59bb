"""Writes by who has seen his own last write, where others have written beside it."""

from __future__ import annotations

import pytest

from kvstore.config import BucketSettings
from kvstore.contexts import MOST_DOTS, Keyring, decode_context, encode_context, read_context
from kvstore.protocol.client import Stored
from kvstore.protocol.peer import ReplicaWrite
from kvstore.versions import Dot, InternalKey, SignedContext
from tests.plain import Delete, Get, Put
from tests.unit.quorum_cluster import Cluster

KEY = b"k"


def put(cluster: Cluster, node: str, value: bytes, after: Stored | None = None, w: int = 0) -> Stored:
    context = after.context if after else SignedContext(b"")
    return cluster.stored_reply(node, Put("carts", KEY, value, context, w=w))


def put_without(cluster: Cluster, node: str, value: bytes) -> Stored:
    """A put that `node` hears nothing of."""
    cluster.passes = lambda _sender, to, message: to != node or not isinstance(message, ReplicaWrite)
    stored = cluster.start("n1", Put("carts", KEY, value))
    cluster.run()
    cluster.passes = lambda _sender, _to, _message: True
    reply = cluster.hosts["n1"].replies[stored]
    assert isinstance(reply, Stored)
    return reply


def values(cluster: Cluster, node: str = "n1") -> list[bytes]:
    return sorted(sibling.value for sibling in cluster.found(node, Get("carts", KEY)).siblings)


@pytest.mark.parametrize("nodes", ["n1", "n1 n2 n3"])
def test_a_writer_replaces_his_own_last_write_and_nobody_elses(nodes: str) -> None:
    cluster = Cluster(3)
    coordinators = nodes.split()
    put(cluster, "n1", b"theirs, seen by nobody")
    mine = put(cluster, "n1", b"mine 0")
    for i in range(1, 10):
        put(cluster, coordinators[0], b"theirs %d" % i)
        mine = put(cluster, coordinators[i % len(coordinators)], b"mine %d" % i, mine)
        assert mine.siblings == 2 + i
    assert values(cluster) == sorted(
        [b"mine 9", b"theirs, seen by nobody", *(b"theirs %d" % i for i in range(1, 10))]
    )


def test_two_that_have_seen_the_same_both_survive() -> None:
    cluster = Cluster(3)
    first = put(cluster, "n1", b"first")
    put(cluster, "n1", b"beside it")
    mine, theirs = put(cluster, "n1", b"mine", first), put(cluster, "n1", b"theirs", first)
    assert values(cluster) == [b"beside it", b"mine", b"theirs"]
    put(cluster, "n1", b"mine again", mine)
    put(cluster, "n1", b"theirs again", theirs)
    assert values(cluster) == [b"beside it", b"mine again", b"theirs again"]


def test_a_coordinator_that_lacks_the_write_reads_it_first() -> None:
    cluster = Cluster(3)
    put(cluster, "n1", b"theirs")
    mine = put_without(cluster, "n3", b"mine 1")
    after = put(cluster, "n3", b"mine 2", mine)
    assert after.siblings == 2
    assert len(read_context(after.context).dots) == 1
    for node in cluster.hosts:
        assert values(cluster, node) == [b"mine 2", b"theirs"]


def test_who_deletes_his_own_last_write_leaves_those_of_others() -> None:
    cluster = Cluster(3)
    put(cluster, "n1", b"theirs")
    mine = put(cluster, "n1", b"mine")
    cluster.stored_reply("n2", Delete("carts", KEY, mine.context))
    assert values(cluster) == [b"theirs"]


def test_what_no_replica_in_reach_knows_stays_and_is_named_again_until_it_is_replaced() -> None:
    cluster = Cluster(3, [BucketSettings("carts", r=1, w=1)])
    put(cluster, "n1", b"theirs")
    mine = put_without(cluster, "n3", b"mine 1")
    cluster.dead.update({"n1", "n2"})
    mine = put(cluster, "n3", b"mine 2", mine)
    assert len(read_context(mine.context).dots) == 2
    cluster.dead.clear()
    cluster.move(60.0)
    assert values(cluster) == [b"mine 1", b"mine 2", b"theirs"]
    mine = put(cluster, "n1", b"mine 3", mine)
    assert len(read_context(mine.context).dots) == 1
    assert values(cluster) == [b"mine 3", b"theirs"]


def test_of_more_writes_than_a_context_may_name_the_last_are_kept() -> None:
    dots = tuple(Dot("a", i) for i in range(1, 2 * MOST_DOTS))
    keyring = Keyring([bytes(16)])
    signed = encode_context((), InternalKey(b"place"), keyring, dots)
    assert decode_context(signed, InternalKey(b"place"), keyring).dots == dots[-MOST_DOTS:]
