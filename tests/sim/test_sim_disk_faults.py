"""Disks that are full, that fail, or that flip bits: what a node does then, and that it comes back."""

from __future__ import annotations

import random

import pytest

from kvstore.config import BucketSettings, QuorumMode
from kvstore.errors import Corruption, Overloaded, StorageFailed, StorageFull
from kvstore.lsm import Engine
from kvstore.protocol.client import Failed, Found, Reply, Stored
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.faults.damaged_disks import bit_flip, wipe
from kvstore.sim.faults.scene import Scene
from kvstore.sim.nemesis import Faults, kinds
from kvstore.sim.shell import OPTIONS
from kvstore.versions import NO_CONTEXT, SignedContext
from tests.plain import Delete, Get, Put

SLOPPY = BucketSettings("sloppy", quorum=QuorumMode.SLOPPY)
KEY = b"user:1"


def started(nodes: int = 3) -> SimulatedCluster:
    cluster = SimulatedCluster(1, nodes, [SLOPPY])
    cluster.start()
    cluster.run(1.0)
    return cluster


def fill(cluster: SimulatedCluster, node: str) -> None:
    """No space from now on; the node learns of it with its next sync."""
    cluster.hosts[node].machine.disk.full = True
    cluster.hosts[node].requests.take([(Put("sloppy", b"other", b"x", timeout=0.5), lambda reply: None)])
    cluster.run(1.0)


def values(reply: Reply | None) -> list[bytes]:
    assert isinstance(reply, Found), reply
    return sorted(sibling.value for sibling in reply.siblings)


def error(reply: Reply | None) -> Exception:
    assert isinstance(reply, Failed), reply
    return reply.error


def test_a_full_disk_refuses_writes_and_reads_go_on_until_there_is_space() -> None:
    cluster = started()
    cluster.call("n1", Put("carts", KEY, b"before"))
    fill(cluster, "n1")
    assert isinstance(error(cluster.call("n1", Put("carts", KEY, b"refused"))), StorageFull)
    assert values(cluster.call("n1", Get("carts", KEY))) == [b"before"]
    assert isinstance(cluster.call("n2", Put("carts", b"elsewhere", b"taken")), Stored)
    cluster.hosts["n1"].machine.disk.full = False
    cluster.run(2.0)
    assert isinstance(cluster.call("n1", Put("carts", KEY, b"after")), Stored)
    assert values(cluster.call("n1", Get("carts", KEY, r=3))) == [b"after", b"before"]
    assert cluster.hosts["n1"].counts["crashes"] == 0


def test_writes_are_taken_again_even_if_nobody_waited_for_the_sync_that_found_no_space() -> None:
    """As when the last write was the deletion of a hint: no ack depends on it."""
    cluster = started()
    cluster.hosts["n1"].machine.disk.full = True
    cluster.hosts["n1"].engine.write([(b"n/unrelated", b"x" * OPTIONS.memtable_bytes)])
    cluster.run(1.0)
    cluster.hosts["n1"].machine.disk.full = False
    cluster.run(2.0)
    assert isinstance(cluster.call("n1", Put("carts", KEY, b"after")), Stored)


def test_a_node_starts_on_a_full_disk_and_takes_writes_when_there_is_space() -> None:
    cluster = started()
    cluster.call("n1", Put("carts", KEY, b"before"))
    cluster.crash("n1")
    cluster.hosts["n1"].machine.disk.full = True
    cluster.start()
    cluster.run(2.0)
    assert cluster.hosts["n1"].up
    assert values(cluster.call("n1", Get("carts", KEY))) == [b"before"]
    assert isinstance(error(cluster.call("n1", Put("carts", KEY, b"refused"))), StorageFull)
    cluster.hosts["n1"].machine.disk.full = False
    cluster.run(2.0)
    assert isinstance(cluster.call("n1", Put("carts", KEY, b"after")), Stored)
    cluster.crash("n1")
    cluster.start()
    cluster.run(2.0)
    assert values(cluster.call("n1", Get("carts", KEY, r=3))) == [b"after", b"before"]
    assert not cluster.hosts["n1"].counts["ends after StorageFull"]


def test_a_node_with_a_full_disk_still_refutes_that_it_is_dead() -> None:
    """Its incarnation cannot be stored then; that must not cost it the turn."""
    cluster = started()
    fill(cluster, "n1")
    cluster.hosts["n1"].process.pause(10.0)
    cluster.run(25.0)
    assert cluster.settled()


def test_a_hint_that_a_full_disk_cannot_forget_is_delivered_again() -> None:
    cluster = started(5)
    primaries = cluster.replicas("sloppy", KEY)
    for node in primaries:
        cluster.crash(node)
    cluster.run(30.0)
    keeper = next(node for node in cluster.hosts if node not in primaries)
    assert isinstance(cluster.call(keeper, Put("sloppy", KEY, b"kept")), Stored)
    fill(cluster, keeper)
    cluster.start()
    cluster.run(20.0)
    assert not cluster.settled(), "the hints are still there"
    cluster.hosts[keeper].machine.disk.full = False
    cluster.run(20.0)
    assert cluster.settled()
    assert values(cluster.call(primaries[0], Get("sloppy", KEY, r=3))) == [b"kept"]


