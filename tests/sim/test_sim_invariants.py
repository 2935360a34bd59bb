"""What the simulator asserts at every moment: each defect is planted, and found when it acts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvstore.config import AntiEntropySettings, BucketSettings, QuorumMode
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Stored
from kvstore.sim.checker import Violation
from kvstore.sim.cluster import SimulatedCluster
from kvstore.versions import Dot, EncodedVersion, Sibling, Version, encode_version
from tests.plain import Delete, Get, Put, data_key, token
from tests.sim import planted
from tests.sim.hints import hold_hints_back
from tests.sim.test_sim_quarantine import Damaged

KEY, OTHER = b"user:1", b"user:2"
BUCKETS = (BucketSettings("carts"), BucketSettings("sloppy", quorum=QuorumMode.SLOPPY))
INTERNAL = data_key(token("carts", KEY), "carts", KEY)
HINTS_ALONE = NodeSettings(anti_entropy=AntiEntropySettings(interval=float("inf")))
SLOW = 3.0

Plant = Callable[[pytest.MonkeyPatch], None]


def started(nodes: int = 3, settings: NodeSettings = HINTS_ALONE) -> SimulatedCluster:
    cluster = SimulatedCluster(1, nodes, BUCKETS, settings)
    cluster.start()
    cluster.run(1.0)
    return cluster


def put_while_one_disk_is_slow() -> SimulatedCluster:
    """All disks but one sync at once."""
    cluster = started()
    first, slow, _ = cluster.replicas("carts", KEY)
    cluster.hosts[slow].machine.slow_down(SLOW)
    assert isinstance(cluster.call(first, Put("carts", KEY, b"v", w=2), seconds=1.0), Stored)
    return cluster


def read_from_the_slow_disk() -> SimulatedCluster:
    cluster = put_while_one_disk_is_slow()
    cluster.call(cluster.replicas("carts", KEY)[0], Get("carts", KEY, r=3))
    return cluster


def read_through_the_slow_disk() -> SimulatedCluster:
    """Its own node answers a client."""
    cluster = put_while_one_disk_is_slow()
    cluster.call(cluster.replicas("carts", KEY)[1], Get("carts", KEY, r=3))
    return cluster


def compare_with_the_slow_disk() -> SimulatedCluster:
    cluster = put_while_one_disk_is_slow()
    cluster.hosts[cluster.replicas("carts", KEY)[0]].repair_now()
    cluster.run(2 * SLOW)
    return cluster


def deliver_a_hint_to_a_full_disk() -> SimulatedCluster:
    cluster = started()
    first, away, _ = cluster.replicas("carts", KEY)
    cluster.crash(away)
    cluster.run(10.0)
    assert isinstance(cluster.call(first, Put("carts", KEY, b"v")), Stored)
    assert [kept.target for kept in cluster.hosts[first].shell.status().hints] == [away]
    cluster.hosts[away].machine.disk.full = True
    cluster.restart(away)
    cluster.run(5.0)
    cluster.hosts[away].machine.disk.full = False
    cluster.run(20.0)
    return cluster


def add_to_a_hint_that_is_under_way() -> SimulatedCluster:
    cluster = started()
    first, away, _ = cluster.replicas("carts", KEY)
    cluster.crash(away)
    cluster.run(10.0)
    cluster.call(first, Put("carts", KEY, b"sent"))
    target = cluster.hosts[away]
    cluster.restart(away)
    target.machine.slow_down(2.0)
    while not target.engine.get(INTERNAL):
        cluster.run(0.01)
    base = cluster.hosts[first].shell.node.base
    dot = Dot("another", 1)
    base.local.store(INTERNAL, encode_version(Version((dot,), (Sibling(dot, b"added"),))), away)
    cluster.run(20.0)
    return cluster


def forward_over_a_link_that_breaks() -> SimulatedCluster:
    """The request arrives, its answer does not."""
    cluster = started(5)
    cluster.invariants.writes.values_name_writes = True
    primaries = cluster.replicas("carts", KEY)
    asked = next(node for node in cluster.hosts if node not in primaries)
    cluster.network.cut.update((node, asked) for node in primaries)
    cluster.submit("Ann", asked, Put("carts", KEY, b"v"), lambda reply: None)
    cluster.run(0.1)
    cluster.reconnect(set(cluster.network.cut))
    for node in primaries[:1]:
        cluster.hosts[asked].break_links(node)
    cluster.run(10.0)
    return cluster


def damage_and_refetch() -> SimulatedCluster:
    damaged = Damaged()
    damaged.cluster.restart("n1")
    damaged.host.machine.slow_down(0.3)
    damaged.cluster.run(0.0)
    assert damaged.unreadable()
    while damaged.engine.quarantine.fences:
        damaged.cluster.run(0.1)
    return damaged.cluster


def reap_while_a_hint_is_kept() -> SimulatedCluster:
    """Of one key; nothing is in the way of another."""
    cluster = started(5, NodeSettings(anti_entropy=AntiEntropySettings(reap_interval=1.0, reap_age=5.0)))
    primaries = cluster.replicas("carts", KEY)
    for key in (KEY, OTHER):
        cluster.call(primaries[0], Put("carts", key, b"v", w=3))
    old = cluster.stored(primaries[0], "carts", KEY)
    for key in (KEY, OTHER):
        cluster.call(primaries[0], Delete("carts", key, w=3))
    keeper = next(host for name, host in cluster.hosts.items() if name not in primaries)
    assert keeper.node is not None
    assert old is not None
    hold_hints_back(keeper)
    keeper.node.base.local.store(INTERNAL, EncodedVersion(old), primaries[1])
    keeper.shell.request_sync()
    cluster.run(30.0)
    return cluster


def write_twice_and_replicate() -> SimulatedCluster:
    """Two writers who have not read, each at another node."""
    cluster = started()
    first, second, _ = cluster.replicas("carts", KEY)
    for node, value in ((first, b"1"), (second, b"2")):
        cluster.submit("Ann", node, Put("carts", KEY, value), lambda reply: None)
    cluster.run(5.0)
    return cluster


def give_up_and_be_late() -> SimulatedCluster:
    """No other disk syncs before the client's time is over."""
    cluster = started()
    first, *others = cluster.replicas("carts", KEY)
    for node in others:
        cluster.hosts[node].machine.slow_down(2.0)
    cluster.call(first, Put("carts", KEY, b"v", timeout=0.5))
    cluster.run(10.0)
    return cluster


