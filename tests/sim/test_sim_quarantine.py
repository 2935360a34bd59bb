"""A damaged replica: what is quarantined is neither answered nor forgotten, and comes back (BUGS 13)."""

from __future__ import annotations

from itertools import count

import pytest

from kvstore.config import BucketSettings, QuorumMode
from kvstore.errors import Corruption, UnsupportedFormat
from kvstore.lsm import Engine
from kvstore.node.node import Node
from kvstore.protocol.client import ClientRequest, Failed, Found, Stored
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.host import Host
from kvstore.versions import (
    Dot,
    EncodedVersion,
    InternalKey,
    Sibling,
    SignedContext,
    Version,
    decode_version,
    encode_version,
)
from tests.plain import Delete, Get, Put, data_key, token

KEYS = [b"k%d" % i for i in range(12)]
BUCKETS = (BucketSettings("carts", r=1),)


def node(host: Host) -> Node:
    assert host.node
    return host.node


class Damaged:
    """Three nodes hold all keys; a bit of n1's newest table has flipped, and n1 is down.

    It is the only one, unless it is not `compacted`: then another holds what was overwritten.
    """

    def __init__(self, seed: int = 1, stale: str = "", compacted: bool = True) -> None:
        self.cluster = cluster = SimulatedCluster(seed, buckets=BUCKETS)
        cluster.start()
        cluster.run(1.0)
        for key in KEYS:
            self.put("n1", key, b"old")
        if stale:
            cluster.crash(stale)
        if not compacted:
            self.engine.flush()
        for key in KEYS:
            self.overwrite("n1", key, b"new")
        cluster.run(1.0)
        self.engine.flush()
        if compacted:
            self.engine.maintenance.compact()
        cluster.crash("n1")
        self.table = max(name for name in self.host.machine.disk.list("data") if name.endswith(".sst"))
        self.host.machine.disk.corrupt(f"data/{self.table}", 10, 1)

    @property
    def host(self) -> Host:
        return self.cluster.hosts["n1"]

    @property
    def engine(self) -> Engine:
        return self.host.engine

    def put(self, at: str, key: bytes, value: bytes, context: bytes = b"") -> None:
        reply = self.cluster.call(at, Put("carts", key, value, SignedContext(context)))
        assert isinstance(reply, Stored), reply

    def get(self, at: str, key: bytes, r: int = 1) -> list[bytes]:
        reply = self.cluster.call(at, Get("carts", key, r=r))
        assert isinstance(reply, Found), reply
        return [sibling.value for sibling in reply.siblings]

    def overwrite(self, at: str, key: bytes, value: bytes) -> None:
        reply = self.cluster.call(at, Get("carts", key))
        assert isinstance(reply, Found), reply
        self.put(at, key, value, reply.context)

    def unreadable(self) -> list[bytes]:
        found = []
        for key in KEYS:
            try:
                self.cluster.stored("n1", "carts", key)
            except Corruption:
                found.append(key)
        return found

    def wait_until_whole(self) -> None:
        host = self.host
        for _ in range(100):
            if (
                host.up
                and not self.engine.quarantine.fences
                and self.table not in host.machine.disk.list("data")
            ):
                return
            self.cluster.run(0.2)
        raise AssertionError(
            f"{self.engine.quarantine.fences} wait for {host.shell.status().refetching_from}"
        )


def test_what_was_damaged_is_refetched_and_the_fence_is_lifted() -> None:
    damaged = Damaged()
    damaged.cluster.restart("n1")
    lost = damaged.unreadable()
    assert lost
    damaged.cluster.run(0.0)
    damaged.wait_until_whole()
    assert damaged.unreadable() == []
    counters = damaged.host.shell.status().counters
    assert (counters.refetched, counters.quarantines) == (len(lost), 1)
    assert damaged.host.shell.status().engine.quarantined == 0
    damaged.cluster.run(20.0)
    assert damaged.cluster.roots_equal()
    assert damaged.cluster.trees_match_disks()
    for name in ("n2", "n3"):
        damaged.cluster.crash(name)
    damaged.cluster.run(10.0)
    assert [damaged.get("n1", key) for key in KEYS] == [[b"new"]] * len(KEYS)


def test_what_was_damaged_may_be_more_than_a_batch_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.sim.cluster.PARTITIONS", 4)  # several keys in each
    damaged = Damaged()
    monkeypatch.setattr("kvstore.lsm.limits.KEY_BYTES", 100)  # so that sizes are looked at
    monkeypatch.setattr("kvstore.lsm.limits.BATCH_BYTES", 130)
    damaged.cluster.restart("n1")
    assert len(damaged.unreadable()) > 4
    damaged.cluster.run(0.0)
    damaged.wait_until_whole()
    assert damaged.unreadable() == []