def test_a_read_that_cannot_repair_its_own_node_asks_another(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = started()
    cluster.hosts["n1"].process.pause(5.0)
    cluster.call("n2", Put("carts", KEY, b"newer"))
    cluster.run(1.0)
    behind = cluster.hosts["n1"].engine
    cluster.hosts["n1"].process.resume()
    write = Engine.write

    def overloaded(self: Engine, batch: list[tuple[bytes, bytes | None]]) -> int:
        if self is behind:
            raise Overloaded(0.5, "flushes and compactions are behind")
        return write(self, batch)

    monkeypatch.setattr(Engine, "write", overloaded)
    assert values(cluster.call("n1", Get("carts", KEY, r=2))) == [b"newer"]


def test_a_read_that_has_failed_hears_of_further_repairs_that_no_disk_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seed 10 with five nodes: its end came twice, and the simulator stops at a defect."""
    cluster = started()
    behind = [cluster.hosts[node].engine for node in ("n2", "n3")]
    write = Engine.write

    def full(self: Engine, batch: list[tuple[bytes, bytes | None]]) -> int:
        if self in behind:
            raise StorageFull("no space left")
        return write(self, batch)

    monkeypatch.setattr(Engine, "write", full)
    assert isinstance(cluster.call("n1", Put("carts", KEY, b"newest", w=1)), Stored)
    assert isinstance(error(cluster.call("n1", Get("carts", KEY, r=3))), StorageFull)
    cluster.run(1.0)
    behind.clear()
    assert values(cluster.call("n1", Get("carts", KEY, r=3))) == [b"newest"]


def test_a_failed_sync_ends_the_process_and_recovery_decides() -> None:
    cluster = started()
    cluster.call("n1", Put("carts", KEY, b"before"))
    cluster.hosts["n1"].machine.disk.broken = True
    assert cluster.call("n1", Put("carts", KEY, b"during", context=NO_CONTEXT), 5.0) is None, (
        "its connection breaks"
    )
    assert not cluster.hosts["n1"].up
    assert cluster.hosts["n1"].counts["ends after StorageFailed"] == 1
    cluster.restart("n1")
    cluster.run(10.0)
    assert cluster.settled()
    assert b"before" in values(cluster.call("n1", Get("carts", KEY, r=3)))


def test_a_node_whose_disk_fails_outside_a_sync_ends_as_well() -> None:
    """Else it would refuse every write for ever, and look alive."""
    cluster = started()
    cluster.hosts["n1"].machine.disk.broken = True
    whole_memtable = b"x" * OPTIONS.memtable_bytes
    assert isinstance(error(cluster.call("n1", Put("carts", KEY, whole_memtable))), StorageFailed)
    cluster.hosts["n1"].machine.disk.broken = False
    cluster.run(1.0)
    assert not cluster.hosts["n1"].up


def test_bit_flips_and_wipes_are_on_until_they_are_switched_off() -> None:
    off = Faults(bit_flips=False, wipes=False)
    assert set(kinds(Faults())) - set(kinds(off)) == {"bit flip", "damaged log", "wipe"}


def test_a_flipped_bit_is_an_error_and_never_not_found() -> None:
    cluster = started()
    keys = [b"k%d" % i for i in range(200)]
    for key in keys:
        assert isinstance(cluster.call("n1", Put("carts", key, key.ljust(64, b"."), w=3)), Stored)
    scene = Scene(cluster, random.Random(1))
    for _ in range(60):
        bit_flip(scene, scene.some_host())
    cluster.run(3.0)
    cluster.start()
    replies = [cluster.call(node, Get("carts", key, r=1)) for node in cluster.hosts for key in keys]
    damaged = sum(len(host.engine.quarantine.fences) for host in cluster.hosts.values())
    assert damaged, "nothing was damaged"
    assert {type(reply.error) for reply in replies if isinstance(reply, Failed)} <= {Corruption}
    assert all(len(values(reply)) == 1 for reply in replies if not isinstance(reply, Failed))
    assert any(isinstance(reply, Found) for reply in replies)


def test_a_wiped_node_mints_with_a_new_actor_and_loses_nothing_that_others_hold() -> None:
    """BUGS 2: the empty disk has forgotten which dots it made."""
    cluster = started()
    context = b""
    for value in (b"one", b"two", b"three"):
        reply = cluster.call("n1", Put("carts", KEY, value, context=SignedContext(context), w=3))
        assert isinstance(reply, Stored)
        context = reply.context
    cluster.crash("n1")
    cluster.hosts["n1"].wipe()
    cluster.restart("n1")
    cluster.run(10.0)
    assert isinstance(cluster.call("n1", Put("carts", KEY, b"blind", w=1)), Stored)
    assert values(cluster.call("n2", Get("carts", KEY, r=3))) == [b"blind", b"three"]
    assert isinstance(cluster.call("n1", Delete("carts", KEY, w=3)), Stored)
    assert values(cluster.call("n3", Get("carts", KEY, r=3))) == []


def test_a_host_that_lost_its_disk_starts_when_the_reads_of_before_are_over() -> None:
    """One of them may count an answer that another replica gave while it was behind: seed 41, three nodes."""
    cluster = started()
    scene = Scene(cluster, random.Random(1))
    host = cluster.hosts["n1"]
    wipe(scene, host)
    cluster.run(5.0)
    cluster.restart("n1")
    assert not host.up
    cluster.run(2.0)
    assert host.up
