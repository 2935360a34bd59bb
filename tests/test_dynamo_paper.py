"""One test per claim of "Dynamo: Amazon's Highly Available Key-value Store" (SOSP 2007), sections 4.1 to 4.7
and 6, on a simulated cluster. Each name is the claim, each docstring the section.

Left out until they are built: adding and removing nodes (4.2 and 4.8: incremental scaling, handing keys
over). Done otherwise, on purpose: keys hash with Murmur3 to 64 bits instead of MD5 to 128 (4.1); contexts are
never truncated, because that makes replicas differ for ever (4.4); hints are kept in the engine's own
keyspace instead of a database of their own (4.6); no write is acknowledged out of a memory buffer (6.1);
background work gives way by the requests under way, which are rate times latency, instead of by a
percentile of the latency (6.5).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

import kvstore
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import NodeHash, TreeNode
from kvstore.quorum.background.exchange import Exchange
from kvstore.quorum.background.merkle_tree import FAN_OUT, ROOT
from kvstore.quorum.flow import Flow
from kvstore.ring import Member, fallbacks, initial_state, preference_list
from kvstore.sim.cluster import SETTINGS
from kvstore.testing import Cluster
from kvstore.versions import InternalKey

PARTITIONS = 256


def values(got: kvstore.Result) -> list[bytes]:
    return sorted(sibling.value for sibling in got.siblings)


def union(siblings: tuple[kvstore.Sibling, ...]) -> bytes:
    """The shopping cart's way to reconcile: items of all versions."""
    return b" ".join(sorted({item for sibling in siblings for item in sibling.value.split()}))


def becomes(number: int) -> Callable[[bytes | None], str]:
    return lambda _: str(number)


def appends(item: str) -> Callable[[bytes | None], str]:
    return lambda cart: f"{(cart or b'').decode()} {item}"


def members(*weights: int, zones: int = 0) -> list[Member]:
    return [
        Member(f"n{i}", f"n{i}:7000", zone=f"z{i % zones}" if zones else "", weight=weight)
        for i, weight in enumerate(weights, 1)
    ]


def held(cluster: Cluster, node: str) -> dict[bytes, bytes]:
    """Versions by internal key, as they lie in a node's engine."""
    return dict(cluster._cluster.hosts[node].engine.scan(b"d", b"e"))


def hints_of(cluster: Cluster, node: str) -> int:
    host = cluster._cluster.hosts[node]
    return sum(hints.count for hints in host.shell.status().hints) if host.up else 0


def drop_hints(cluster: Cluster) -> None:
    """Every hint is lost, as with the disks of those that keep them."""
    for host in cluster._cluster.hosts.values():
        assert host.node is not None
        hints = host.node.base.local.hints
        host.engine.watch("", None)  # who would object
        for target in hints.targets:
            for key, version in hints.page(target, InternalKey(b""), 1000, 2**20):
                hints.delivered(target, key, version)
        host.engine.watch(host.name, cluster._cluster.invariants.engines)


def root(cluster: Cluster, node: str, partition: int) -> NodeHash:
    host = cluster._cluster.hosts[node].node
    assert host is not None
    found = host.base.trees.node(TreeNode(partition, 3, ROOT))
    assert found is not None
    return found


def moved_bytes(cluster: Cluster) -> int:
    """What all nodes have sent for anti-entropy."""
    answers = cluster.connect().status().values()
    return sum(a.counters.repair_bytes for a in answers if not isinstance(a, kvstore.KVError))


class TestSystemInterface:
    """4.1"""

    def test_get_returns_one_object_or_a_list_of_conflicting_versions_and_a_context(self) -> None:
        carts = Cluster().connect().bucket("carts")
        carts.put("a", "one")
        one = carts.get("a")
        carts.put("a", "two", blind=True)
        two = carts.get("a")
        assert (values(one), values(two)) == ([b"one"], [b"one", b"two"])
        assert one.context
        assert one.context != two.context

    def test_put_takes_the_context_of_the_version_it_updates(self) -> None:
        carts = Cluster().connect().bucket("carts")
        carts.put("a", "one")
        carts.put("a", "two", context=carts.get("a").context)
        assert values(carts.get("a")) == [b"two"]

    def test_the_context_is_checked_so_that_it_fits_the_object(self) -> None:
        carts = Cluster().connect().bucket("carts")
        carts.put("a", "one")
        with pytest.raises(kvstore.InvalidRequest):
            carts.put("b", "two", context=carts.get("a").context)

    def test_key_and_object_are_opaque_bytes(self) -> None:
        blobs = Cluster().connect().bucket("blobs")
        key, value = bytes(range(256)), bytes(reversed(range(256)))
        blobs.put(key, value)
        assert blobs.get(key).value == value


