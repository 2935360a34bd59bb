"""Named courses of events: promises of the README and rows of the list of defects that broke others."""

from __future__ import annotations

from functools import partial

import pytest

from kvstore.config import AntiEntropySettings, BucketSettings, QuorumMode
from kvstore.errors import Unavailable, WriteTimeout
from kvstore.lsm import Fate
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Failed, Found, Reply, Stored
from kvstore.sim.checker import Violation
from kvstore.sim.cluster import SETTINGS, SimulatedCluster
from kvstore.versions import SignedContext
from tests.plain import Get, Put
from tests.sim import planted

SLOPPY = BucketSettings("sloppy", quorum=QuorumMode.SLOPPY)
KEY = b"user:1"
HINTS_ALONE = NodeSettings(anti_entropy=AntiEntropySettings(interval=float("inf")))


def started(nodes: int = 3, seed: int = 1, settings: NodeSettings = SETTINGS) -> SimulatedCluster:
    cluster = SimulatedCluster(seed, nodes, [SLOPPY], settings)
    cluster.start()
    cluster.run(1.0)
    return cluster


def values(reply: Reply | None) -> list[bytes]:
    assert isinstance(reply, Found), reply
    return sorted(sibling.value for sibling in reply.siblings)


def context(reply: Reply | None) -> bytes:
    assert isinstance(reply, Found | Stored), reply
    return reply.context


def test_two_clients_unseen_leave_two_siblings_on_every_replica_and_a_third_leaves_one() -> None:
    cluster = started()
    cluster.call("n1", Put("carts", KEY, b"one"))
    cluster.call("n2", Put("carts", KEY, b"two"))
    cluster.run(1.0)
    for node in cluster.hosts:
        read = cluster.call(node, Get("carts", KEY, r=1))
        assert values(read) == [b"one", b"two"]
    cluster.call("n3", Put("carts", KEY, b"three", context=SignedContext(context(read))))
    cluster.run(1.0)
    for node in cluster.hosts:
        assert values(cluster.call(node, Get("carts", KEY, r=1))) == [b"three"]
    assert len({cluster.stored(node, "carts", KEY) for node in cluster.hosts}) == 1


@pytest.mark.parametrize("fate", list(Fate))
def test_power_fails_everywhere_during_writes_and_every_acknowledged_one_is_there(fate: Fate) -> None:
    cluster = started()
    acknowledged: list[bytes] = []

    def remember(key: bytes, reply: Reply | None) -> None:
        if isinstance(reply, Stored):
            acknowledged.append(key)

    for i in range(300):
        key = b"key-%d" % i
        cluster.hosts[f"n{i % 3 + 1}"].requests.take([(Put("carts", key, key), partial(remember, key))])
        cluster.run(0.0005)
    assert 0 < len(acknowledged) < 300, "the power must fail in the middle"
    for node in cluster.hosts:
        cluster.crash(node, fate)
    cluster.start()
    cluster.run(5.0)
    for key in acknowledged:
        assert values(cluster.call("n1", Get("carts", key))) == [key]


def test_the_minority_side_of_a_split_refuses_and_the_majority_goes_on() -> None:
    """BUGS 12: nothing that was acknowledged on the minority side may be thrown away."""
    cluster = started()
    cluster.call("n1", Put("carts", KEY, b"before"))
    cluster.split(["n1"])
    late = cluster.call("n1", Put("carts", KEY, b"minority"))
    assert isinstance(late, Failed)
    assert isinstance(late.error, WriteTimeout), "it may still be applied, and will be"
    cluster.run(10.0)
    refused = cluster.call("n1", Put("carts", KEY, b"refused"))
    assert isinstance(refused, Failed)
    assert isinstance(refused.error, Unavailable)
    assert isinstance(cluster.call("n2", Put("carts", KEY, b"majority")), Stored)
    cluster.heal()
    cluster.run(20.0)
    assert cluster.settled()
    for node in cluster.hosts:
        assert values(cluster.call(node, Get("carts", KEY, r=3))) == [b"before", b"majority", b"minority"]


def test_bugs_12_a_minority_with_a_fallback_acknowledges_only_what_is_sloppy_and_all_of_it_is_kept() -> None:
    """With five nodes the minority has a node in place of the replicas beyond the split: it never counts."""
    cluster = started(5)
    coordinator, *others = cluster.replicas("carts", KEY)
    sloppy_key = next(
        key for key in (b"%d" % i for i in range(1000)) if cluster.replicas("sloppy", key)[0] == coordinator
    )
    fallback = next(n for n in cluster.hosts if n not in cluster.replicas("carts", KEY))
    cluster.split([coordinator, fallback])
    late = cluster.call(coordinator, Put("carts", KEY, b"minority"))
    assert isinstance(late, Failed)
    assert isinstance(late.error, WriteTimeout)
    cluster.run(10.0)
    refused = cluster.call(coordinator, Put("carts", KEY, b"refused"))
    assert isinstance(refused, Failed)
    assert isinstance(refused.error, Unavailable)
    assert isinstance(cluster.call(coordinator, Put("sloppy", sloppy_key, b"minority")), Stored)
    assert isinstance(cluster.call(others[0], Put("carts", KEY, b"majority")), Stored)
    majority = next(n for n in cluster.replicas("sloppy", sloppy_key) if n not in (coordinator, fallback))
    assert isinstance(cluster.call(majority, Put("sloppy", sloppy_key, b"majority")), Stored)
    cluster.heal()
    cluster.run(30.0)
    assert cluster.settled()
    for node in cluster.hosts:
        assert values(cluster.call(node, Get("carts", KEY, r=3))) == [b"majority", b"minority"]
        assert values(cluster.call(node, Get("sloppy", sloppy_key, r=3))) == [b"majority", b"minority"]


