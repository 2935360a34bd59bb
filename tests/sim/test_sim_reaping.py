"""Deletes stay deleted, and leave the disks all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvstore.config import BucketSettings, Conflict, QuorumMode
from kvstore.lsm import Fate
from kvstore.protocol.client import Found, Reply, Stored
from kvstore.protocol.peer import Candidate
from kvstore.quorum.hints import Hints
from kvstore.sim.checker import Violation
from kvstore.sim.cluster import REAP_AGE, SimulatedCluster
from kvstore.sim.host import Host
from kvstore.versions import EncodedVersion, digest
from tests.plain import Delete, Get, Put, data_key, token
from tests.sim import planted
from tests.sim.hints import hold_hints_back

BUCKETS = [
    BucketSettings("sloppy", quorum=QuorumMode.SLOPPY, w=1),
    BucketSettings("lww", conflict=Conflict.LWW),
]
KEY = b"user:1"
LONG = 120.0


def started(nodes: int = 3, seed: int = 1) -> SimulatedCluster:
    cluster = SimulatedCluster(seed, nodes, BUCKETS)
    cluster.start()
    cluster.run(1.0)
    return cluster


def values(reply: Reply | None) -> list[bytes]:
    assert isinstance(reply, Found), reply
    return sorted(sibling.value for sibling in reply.siblings)


def held(cluster: SimulatedCluster, bucket: str = "carts") -> list[bool]:
    """Whether each primary that is up holds any version."""
    up = [node for node in cluster.replicas(bucket, KEY) if cluster.hosts[node].up]
    return [cluster.stored(node, bucket, KEY) is not None for node in up]


def reaped(cluster: SimulatedCluster) -> int:
    return sum(host.shell.status().counters.reaped for host in cluster.hosts.values() if host.node)


@pytest.mark.parametrize("bucket", ["carts", "lww"])
def test_a_tombstone_that_everyone_confirms_leaves_all_disks(bucket: str) -> None:
    cluster = started(5)
    cluster.call("n1", Put(bucket, KEY, b"v"))
    cluster.call("n2", Delete(bucket, KEY))
    cluster.run(REAP_AGE - 2.0)
    assert held(cluster, bucket) == [True] * 3, "not before it is old enough"
    cluster.run(LONG)
    assert held(cluster, bucket) == [False] * 3
    assert reaped(cluster) == 3
    assert cluster.roots_equal()
    assert cluster.trees_match_disks()
    assert values(cluster.call("n3", Get(bucket, KEY, r=3))) == []
    cluster.hosts["n3"].machine.clock_error_ms = -3_600_000
    assert isinstance(cluster.call("n3", Put(bucket, KEY, b"again")), Stored)
    cluster.run(LONG)
    assert values(cluster.call("n1", Get(bucket, KEY, r=3))) == [b"again"]


@pytest.mark.parametrize("bucket", ["carts", "lww"])
def test_bugs_3_a_copy_of_a_reaped_tombstone_does_not_erase_what_was_created_after_it(bucket: str) -> None:
    cluster = started(3)
    first, slow, last = cluster.replicas(bucket, KEY)
    cluster.call(first, Put(bucket, KEY, b"v", w=3))
    cluster.call(first, Delete(bucket, KEY, w=3))
    tombstone = cluster.stored(last, bucket, KEY)
    assert tombstone is not None
    cluster.run(LONG)
    assert held(cluster, bucket) == [False] * 3
    cluster.hosts[slow].machine.clock_error_ms = -3_600_000
    assert isinstance(cluster.call(slow, Put(bucket, KEY, b"recreated", w=3)), Stored)
    node = cluster.hosts[last].node
    assert node is not None
    node.base.local.store(data_key(token(bucket, KEY), bucket, KEY), EncodedVersion(tombstone))
    cluster.run(LONG)
    assert values(cluster.call(first, Get(bucket, KEY, r=3))) == [b"recreated"]


def away_past_every_horizon() -> list[bytes]:
    cluster = started()
    cluster.call("n1", Put("carts", KEY, b"deleted", w=3))
    away = cluster.replicas("carts", KEY)[2]
    cluster.crash(away)
    cluster.run(30.0)
    cluster.call(cluster.replicas("carts", KEY)[0], Delete("carts", KEY))
    cluster.run(300.0)
    cluster.restart(away)
    cluster.run(LONG)
    return values(cluster.call(away, Get("carts", KEY, r=3)))


def test_bugs_11_a_node_away_past_every_horizon_does_not_bring_deleted_data_back() -> None:
    assert away_past_every_horizon() == []


def test_bugs_11_reaping_by_timer_alone_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what comes back is noticed. The hint of the tombstone is reaped with it, as by a horizon."""
    planted.reaping_by_timer_alone(monkeypatch)
    monkeypatch.setattr(Hints, "_room", lambda self, target, size: False)
    with pytest.raises(Violation, match=r"is back at .*: it was reaped"):
        away_past_every_horizon()


def test_bugs_11_without_hints_anti_entropy_brings_the_tombstone_and_then_it_is_reaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Hints, "_room", lambda self, target, size: False)
    assert away_past_every_horizon() == []