CASES: tuple[tuple[Plant, Callable[[], SimulatedCluster], str, str], ...] = (
    (
        planted.ack_before_fsync,
        put_while_one_disk_is_slow,
        "shown is durable",
        r"acknowledges .*: on its disk is nothing",
    ),
    (
        planted.acknowledged_by_too_few_disks,
        put_while_one_disk_is_slow,
        "acknowledged is on W disks",
        r"is acknowledged by n\d as on 2 disks, and is on those of \['n\d'\]",
    ),
    (
        planted.shown_before_it_is_durable,
        read_from_the_slow_disk,
        "shown is durable",
        r"says that it holds .*: on its disk is nothing",
    ),
    (
        planted.shown_before_it_is_durable,
        read_through_the_slow_disk,
        "read is on R disks",
        r"is read by n\d as on 3 disks",
    ),
    (
        planted.exchanged_before_it_is_durable,
        compare_with_the_slow_disk,
        "shown is durable",
        "tells n. hashes of what is not on its disk",
    ),
    (
        planted.hint_deleted_when_it_is_refused,
        deliver_a_hint_to_a_full_disk,
        "deleted hints are home",
        "deletes its hint for .* is not there",
    ),
    (
        planted.hint_deleted_although_it_has_changed,
        add_to_a_hint_that_is_under_way,
        "deleted hints are home",
        "deletes its hint for .* is not there",
    ),
    (
        planted.a_write_forwarded_again,
        forward_over_a_link_that_breaks,
        "a write has one dot",
        "b'v' of carts.* was written twice",
    ),
    (
        planted.fence_lifted_before_it_is_durable,
        damage_and_refetch,
        "fences are lifted when refetched is durable",
        "n1 lifts a fence, and .* are not on its disk",
    ),
    (
        planted.reaping_unconfirmed,
        reap_while_a_hint_is_kept,
        "reaped is nowhere under way",
        "while .*, which is older, is in a hint of",
    ),
    (
        planted.what_comes_in_replaces_what_is_stored,
        write_twice_and_replicate,
        "versions only grow",
        "forgets: carts/b'user:1'",
    ),
    (
        planted.a_request_counted_twice_as_done,
        give_up_and_be_late,
        "counts are not negative",
        r"a count of n\d is negative",
    ),
)