def test_a_fenced_replica_does_not_answer_with_r_1_and_another_one_does() -> None:
    damaged = Damaged(stale="n2")
    cluster = damaged.cluster
    cluster.split(["n2"])  # it cannot be asked, so nothing is lifted
    cluster.restart("n2")
    cluster.restart("n1")
    cluster.run(8.0)
    lost = damaged.unreadable()
    assert lost
    assert damaged.host.shell.status().refetching_from == ("n2",)
    for key in lost:
        assert damaged.get("n1", key) == [b"new"], "n3 says it"
    cluster.crash("n3")
    reply = cluster.call("n1", Get("carts", lost[0]))
    assert not isinstance(reply, Found), "nobody is left who knows, so nobody says 'not found'"
    cluster.restart("n3")
    cluster.heal()
    damaged.wait_until_whole()
    assert {tuple(damaged.get("n1", key, r=3)) for key in KEYS} == {(b"new",)}


def test_only_stale_replicas_are_no_reason_to_lift_a_fence() -> None:
    """n2 missed the last write: if its answer sufficed, n1 would show with R=1 what was replaced."""
    damaged = Damaged(stale="n2")
    cluster = damaged.cluster
    cluster.restart("n2")
    cluster.split(["n3"])
    cluster.restart("n1")
    lost = damaged.unreadable()
    cluster.run(20.0)
    assert damaged.unreadable() == lost
    cluster.crash("n1")  # nothing of what n2 has told may be on the disk now
    cluster.restart("n1")
    assert damaged.unreadable() == lost
    cluster.heal()
    damaged.wait_until_whole()
    assert {tuple(damaged.get(at, key)) for at in ("n1", "n3") for key in KEYS} == {(b"new",)}


@pytest.mark.parametrize("blind", [True, False])
def test_a_write_through_a_damaged_replica_replaces_only_what_it_saw(blind: bool) -> None:
    """riak_kv#679: n1 has forgotten which of its dots are on the key."""
    damaged = Damaged()
    cluster = damaged.cluster
    cluster.network.cut |= {("n1", "n2"), ("n2", "n1")}
    cluster.restart("n1")
    cluster.run(8.0)
    key = damaged.unreadable()[0]
    context = b""
    if not blind:
        reply = cluster.call("n3", Get("carts", key))
        assert isinstance(reply, Found)
        context = reply.context
    damaged.put("n1", key, b"written", context)
    cluster.heal()
    damaged.wait_until_whole()
    damaged.put("n1", key, b"later")
    cluster.run(5.0)
    expected = {b"written", b"later"} | ({b"new"} if blind else set())
    for at in cluster.hosts:
        assert set(damaged.get(at, key, r=3)) == expected


def test_a_dot_that_only_a_damaged_block_knew_is_not_minted_over() -> None:
    """riak_kv#679: n1 loses a value with W=1, and writes again before a hint with it has come home."""
    cluster = SimulatedCluster(1, nodes=5, buckets=(BucketSettings("carts", w=1),))
    cluster.start()
    cluster.run(1.0)
    key = next(k for k in (b"k%d" % i for i in count()) if cluster.replicas("carts", k)[0] == "n1")
    _, *others = cluster.replicas("carts", key)
    fallbacks = sorted(cluster.hosts.keys() - {"n1", *others})
    assert isinstance(cluster.call("n1", Put("carts", key, b"first", w=3)), Stored)
    for name in others:
        cluster.crash(name)
    cluster.run(8.0)
    assert isinstance(cluster.call("n1", Put("carts", key, b"second")), Stored)
    cluster.run(5.0)
    cluster.network.cut |= {(a, b) for a in fallbacks for b in others}
    host = cluster.hosts["n1"]
    host.engine.flush()
    host.engine.maintenance.compact()
    (table,) = [name for name in host.machine.disk.list("data") if name.endswith(".sst")]
    host.machine.disk.corrupt(f"data/{table}", 10, 1)
    for name in others:
        cluster.restart(name)
    cluster.call("n1", Get("carts", key, r=1))
    cluster.run(10.0)
    assert not host.engine.quarantine.fences
    found = cluster.call("n1", Get("carts", key, r=3))
    assert isinstance(found, Found)
    assert [sibling.value for sibling in found.siblings] == [b"first"]
    assert isinstance(cluster.call("n1", Put("carts", key, b"third", found.context)), Stored)
    cluster.heal()
    cluster.run(20.0)
    found = cluster.call("n1", Get("carts", key, r=3))
    assert isinstance(found, Found)
    assert {sibling.value for sibling in found.siblings} == {b"second", b"third"}