def test_a_split_longer_than_every_timeout_heals() -> None:
    """BUGS 16, weaviate#10698: dead members are retried for ever."""
    cluster = started(5)
    cluster.split(["n1", "n2"])
    cluster.run(600.0)
    assert not cluster.settled()
    cluster.heal()
    cluster.run(15.0)
    assert cluster.settled()


def test_all_nodes_restart_at_once_and_nobody_stays_dead() -> None:
    """BUGS 16, memberlist#311."""
    cluster = started(5)
    for node in cluster.hosts:
        cluster.crash(node)
    cluster.run(60.0)
    cluster.start()
    cluster.run(15.0)
    assert cluster.settled()


def test_a_long_pause_and_a_clock_an_hour_wrong_lose_nothing() -> None:
    """BUGS 8, Aerospike: no clock decides, and who wakes up acknowledges nothing that others throw away."""
    cluster = started()
    cluster.hosts["n2"].machine.clock_error_ms = -3_600_000
    cluster.hosts["n3"].machine.clock_error_ms = 3_600_000
    seen = b""
    acknowledged: list[bytes] = []

    def put_blindly(node: str, value: bytes) -> None:
        def remember(reply: Reply | None) -> None:
            if isinstance(reply, Stored):
                acknowledged.append(value)

        # w=1: when n1 wakes up, the others' links to it are broken, and with them their acks are lost
        put = Put("carts", b"blind", value, w=1, timeout=60.0)
        cluster.hosts[node].requests.take([(put, remember)])

    for i in range(10):
        cluster.hosts["n1"].process.pause(45.0)
        for node in ("n3", "n2", "n1"):  # the last one answers when it has woken up
            put_blindly(node, f"{node}-{i}".encode())
        reply = cluster.call(
            "n2" if i % 2 else "n3", Put("carts", KEY, b"%d" % i, context=SignedContext(seen))
        )
        seen = context(reply)
        cluster.run(50.0 if i % 2 else 10.0)
    cluster.run(60.0)
    assert cluster.settled()
    assert values(cluster.call("n1", Get("carts", KEY, r=3))) == [b"9"]
    assert {value[:2] for value in acknowledged} == {b"n1", b"n2", b"n3"}
    assert set(acknowledged) <= set(values(cluster.call("n2", Get("carts", b"blind", r=3))))


def test_one_stalled_loop_does_not_declare_the_others_dead() -> None:
    """BUGS 17, consul#5928: it blames itself first."""
    cluster = started(5)
    cluster.hosts["n1"].process.pause(20.0)
    cluster.run(30.0)
    assert cluster.settled()


def lossy_homecoming() -> list[bytes]:
    """All primaries are down during a sloppy write, and come back to a network that loses most frames."""
    cluster = started(5, seed=3, settings=HINTS_ALONE)
    primaries = cluster.replicas("sloppy", KEY)
    for node in primaries:
        cluster.crash(node)
    cluster.run(30.0)
    keeper = next(node for node in cluster.hosts if node not in primaries)
    assert isinstance(cluster.call(keeper, Put("sloppy", KEY, b"kept")), Stored)
    cluster.network.conditions.loss = 0.7
    cluster.start()
    cluster.run(30.0)
    cluster.heal()
    cluster.run(60.0)
    assert cluster.settled()
    return values(cluster.call(primaries[0], Get("sloppy", KEY, r=3)))


def test_hints_come_home_through_a_lossy_network() -> None:
    assert lossy_homecoming() == [b"kept"]


def test_a_hint_deleted_before_its_ack_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """BUGS 10, planted: found when it happens."""
    planted.hint_deleted_before_its_ack(monkeypatch)
    with pytest.raises(Violation, match=r"deletes its hint for n\d about sloppy/.* is not there"):
        lossy_homecoming()


def test_interleaved_updates_of_one_key_do_not_pile_up_siblings() -> None:
    """BUGS 5: sibling explosion."""
    cluster = started()
    most = 0
    for i in range(60):
        # all three read before any of them writes: as interleaved as it gets
        reads = {node: cluster.call(node, Get("carts", KEY)) for node in cluster.hosts}
        for node, read in reads.items():
            most = max(most, len(values(read)))
            cluster.call(
                node, Put("carts", KEY, f"{node}-{i}".encode(), context=SignedContext(context(read)))
            )
    assert most == 3