@pytest.mark.parametrize(
    ("plant", "scenario", "invariant", "violated"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_a_planted_defect_is_found_at_the_moment_that_it_acts(
    plant: Plant,
    scenario: Callable[[], SimulatedCluster],
    invariant: str,
    violated: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the defect the same is checked, and holds."""
    assert scenario().invariants.counts[invariant] > 0
    plant(monkeypatch)
    with pytest.raises(Violation, match=violated):
        scenario()


def test_what_is_counted_as_under_way_is_nothing_when_all_is_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = put_while_one_disk_is_slow()
    assert any("bytes" in each for each in cluster.invariants.balances.busy())
    cluster.run(20.0)
    assert cluster.invariants.balances.busy() == []
    planted.memory_of_operations_not_given_back(monkeypatch)
    cluster.call("n1", Put("carts", KEY, b"v"))
    cluster.run(20.0)
    assert any("bytes" in each for each in cluster.invariants.balances.busy())


def test_what_was_reaped_is_not_written_again() -> None:
    cluster = started(3, NodeSettings(anti_entropy=AntiEntropySettings(reap_interval=1.0, reap_age=5.0)))
    cluster.call("n1", Put("carts", KEY, b"v", w=3))
    old = cluster.stored("n1", "carts", KEY)
    assert old is not None
    cluster.call("n1", Delete("carts", KEY, w=3))
    cluster.run(20.0)
    assert cluster.stored("n2", "carts", KEY) is None
    assert cluster.invariants.counts["reaped is nowhere under way"] == 3
    with pytest.raises(Violation, match="is back at n2: it was reaped"):
        cluster.hosts["n2"].engine.write([(INTERNAL, old)])


def test_a_dot_names_one_write() -> None:
    cluster = started()
    cluster.call("n1", Put("carts", KEY, b"v", w=3))
    version = cluster.stored("n1", "carts", KEY)
    assert version is not None
    with pytest.raises(Violation, match="names two writes"):
        cluster.hosts["n2"].engine.write([(INTERNAL, version.replace(b"v", b"w"))])


def test_what_can_be_seen_is_not_reaped() -> None:
    cluster = started()
    cluster.call("n1", Put("carts", KEY, b"v", w=3))
    with pytest.raises(Violation, match="which can be seen"):
        cluster.hosts["n2"].engine.write([(INTERNAL, None)])


def test_the_engine_of_a_host_knows_what_a_power_failure_would_leave() -> None:
    engine = started().hosts["n1"].engine
    engine.write([(b"x", b"1")])
    assert engine.durable(b"x") == b""
    engine.sync()
    assert engine.durable(b"x") == b"1"
    engine.write([(b"x", b"2")])
    engine.write([(b"x", None)])
    assert engine.durable(b"x") == b"1"
    engine.sync()
    assert engine.durable(b"x") == b""
    engine.write([(b"x", b"3")])
    assert engine.durable(b"x") == b""