def test_a_delete_without_a_context_goes_to_a_replica_that_can_read() -> None:
    damaged = Damaged()
    cluster = damaged.cluster
    cluster.network.cut |= {("n1", "n2"), ("n2", "n1")}
    cluster.restart("n1")
    cluster.run(8.0)
    key = damaged.unreadable()[0]
    assert isinstance(cluster.call("n1", Delete("carts", key)), Stored)
    cluster.heal()
    damaged.wait_until_whole()
    assert damaged.get("n1", key, r=3) == []


def test_a_single_replica_never_forgets_that_something_was_there() -> None:
    """n=1: nobody has it, so nobody can say. That is an error for ever, and not 'not found'."""
    cluster = SimulatedCluster(1, buckets=(BucketSettings("single", n=1, r=1, w=1),))
    cluster.start()
    cluster.run(1.0)
    key = next(k for k in (b"k%d" % i for i in count()) if cluster.replicas("single", k) == ("n1",))
    assert isinstance(cluster.call("n1", Put("single", key, b"v")), Stored)
    host = cluster.hosts["n1"]
    host.engine.flush()
    host.engine.maintenance.compact()
    cluster.crash("n1")
    path = next(f"data/{name}" for name in host.machine.disk.list("data") if name.endswith(".sst"))
    host.machine.disk.corrupt(path, 10, 1)
    cluster.restart("n1")
    calls: tuple[ClientRequest, ...] = (Get("single", key), Put("single", key, b"w"), Get("single", key))
    for call in calls:
        cluster.run(10.0)
        reply = cluster.call("n1", call)
        assert isinstance(reply, Failed)
        assert isinstance(reply.error, Corruption)
    assert host.shell.status().engine.quarantined == 1


def five_nodes() -> SimulatedCluster:
    """Five nodes with 60 acknowledged keys, in tables and logs."""
    cluster = SimulatedCluster(1, nodes=5, buckets=BUCKETS)
    cluster.start()
    cluster.run(1.0)
    for i in range(60):
        put_somewhere(cluster, i, b"v")
    cluster.run(2.0)
    return cluster


def put_somewhere(cluster: SimulatedCluster, i: int, value: bytes) -> None:
    at = sorted(cluster.hosts)[i % 5]
    if cluster.hosts[at].up:
        reply = cluster.call(at, Put("carts", b"k%d" % i, value.ljust(64, b".")))
        assert isinstance(reply, Stored), reply


def wait_for_links(cluster: SimulatedCluster) -> None:
    """A node that has just started has none: what it sends is dropped, and its writes time out."""
    while not cluster.connected():
        cluster.run(0.01)


def check_all_is_there(cluster: SimulatedCluster, values: dict[int, set[bytes]]) -> None:
    """Everything, at every replica by itself, on equal disks."""
    cluster.run(30.0)
    assert cluster.roots_equal()
    assert cluster.trees_match_disks()
    for i in range(60):
        for at in cluster.replicas("carts", b"k%d" % i):
            reply = cluster.call(at, Get("carts", b"k%d" % i, r=1))
            assert isinstance(reply, Found), reply
            assert {sibling.value.rstrip(b".") for sibling in reply.siblings} == values[i]