def test_bugs_3_a_late_tombstone_does_not_erase_a_recreated_key() -> None:
    """Doomstone: a fallback that was away hands over the tombstone of a life before."""
    cluster = started(5, seed=3)
    primaries = cluster.replicas("sloppy", KEY)
    others = [node for node in cluster.hosts if node not in primaries]
    cluster.call(primaries[0], Put("sloppy", KEY, b"first", w=3))
    for node in primaries:
        cluster.crash(node)
    cluster.run(30.0)
    assert isinstance(cluster.call(others[0], Put("sloppy", KEY, b"kept", w=1)), Stored)
    read = cluster.call(others[0], Get("sloppy", KEY, r=1))
    assert isinstance(read, Found)
    assert isinstance(cluster.call(others[0], Delete("sloppy", KEY, context=read.context, w=1)), Stored)
    for node in others:
        cluster.crash(node)
    for node in primaries:
        cluster.restart(node)
    cluster.run(30.0)
    cluster.call(primaries[0], Delete("sloppy", KEY, w=3))
    cluster.run(LONG)
    assert held(cluster, "sloppy") == [True] * 3, "the members that are away may keep hints"
    assert isinstance(cluster.call(primaries[1], Put("sloppy", KEY, b"recreated", w=3)), Stored)
    for node in others:
        cluster.restart(node)
    cluster.run(LONG)
    assert cluster.settled()
    assert values(cluster.call(primaries[2], Get("sloppy", KEY, r=3))) == [b"recreated"]


def test_a_hint_kept_anywhere_keeps_the_tombstone() -> None:
    cluster = started(5, seed=3)
    primaries = cluster.replicas("carts", KEY)
    cluster.call(primaries[0], Put("carts", KEY, b"v", w=3))
    keeper = next(host for name, host in cluster.hosts.items() if name not in primaries)
    assert keeper.node is not None
    old = cluster.stored(primaries[0], "carts", KEY)
    assert old is not None
    cluster.call(primaries[0], Delete("carts", KEY, w=3))
    cluster.run(0.5)
    hold_hints_back(keeper)
    keeper.node.base.local.store(
        data_key(token("carts", KEY), "carts", KEY), EncodedVersion(old), primaries[1]
    )
    cluster.run(LONG)
    assert held(cluster) == [True] * 3


def test_bugs_20_what_has_expired_is_reaped_when_all_clocks_say_so_and_does_not_come_back() -> None:
    cluster = started()
    slow = cluster.replicas("carts", KEY)[1]
    cluster.hosts[slow].machine.clock_error_ms = -3_600_000
    fast = cluster.replicas("carts", KEY)[0]
    cluster.call(fast, Put("carts", KEY, b"for a while", ttl=10, w=3))
    cluster.run(LONG)
    assert held(cluster) == [True] * 3, "one clock says that it can be seen"
    assert values(cluster.call(fast, Get("carts", KEY, r=3))) == []
    cluster.hosts[slow].machine.clock_error_ms = 0
    cluster.run(LONG)
    assert held(cluster) == [False] * 3
    cluster.run(LONG)
    assert values(cluster.call(slow, Get("carts", KEY, r=3))) == []


def test_a_hint_that_a_power_failure_would_bring_back_keeps_the_tombstone() -> None:
    cluster = started(5, seed=3)
    primaries = cluster.replicas("carts", KEY)
    cluster.call(primaries[0], Put("carts", KEY, b"v", w=3))
    old = cluster.stored(primaries[0], "carts", KEY)
    keeper = next(host for name, host in cluster.hosts.items() if name not in primaries)
    assert keeper.node is not None
    assert old is not None
    let_go = hold_hints_back(keeper)
    keeper.node.base.local.store(
        data_key(token("carts", KEY), "carts", KEY), EncodedVersion(old), primaries[1]
    )
    keeper.shell.request_sync()
    cluster.run(1.0)
    keeper.machine.slow_down(10_000.0)
    let_go()
    cluster.run(30.0)
    assert keeper.shell.status().counters.hints_delivered == 1
    cluster.call(primaries[0], Delete("carts", KEY, w=3))
    cluster.run(LONG)
    assert held(cluster) == [True] * 3, "the hint is still on the disk"
    cluster.crash(keeper.name, Fate.NONE)
    keeper.machine.slow_down()
    cluster.restart(keeper.name)
    cluster.run(LONG)
    assert held(cluster) == [False] * 3
    assert values(cluster.call(primaries[2], Get("carts", KEY, r=3))) == []


def _pause(host: Host) -> None:
    host.process.pause(6.0)


def _suspend(host: Host) -> None:
    """The monotonic clock does not see it, the wall clock does."""
    host.machine.clock_error_ms += 6_000


@pytest.mark.parametrize("stand_still", [_pause, _suspend])
def test_who_stood_still_confirms_nothing_until_it_has_read_what_was_sent_to_it(
    stand_still: Callable[[Host], None],
) -> None:
    cluster = started()
    cluster.call("n1", Put("carts", KEY, b"v", w=3))
    cluster.call("n1", Delete("carts", KEY, w=3))
    cluster.run(0.5)
    host = cluster.hosts["n2"]
    tombstone = cluster.stored("n2", "carts", KEY)
    assert host.node is not None
    assert tombstone is not None
    candidate = Candidate(data_key(token("carts", KEY), "carts", KEY), digest(EncodedVersion(tombstone)))
    reaper = host.node.background.reaper
    assert reaper.confirm([candidate], host.machine.instant()) == (0,)
    stand_still(host)
    cluster.run(7.0)
    assert reaper.confirm([candidate], host.machine.instant()) == ()
    cluster.run(REAP_AGE / 2)
    assert reaper.confirm([candidate], host.machine.instant()) == (0,)
    cluster.run(LONG)
    assert held(cluster) == [False] * 3