class TestPartitioning:
    """4.2"""

    def test_a_hash_of_the_key_alone_decides_where_it_lives(self) -> None:
        one, other = Cluster(5, seed=1), Cluster(5, seed=2)
        keys = [f"k{i}" for i in range(50)]
        assert [one.replicas("b", key) for key in keys] == [other.replicas("b", key) for key in keys]

    def test_each_node_is_responsible_for_many_partitions_and_equally_so(self) -> None:
        state = initial_state("", members(1, 1, 1, 1, 1), PARTITIONS)
        firsts = Counter(nodes[0] for nodes in state.ring.replica_lists)
        assert max(firsts.values()) - min(firsts.values()) <= 1

    def test_a_node_of_more_capacity_is_responsible_for_more(self) -> None:
        state = initial_state("", members(1, 1, 1, 1, 2), PARTITIONS, 1)
        owned = Counter(nodes[0] for nodes in state.ring.replica_lists)
        assert owned["n5"] == pytest.approx(2 * owned["n1"], rel=0.1)

    def test_the_load_of_a_node_that_fails_is_spread_over_all_others(self) -> None:
        ring = initial_state("", members(1, 1, 1, 1, 1), PARTITIONS).ring
        shared = [nodes for nodes in ring.replica_lists if "n1" in nodes]
        heirs = Counter(node for nodes in shared for node in nodes if node != "n1")
        assert set(heirs) == {"n2", "n3", "n4", "n5"}
        assert max(heirs.values()) <= 1.1 * min(heirs.values())


class TestReplication:
    """4.3"""

    def test_each_key_is_stored_at_n_distinct_nodes(self) -> None:
        cluster = Cluster(5)
        carts = cluster.connect().bucket("carts")
        for i in range(20):
            got = carts.put(f"k{i}", "v", w=3, explain=True)
            assert got.explain is not None
            assert set(got.explain.answered) == set(cluster.replicas("carts", f"k{i}"))
            assert len(set(got.explain.answered)) == 3

    def test_every_node_can_tell_the_preference_list_of_any_key(self) -> None:
        cluster = Cluster(5)
        asked = []
        for node in cluster.nodes:
            got = cluster.connect(node).bucket("carts").get("a", r=3, explain=True)
            assert got.explain is not None
            asked.append(got.explain.answered)
        assert len(set(asked)) == 1

    def test_the_preference_list_goes_on_behind_n_because_nodes_fail(self) -> None:
        ring = initial_state("", members(1, 1, 1, 1, 1), PARTITIONS).ring
        for partition in range(PARTITIONS):
            primaries, spare = preference_list(ring, partition, 3), fallbacks(ring, partition, 3)
            assert {*primaries, *spare} == {"n1", "n2", "n3", "n4", "n5"}


class TestDataVersioning:
    """4.4"""

    def test_a_put_may_return_before_all_replicas_have_it_and_they_get_it_eventually(self) -> None:
        cluster = Cluster()
        cluster.kill("n3")
        cluster.advance(20)
        carts = cluster.connect("n1").bucket("carts")
        carts.put("a", "one")
        cluster.restart("n3")
        cluster.settle()
        assert values(cluster.connect("n3").bucket("carts").get("a", r=1)) == [b"one"]

    def test_an_add_to_cart_can_never_be_forgotten_or_rejected(self) -> None:
        cluster = Cluster(5, buckets=["carts:quorum=sloppy"])
        cluster.split("n1", "n2")
        cluster.advance(20)
        for side in ("n1", "n4"):
            cluster.connect(side).bucket("carts", resolver=union).update("a", appends(side))
        cluster.heal()
        cluster.settle()
        assert cluster.connect().bucket("carts", resolver=union).get("a").value == b"n1 n4"

    def test_a_deleted_item_can_resurface_when_carts_are_united(self) -> None:
        cart = Cluster().connect().bucket("carts", resolver=union)
        cart.put("a", "apples pears")
        seen = cart.get("a").context
        cart.put("a", "pears", context=seen)
        cart.put("a", "apples pears plums", context=seen)
        assert cart.get("a").value == b"apples pears plums"

    def test_a_version_that_another_descends_from_is_forgotten(self) -> None:
        carts = Cluster().connect().bucket("carts")
        for i in range(10):
            carts.update("a", becomes(i))
        assert values(carts.get("a")) == [b"9"]

    def test_the_evolution_of_an_object_over_time(self) -> None:
        """Figure 3: Sx writes D1 and D2; Sy D3 and Sz D4 from D2; a client that saw both writes D5."""
        cluster = Cluster()
        sx, sy, sz = (cluster.connect(node).bucket("carts") for node in cluster.nodes)
        d1 = sx.put("a", "D1")
        d2 = sx.put("a", "D2", context=d1.context)
        sy.put("a", "D3", context=d2.context)
        sz.put("a", "D4", context=d2.context)
        both = sx.get("a")
        assert values(both) == [b"D3", b"D4"]
        sx.put("a", "D5", context=both.context)
        assert [values(node.get("a", r=3)) for node in (sx, sy, sz)] == [[b"D5"]] * 3