@pytest.mark.parametrize("kind", [".sst", ".wal", "MANIFEST", "CURRENT"])
def test_bugs_13_flipped_bits_on_one_of_five_nodes_lose_nothing(kind: str) -> None:
    """A damaged table comes back by itself; with a damaged log the node refuses to start, and is wiped."""
    cluster = five_nodes()
    host = cluster.hosts["n2"]
    cluster.crash("n2")
    files = [f"data/{name}" for name in host.machine.disk.list("data") if kind in name]
    assert files
    for path in files:
        for part in range(8):
            host.machine.disk.corrupt(path, (host.machine.disk.size(path) - 1) * part // 8, 1)
    host.start()
    if kind == ".sst":
        assert host.up
    else:
        assert not host.up
        assert isinstance(host.ended_by, Corruption | UnsupportedFormat)
        assert kind in str(host.ended_by)
        host.wipe()
        host.start()
    wait_for_links(cluster)
    values = {i: {b"v"} for i in range(60)}
    for i in range(0, 60, 7):
        put_somewhere(cluster, i, b"meanwhile")  # without context: beside what is there
        values[i].add(b"meanwhile")
    check_all_is_there(cluster, values)
    assert not host.engine.quarantine.fences
    assert host.engine.tables.scrub() == 0


def test_wiping_one_disk_brings_every_version_back_and_writes_meanwhile_lose_nothing() -> None:
    cluster = five_nodes()
    cluster.crash("n2")
    cluster.hosts["n2"].wipe()
    cluster.restart("n2")
    wait_for_links(cluster)
    values = {i: {b"v"} for i in range(60)}
    for i in range(60):  # through n2 among others, which has not got anything back yet
        at = "n2" if i % 2 else "n3"
        reply = cluster.call(at, Put("carts", b"k%d" % i, b"meanwhile"))
        assert isinstance(reply, Stored), reply
        values[i].add(b"meanwhile")
    check_all_is_there(cluster, values)
    assert cluster.hosts["n2"].node
    assert cluster.hosts["n2"].shell.status().anti_entropy.unproven == 0


def internal(key: bytes) -> bytes:
    return data_key(token("carts", key), "carts", key)


def test_what_the_others_hold_is_reconciled_before_it_takes_the_place_of_what_was_damaged() -> None:
    """Two replicas hold what the other lacks: the second answer must not replace the first."""
    damaged = Damaged()
    for name in ("n2", "n3"):
        for i, key in enumerate(KEYS, 1):
            dot = Dot(f"written through {name}", i)
            version = Version((dot,), (Sibling(dot, name.encode()),))
            node(damaged.cluster.hosts[name]).base.local.store(
                InternalKey(internal(key)), encode_version(version)
            )
    damaged.cluster.restart("n1")
    damaged.cluster.run(0.0)
    lost = damaged.unreadable()
    assert lost
    damaged.wait_until_whole()
    for key in lost:
        version = decode_version(EncodedVersion(damaged.cluster.stored("n1", "carts", key) or b""))
        assert {sibling.value for sibling in version.siblings} == {b"new", b"n2", b"n3"}, key


def test_a_fence_stays_until_what_was_refetched_is_durable() -> None:
    """A crash would take it back, and what lies beneath in older tables would be shown as the newest."""
    damaged = Damaged()
    damaged.cluster.restart("n1")
    damaged.host.machine.slow_down(3.0)
    damaged.cluster.run(0.0)
    assert damaged.unreadable()
    base = node(damaged.host).base
    replica, actors = base.local.replica, base.mint._actors
    before = actors._generation
    waited = False
    for _ in range(2000):
        if any(replica.unsynced(InternalKey(internal(key))) for key in KEYS):
            waited = True
            assert actors._generation != before, "what is back can be written to, and a dot may be forgotten"
        if not damaged.engine.quarantine.fences:
            break
        damaged.cluster.run(0.01)
    assert waited, "it was written while the fence was up"
    assert not damaged.engine.quarantine.fences
    assert not any(replica.unsynced(InternalKey(internal(key))) for key in KEYS)


def without_primaries() -> tuple[SimulatedCluster, str]:
    """All replicas of `k` in a sloppy bucket are dead: what is written through the fallback becomes hints."""
    cluster = SimulatedCluster(1, 5, (BucketSettings("sloppy", quorum=QuorumMode.SLOPPY),))
    cluster.start()
    cluster.run(1.0)
    primaries = cluster.replicas("sloppy", b"k")
    fallback = next(name for name in cluster.hosts if name not in primaries)
    for name in primaries:
        cluster.crash(name)
    cluster.run(15.0)
    return cluster, fallback


def test_a_node_takes_new_actors_when_a_fence_is_lifted_behind_which_there_was_nothing_to_refetch() -> None:
    """What only a damaged hint knew is forgotten: the dots in it must not be made again."""
    cluster, fallback = without_primaries()
    for _ in range(5):
        assert isinstance(cluster.call(fallback, Put("sloppy", b"k", b"v" * 400)), Stored)
    host = cluster.hosts[fallback]
    host.engine.flush()
    host.engine.maintenance.compact()
    (table,) = host.engine.tables.levels
    cluster.crash(fallback)
    host.machine.disk.corrupt(table.path, 10, 1)
    cluster.restart(fallback)
    actors = node(host).base.mint._actors
    before = actors._generation
    cluster.run(1.0)
    host.engine.tables.scrub()
    cluster.run(10.0)
    status = host.shell.status()
    assert (status.counters.quarantines > 0, status.engine.quarantined, status.counters.refetched) == (
        True,
        0,
        0,
    )
    assert actors._generation != before
