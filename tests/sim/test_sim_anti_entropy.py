"""Anti-entropy by itself: no hints are kept and nobody reads."""

from __future__ import annotations

import pytest

from kvstore.config import AntiEntropySettings, QuorumSettings
from kvstore.lsm import Fate
from kvstore.node.node import Node
from kvstore.node.settings import NodeSettings
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import TreeNode
from kvstore.quorum.background.exchange import Exchange
from kvstore.quorum.flow import Flow
from kvstore.sim.cluster import SimulatedCluster
from tests.plain import Put

NO_HINTS = NodeSettings(
    quorum=QuorumSettings(hint_count=0), anti_entropy=AntiEntropySettings(interval=2.0, settle=0.5)
)


def with_one_behind(keys: int = 60) -> SimulatedCluster:
    """Three nodes, of which n3 has missed all writes and is back now."""
    cluster = SimulatedCluster(1, 3, [], NO_HINTS)
    cluster.start()
    cluster.run(1.0)
    cluster.crash("n3", Fate.ALL)
    cluster.run(20.0)
    for i in range(keys):
        cluster.call("n1" if i % 2 else "n2", Put("carts", b"k%d" % i, b"v"))
    assert not cluster.roots_equal()
    cluster.restart("n3")
    return cluster


def node(cluster: SimulatedCluster, name: str) -> Node:
    found = cluster.hosts[name].node
    assert found is not None
    return found


def held_by(cluster: SimulatedCluster, node: str) -> int:
    return sum(1 for _ in cluster.hosts[node].engine.scan(b"d", b"e"))


def test_a_node_that_missed_writes_gets_them_without_hints_or_reads() -> None:
    cluster = with_one_behind()
    cluster.run(15.0)
    assert cluster.roots_equal()
    assert held_by(cluster, "n3") == 60
    statuses = [host.shell.status().anti_entropy for host in cluster.hosts.values() if host.node]
    assert [status.unproven for status in statuses] == [0, 0, 0]
    assert all(status.oldest < 15.0 for status in statuses)


def test_exchanges_survive_lost_messages_and_peers_that_die_in_the_middle() -> None:
    cluster = with_one_behind()
    cluster.network.conditions.loss = 0.3
    for _ in range(4):
        cluster.run(1.7)
        cluster.crash("n3", Fate.RANDOM)
        cluster.run(3.0)
        cluster.restart("n3")
    cluster.heal()
    cluster.run(30.0)
    assert cluster.roots_equal()
    assert held_by(cluster, "n3") == 60
    assert cluster.trees_match_disks()


def test_a_partition_of_a_dropped_hint_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[TreeNode] = []
    repair = Exchange.repair
    cluster = with_one_behind()
    base, background = node(cluster, "n1").base, node(cluster, "n1").background
    proofs = background.proofs

    def noted(self: Exchange, root: TreeNode, now: Instant) -> Flow[Instant]:
        if self._trees is base.trees:
            order.append(root)
        return repair(self, root, now)

    monkeypatch.setattr(Exchange, "repair", noted)
    marked = {root for root in proofs.roots["n3"] if proofs.is_marked("n3", root)}
    assert len(marked) > 3, "each hint that was dropped has marked a partition"
    lists = cluster.state.ring.replica_lists
    last = max(root for root in marked if lists[root.partition][-1] == "n3")
    for name in ("n1", "n2"):
        other = node(cluster, name).background.proofs
        other._marked.clear()
        other._next["n3"] = float("inf")
    cluster.run(1.0)
    background.anti_entropy.mark("n3", last, cluster.hosts["n1"].machine.instant())
    cluster.run(15.0)
    assert order[0] == last != min(order)
    assert cluster.roots_equal()
    assert not proofs._marked, "proven equal: no mark is left"


def test_a_busy_node_takes_longer_pauses() -> None:
    cluster = with_one_behind()
    now = cluster.hosts["n1"].machine.instant()
    admission = node(cluster, "n1").base.admission
    pacing = node(cluster, "n1").background.anti_entropy._pacing
    idle = pacing.pause(now)
    admission.unanswered = 160
    assert pacing.pause(now) == pytest.approx(11 * idle)
    admission.unanswered = 100_000
    assert pacing.pause(now) == NO_HINTS.anti_entropy.longest_pause