class TestExecution:
    """4.5"""

    def test_any_node_can_receive_any_request(self) -> None:
        cluster = Cluster(5)
        for writer in cluster.nodes:
            cluster.connect(writer).bucket("b").put(writer, "v")
        for reader in cluster.nodes:
            assert all(cluster.connect(reader).bucket("b").get_many(cluster.nodes).values())

    def test_a_node_outside_the_top_n_does_not_coordinate_but_forwards(self) -> None:
        cluster = Cluster(5)
        replicas = cluster.replicas("b", "a")
        outside = next(node for node in cluster.nodes if node not in replicas)
        got = cluster.connect(outside).bucket("b").put("a", "v", explain=True)
        assert got.explain is not None
        assert got.explain.coordinator in replicas

    def test_replicas_that_are_down_are_skipped_over(self) -> None:
        cluster = Cluster(5)
        replicas = cluster.replicas("b", "a")
        outside = next(node for node in cluster.nodes if node not in replicas)
        cluster.kill(replicas[0])
        cluster.advance(20)
        got = cluster.connect(outside).bucket("b").put("a", "v", explain=True)
        assert got.explain is not None
        assert got.explain.coordinator == replicas[1]

    def test_the_slowest_of_the_w_replicas_decides_the_latency(self) -> None:
        """So R and W are usually below N."""
        cluster = Cluster()
        bucket = cluster.connect("n1").bucket("b")
        waited = {}
        for w in (2, 3):
            cluster.pause("n3", 1.5)
            began = cluster.now
            bucket.put("a", "v", w=w)
            waited[w] = cluster.now - began
            cluster.advance(3)
        assert waited[2] < 0.5
        assert 1.4 < waited[3] < 3

    def test_with_r_and_w_above_n_a_read_sees_every_write_that_succeeded(self) -> None:
        for r, w in ((1, 3), (2, 2), (3, 1)):
            cluster = Cluster(3, seed=f"{r}{w}")
            context = b""
            for i in range(9):
                writer, reader = cluster.nodes[i % 3], cluster.nodes[(i + 1) % 3]
                got = cluster.connect(writer).bucket("b").put("a", f"{i}", context=context, w=w)
                context = got.context
                assert values(cluster.connect(reader).bucket("b").get("a", r=r)) == [b"%d" % i]

    def test_a_write_fails_if_fewer_than_w_nodes_respond(self) -> None:
        cluster = Cluster()
        cluster.kill("n2", "n3")
        with pytest.raises(kvstore.WriteTimeout) as caught:
            cluster.connect("n1").bucket("b").put("a", "v", timeout=1.0)
        assert (caught.value.received, caught.value.required) == (1, 2)

    def test_a_read_returns_all_versions_that_are_causally_unrelated(self) -> None:
        carts = Cluster().connect().bucket("carts")
        for i in range(5):
            carts.put("a", str(i), blind=True)
        assert values(carts.get("a")) == [b"0", b"1", b"2", b"3", b"4"]

    def test_stale_replicas_are_repaired_by_a_read(self) -> None:
        cluster = Cluster()
        cluster.split("n3")
        cluster.connect("n1").bucket("carts").put("a", "new")
        cluster.kill("n1")  # before it has made a hint, which might be home first
        cluster.heal()
        cluster.restart("n1")
        got = cluster.connect("n2").bucket("carts").get("a", r=3, explain=True)
        assert got.explain is not None
        assert values(got) == [b"new"]
        assert got.explain.repaired == ("n3",)


