"""Two values under one dot: no honest node makes them, and replicas that hold them have to become equal."""

from __future__ import annotations

import pytest

from kvstore.config import BucketSettings, Conflict
from kvstore.protocol.peer import ReplicaWrite
from kvstore.versions import Dot, EncodedVersion, InternalKey, Sibling, Version, encode_version
from tests.plain import Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster

DOT = Dot("x.0.abc", 5)
KEY = b"k"
INTERNAL = InternalKey(data_key(token("carts", KEY), "carts", KEY))


def forged(value: bytes | None) -> EncodedVersion:
    return encode_version(Version((DOT,), (Sibling(DOT, value, 7),)))


def differing(*values: bytes | None, conflict: Conflict = Conflict.SIBLINGS) -> Cluster:
    """Three nodes, each of which a peer has sent another value."""
    cluster = Cluster(buckets=[BucketSettings("carts", conflict=conflict)])
    for name, value in zip(cluster.hosts, values, strict=True):
        sender = "n2" if name == "n1" else "n1"
        frame = [ReplicaWrite(1, 1, INTERNAL, forged(value), background=True)]
        cluster.hosts[name].node.on_frame(sender, frame, cluster.instant)
    cluster.run()
    return cluster


def held(cluster: Cluster) -> list[bytes]:
    return [cluster.contents(name)[INTERNAL] for name in cluster.hosts]


@pytest.mark.parametrize("conflict", Conflict)
@pytest.mark.parametrize("values", [(b"a", b"b", b"c"), (b"c", b"b", b"a"), (b"a", None, None)])
def test_a_repair_makes_replicas_equal_and_ends(values: tuple[bytes | None, ...], conflict: Conflict) -> None:
    cluster = differing(*values, conflict=conflict)
    assert len(set(held(cluster))) > 1
    cluster.move(1.0)
    for host in cluster.hosts.values():
        host.node.repair_now(cluster.instant)
    cluster.move(20.0)
    assert not any(host.status().anti_entropy.wanted for host in cluster.hosts.values())
    assert set(held(cluster)) == {forged(max(value for value in values if value is not None))}


def test_a_read_repairs_them_and_a_write_replaces_what_it_saw() -> None:
    cluster = differing(b"a", b"b", b"c")
    found = cluster.found("n1", Get("carts", KEY, r=3))
    assert [sibling.value for sibling in found.siblings] == [b"c"]
    assert set(held(cluster)) == {forged(b"c")}
    assert cluster.stored_reply("n2", Put("carts", KEY, b"new", found.context, w=3)).siblings == 1
    assert [sibling.value for sibling in cluster.found("n3", Get("carts", KEY, r=3)).siblings] == [b"new"]