class TestHintedHandoff:
    """4.6"""

    @staticmethod
    def away() -> tuple[Cluster, tuple[str, ...], str]:
        """A cluster whose key `a` has lost its first replica; all replicas, and a client's node."""
        cluster = Cluster(5, buckets=["carts:quorum=sloppy"])
        replicas = cluster.replicas("carts", "a")
        cluster.kill(replicas[0])
        cluster.advance(20)
        return cluster, replicas, replicas[1]

    def test_operations_are_performed_on_the_first_n_healthy_nodes(self) -> None:
        cluster, replicas, node = self.away()
        got = cluster.connect(node).bucket("carts").put("a", "v", w=3, explain=True)
        assert got.explain is not None
        assert len(got.explain.answered) == 3
        assert replicas[0] not in got.explain.answered

    def test_a_hint_goes_to_its_intended_recipient_and_is_then_deleted(self) -> None:
        cluster, replicas, node = self.away()
        cluster.connect(node).bucket("carts").put("a", "v")
        cluster.restart(replicas[0])
        cluster.settle()  # no hint is left
        assert values(cluster.connect(replicas[0]).bucket("carts").get("a", r=1, quorum="strict")) == [b"v"]

    def test_a_hinted_replica_is_no_data_of_the_node_that_keeps_it(self) -> None:
        cluster, replicas, node = self.away()
        cluster.connect(node).bucket("carts").put("a", "v", w=3)
        keepers = [name for name in cluster.nodes if name not in replicas and hints_of(cluster, name)]
        assert keepers
        for keeper in keepers:
            assert held(cluster, keeper) == {}

    def test_with_w_1_a_write_is_rejected_only_if_no_node_is_available(self) -> None:
        cluster = Cluster(5, buckets=["carts:quorum=sloppy,w=1,r=1"])
        last = next(node for node in cluster.nodes if node not in cluster.replicas("carts", "a"))
        cluster.kill(*(node for node in cluster.nodes if node != last))
        cluster.advance(20)
        carts = cluster.connect().bucket("carts")
        carts.put("a", "v")
        assert values(carts.get("a")) == [b"v"]
        cluster.kill(last)
        with pytest.raises(kvstore.NoNodeAvailable):
            carts.put("a", "w", timeout=1.0)

    def test_replicas_are_spread_over_data_centers(self) -> None:
        nodes = members(1, 1, 1, 1, 1, 1, zones=3)
        zones = {member.node: member.zone for member in nodes}
        ring = initial_state("", nodes, PARTITIONS).ring
        assert all(len({zones[node] for node in replicas}) == 3 for replicas in ring.replica_lists)


class TestReplicaSynchronization:
    """4.7"""

    def test_replicas_synchronize_when_a_hint_is_lost_before_it_is_returned(self) -> None:
        """Hinted replicas may become unavailable before they can be returned to the original node."""
        cluster = Cluster(5, buckets=["carts:quorum=sloppy"])
        replicas = cluster.replicas("carts", "a")
        cluster.kill(replicas[0])
        cluster.advance(20)
        cluster.connect(replicas[1]).bucket("carts").put("a", "v", w=3)
        (keeper,) = (node for node in cluster.nodes if hints_of(cluster, node))
        cluster.kill(keeper)
        cluster.restart(replicas[0])
        cluster.advance(60)
        assert len(held(cluster, replicas[0])) == 1
        assert held(cluster, replicas[0]) == held(cluster, replicas[1]) == held(cluster, replicas[2])

    def test_a_node_keeps_a_tree_for_each_key_range_that_it_hosts(self) -> None:
        """Two nodes compare the roots of those that they host in common."""
        cluster = Cluster(5)
        carts = cluster.connect().bucket("carts")
        carts.put_many({f"k{i}": "v" for i in range(40)}, w=3)
        cluster.advance(1)
        for node in cluster.nodes:
            lists = cluster._cluster.state.ring.replica_lists
            counts = [root(cluster, node, partition).items for partition in range(len(lists))]
            assert sum(counts) == len(held(cluster, node))
            assert all(count == 0 or node in nodes for count, nodes in zip(counts, lists, strict=True))

    def test_equal_roots_mean_equal_replicas_and_nothing_is_moved(self) -> None:
        cluster = self.synchronized(keys=200)
        before = moved_bytes(cluster)
        cluster.advance(60)
        roots = 3 * 2 * 14 * len(cluster._cluster.state.ring.replica_lists)
        rounds = 60 / SETTINGS.anti_entropy.interval + 1
        assert 0 < moved_bytes(cluster) - before <= rounds * roots

    def test_each_branch_is_checked_without_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No node downloads a whole tree: it goes from a parent that differs to its children."""
        cluster = self.synchronized(keys=0)
        ring = cluster._cluster.state.ring
        keys = [key for key in map(str, range(5000)) if ring.partition("b", key.encode()) == 0][:200]
        self.put_all(cluster, keys)
        cluster.advance(30)
        odd = next(k for k in map(str, range(5000, 9000)) if ring.partition("b", k.encode()) == 0)
        self.without("n3", cluster, odd)
        looked_into: list[tuple[int, bytes]] = []
        exchange = Exchange._exchange

        def noted(self: Exchange, partition: int, n: int, leaves: bytes, now: Instant) -> Flow[Instant]:
            looked_into.append((partition, leaves))
            return exchange(self, partition, n, leaves, now)

        monkeypatch.setattr(Exchange, "_exchange", noted)
        cluster.advance(30)
        assert held(cluster, "n3") == held(cluster, "n1")
        assert {partition for partition, _ in looked_into} == {0}
        branches = {leaf // FAN_OUT for _, leaves in looked_into for leaf in leaves}
        assert len(branches) == 1, "of sixteen, each with a sixteenth of the keys"

    def test_what_is_out_of_sync_is_found_and_little_else_is_transferred(self) -> None:
        """The trees minimize the amount of data that is moved for it."""
        cluster = self.synchronized(keys=200)
        cluster.advance(30)
        idle = moved_bytes(cluster)
        cluster.advance(30)
        idle = moved_bytes(cluster) - idle
        self.without("n3", cluster, "odd one out")
        before = moved_bytes(cluster)
        cluster.advance(30)
        assert held(cluster, "n3") == held(cluster, "n1") == held(cluster, "n2")
        everything = sum(len(k) + len(v) for k, v in held(cluster, "n1").items())
        assert moved_bytes(cluster) - before - idle < everything / 10

    def test_synchronization_works_both_ways(self) -> None:
        """Nodes perform the appropriate action: each gets what it lacks."""
        cluster = self.synchronized(keys=10)
        for node in ("n1", "n3"):
            cluster.split(node)
            cluster.advance(1)
            cluster.connect(node).bucket("b", w=1).put(f"only on {node}", "v")
            cluster.heal()
        drop_hints(cluster)
        cluster.advance(60)
        assert held(cluster, "n3") == held(cluster, "n1") == held(cluster, "n2")
        assert len(held(cluster, "n3")) == 12

    def test_key_ranges_do_not_change_when_nodes_join_so_that_no_tree_is_recalculated(self) -> None:
        """The disadvantage that the partitioning of section 6.2 removes."""
        few = initial_state("", members(1, 1, 1), PARTITIONS).ring
        many = initial_state("", members(*[1] * 9), PARTITIONS).ring
        assert few.partitions == many.partitions
        assert [few.partition("b", b"%d" % i) for i in range(100)] == [
            many.partition("b", b"%d" % i) for i in range(100)
        ]

    @staticmethod
    def synchronized(keys: int) -> Cluster:
        """Three nodes that are proven equal."""
        cluster = Cluster()
        TestReplicaSynchronization.put_all(cluster, [f"k{i}" for i in range(keys)])
        cluster.advance(30)
        assert held(cluster, "n1") == held(cluster, "n2") == held(cluster, "n3")
        return cluster

    @staticmethod
    def put_all(cluster: Cluster, keys: list[str], w: int = 3) -> None:
        bucket = cluster.connect("n1").bucket("b")
        for i in range(0, len(keys), 50):
            bucket.put_many(dict.fromkeys(keys[i : i + 50], "v"), w=w)

    @staticmethod
    def without(node: str, cluster: Cluster, key: str) -> None:
        """A write that one replica misses, and of which no hint is left."""
        cluster.split(node)
        other = next(name for name in cluster.nodes if name != node)
        cluster.connect(other).bucket("b").put(key, "v")
        cluster.advance(3)
        drop_hints(cluster)
        cluster.heal()


class TestExperiences:
    """6"""

    def test_business_logic_can_reconcile(self) -> None:
        carts = Cluster().connect().bucket("carts", resolver=union)
        carts.put("a", "apples")
        carts.put("a", "pears", blind=True)
        assert carts.update("a", lambda cart: cart).siblings == 1
        assert carts.get("a").value == b"apples pears"

    def test_timestamps_can_reconcile_and_the_last_write_wins(self) -> None:
        cluster = Cluster(buckets=["sessions:conflict=lww"])
        sessions = cluster.connect().bucket("sessions")
        sessions.put("a", "first")
        cluster.advance(1.0)
        sessions.put("a", "last")
        assert values(sessions.get("a")) == [b"last"]

    def test_with_r_1_and_w_n_it_is_a_read_engine(self) -> None:
        cluster = Cluster(buckets=["catalog:r=1,w=3"])
        catalog = cluster.connect("n1").bucket("catalog")
        catalog.put("a", "v")
        got = catalog.get("a", explain=True)
        assert got.explain is not None
        assert got.explain.asked == ("n1",)
        assert all(cluster.connect(node).bucket("catalog").get("a").value == b"v" for node in cluster.nodes)

    def test_3_2_2_is_the_common_choice_and_survives_a_failure_in_reads_and_writes(self) -> None:
        cluster = Cluster()
        settings = cluster.connect().ring().bucket("any")
        assert (settings.n, settings.r, settings.w) == (3, 2, 2)
        cluster.kill("n2")
        cluster.advance(20)
        carts = cluster.connect().bucket("any")
        carts.put("a", "v")
        assert carts.get("a").value == b"v"

    def test_a_uniform_load_is_spread_uniformly(self) -> None:
        """6.2"""
        cluster = Cluster(5)
        firsts = Counter(cluster.replicas("b", f"k{i}")[0] for i in range(2000))
        assert max(firsts.values()) < 1.5 * min(firsts.values())

    def test_partitions_are_equal_in_size_and_each_node_has_q_over_s_of_them(self) -> None:
        """6.2, strategy 3."""
        state = initial_state("", members(1, 1, 1, 1), PARTITIONS)
        assert Counter(nodes[0] for nodes in state.ring.replica_lists) == dict.fromkeys(
            ("n1", "n2", "n3", "n4"), PARTITIONS // 4
        )

    def test_one_writer_sees_one_version_whatever_fails(self) -> None:
        """6.3: versions diverge by concurrent writers, rarely by failures."""
        cluster = Cluster()
        carts = cluster.connect().bucket("carts")
        for i in range(12):
            cluster.kill(cluster.nodes[i % 3], power_loss=True)
            cluster.advance(20)
            assert carts.update("a", becomes(i)).siblings == 1
            cluster.restart(cluster.nodes[i % 3])
            cluster.settle()
        assert values(carts.get("a", r=3)) == [b"11"]

    def test_low_r_and_w_can_make_reads_inconsistent(self) -> None:
        """What is written to few and read from few may not meet."""
        cluster = Cluster(buckets=["fast:r=1,w=1"])
        cluster.split("n3")
        cluster.connect("n1").bucket("fast").put("a", "v")
        assert values(cluster.connect("n3").bucket("fast").get("a")) == []
        cluster.heal()
        cluster.settle()
        assert values(cluster.connect("n3").bucket("fast").get("a")) == [b"v"]

    def test_background_work_gives_way_to_the_foreground(self) -> None:
        """6.5: synchronization and hints slow down while many requests are under way."""
        taken = {}
        for under_way in (0, 2000):
            cluster = Cluster()
            cluster.split("n3")
            cluster.advance(20)
            TestReplicaSynchronization.put_all(cluster, [f"k{i}" for i in range(1000)], w=2)
            for host in cluster._cluster.hosts.values():
                assert host.node is not None
                host.node.base.admission.unanswered += under_way
            cluster.heal()
            began = cluster.now
            while held(cluster, "n3") != held(cluster, "n1"):
                cluster.advance(0.1)
                assert cluster.now < began + 300
            taken[under_way] = cluster.now - began
        assert taken[2000] > taken[0] + 1

    def test_a_client_that_knows_the_ring_sends_to_a_replica_at_once(self) -> None:
        """6.4"""
        cluster = Cluster(5)
        db = cluster.connect()
        for i in range(20):
            got = db.bucket("carts").put(f"k{i}", "v", explain=True)
            assert got.explain is not None
            assert got.explain.coordinator == cluster.replicas("carts", f"k{i}")[0]
        for status in db.status().values():
            assert not isinstance(status, kvstore.KVError)
            assert status.counters.forwards == 0
