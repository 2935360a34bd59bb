"""Transfers: a replica that is coming, or was emptied, is filled and proves itself, whatever crashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import pytest

from kvstore.config import KIB, MIB, AntiEntropySettings, Limits
from kvstore.lsm import Fate, Options
from kvstore.membership.transitions import advance, begin, cancel
from kvstore.node.membership import Membership
from kvstore.node.node import Node
from kvstore.node.settings import NodeSettings
from kvstore.node.spread import Spread
from kvstore.protocol.client import Stored
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import KeyVersion
from kvstore.quorum.background.cursors import CURSORS, Cursor, Cursors
from kvstore.quorum.background.exchange import Comparison
from kvstore.quorum.background.transfers import Transfers
from kvstore.quorum.flow import Flow, Sync
from kvstore.quorum.replica import Replica
from kvstore.ring import ClusterState, Ring, initial_state, partition_bounds, partition_of
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.host import Host
from kvstore.versions import (
    Dot,
    EncodedVersion,
    InternalKey,
    Sibling,
    Version,
    decode_version,
    encode_version,
    reconcile,
)
from tests.plain import Put, data_key, token

OLD = ("n1", "n2", "n3")
NEVER = float("inf")
RULES = AntiEntropySettings(
    interval=NEVER, settle=0.2, reap_interval=NEVER, answer_bytes=16 * KIB, timeout=1.0
)
SETTINGS = NodeSettings(anti_entropy=RULES, limits=Limits(value=8 * MIB))
OPTIONS = Options(memtable_bytes=256 * KIB, block_bytes=4 * KIB, cache_bytes=256 * KIB)
Records = Iterable[tuple[bytes, bytes | None]]
Plant = Callable[[pytest.MonkeyPatch], None]


def on_three(*args: object) -> ClusterState:
    """A cluster of four, the last of which has no partition yet."""
    state = initial_state(*args)  # type: ignore[arg-type]
    lists = tuple(OLD[p % 3 :] + OLD[: p % 3] for p in range(state.ring.partitions))
    return replace(state, ring=Ring(lists))


class Growing:
    """Four nodes, of which n4 is coming to each partition in the place of its last replica."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, seed: int = 1, settings: NodeSettings = SETTINGS
    ) -> None:
        monkeypatch.setattr("kvstore.sim.cluster.initial_state", on_three)
        self.proposed: list[tuple[str, ClusterState, float]] = []
        """The next steps: by whom and when. They are not decided on."""

        def proposed(membership: Membership, state: ClusterState, _now: Instant) -> None:
            name = membership._adoption._base.placements.name
            self.proposed.append((name, state, self.cluster.scheduler.now))

        monkeypatch.setattr(Membership, "_advance", proposed)
        self.cluster = SimulatedCluster(seed, 4, [], settings, OPTIONS)
        self.cluster.start()
        self.cluster.run(1.0)
        self.held: dict[InternalKey, EncodedVersion] = {}
        """What was acknowledged before the step, or by the new replica as well."""
        self.dots = 0
        self.received: Counter[str] = Counter()
        """In lives of n4 that are over."""

    def node(self, name: str) -> Node:
        found = self.cluster.hosts[name].node
        assert found is not None
        return found

    def write(
        self, key: bytes, value: bytes | None, nodes: Iterable[str] = OLD, expires: int = 0
    ) -> InternalKey:
        """By hand, durable at once, on some replicas."""
        self.dots += 1
        dot = Dot("by.hand", self.dots)
        version = encode_version(Version((dot,), (Sibling(dot, value, expiry=expires),)))
        place = data_key(token("carts", key), "carts", key)
        for name in nodes:
            self.node(name).base.local.store(place, version)
        self.held[place] = version
        return place

    def load(self, keys: int = 400, size: int = 200) -> None:
        """Each write is on two of three, as W = 2 lets it."""
        for i in range(keys):
            self.write(b"k%d" % i, b"v" * size, [name for name in OLD if name != OLD[i % 3]])
        self.sync(*OLD)

    def sync(self, *nodes: str) -> None:
        for name in nodes:
            self.cluster.hosts[name].engine.sync()

    def put(self, key: bytes, value: bytes, also: bool) -> None:
        """A client's write; until coordinators do it, `also` to the new replica."""
        assert isinstance(self.cluster.call("n1", Put("carts", key, value)), Stored)
        place = data_key(token("carts", key), "carts", key)
        stored = self.node("n1").base.local.replica.read(place)
        if also and (target := self.cluster.hosts["n4"].node):
            target.base.durability.soon(target.base.local.store(place, stored))
            self.cluster.run(0.05)
            self.held[place] = stored

    def give(self, state: ClusterState, *nodes: str) -> None:
        for name in nodes or tuple(self.cluster.hosts):
            host = self.cluster.hosts[name]
            if host.node:
                host.process.enter(partial(self._take_up, host, state))

    @staticmethod
    def _take_up(host: Host, state: ClusterState) -> None:
        host.shell.node.on_state(state, host.machine.instant())

    def begin(self) -> ClusterState:
        lists = self.cluster.state.ring.replica_lists
        return begin(self.cluster.state, {p: (*nodes[:2], "n4") for p, nodes in enumerate(lists)})

    def crash(self, name: str, fate: Fate) -> None:
        if name == "n4":
            counters = self.node("n4").base.counters
            self.received.update(bytes=counters.transfer_bytes, resumed=counters.transfers_resumed)
        self.cluster.crash(name, fate)

    def total(self, what: str = "bytes") -> int:
        counters = self.node("n4").base.counters
        now = {"bytes": counters.transfer_bytes, "resumed": counters.transfers_resumed}
        return self.received[what] + now[what]

    def bytes_held(self) -> int:
        return sum(len(key) + len(version) for key, version in self.held.items())

    def proven(self, name: str = "n4") -> int:
        return len(self.node(name).background.transfers.proven)

    def run_until_proven(self, name: str = "n4", seconds: float = 120.0) -> None:
        self.cluster.run(0.5)
        coming = self.node(name).background.transfers.status.coming
        assert coming > 0
        for _ in range(int(seconds / 0.5)):
            if self.proven(name) == coming:
                break
            self.cluster.run(0.5)
        assert self.proven(name) == coming
        self.must_hold_all(name)

    def must_hold_all(self, name: str, first: bytes = b"", end: bytes = b"e") -> None:
        engine = self.cluster.hosts[name].engine
        for key, version in self.held.items():
            if first <= key < end:
                here = engine.durable(key)
                assert here, f"{name} lacks {key!r}"
                one, other = decode_version(EncodedVersion(here)), decode_version(version)
                assert encode_version(reconcile(one, other)) == here, (
                    f"{name} has an older version of {key!r}"
                )


def in_partition(number: int, count: int) -> list[bytes]:
    found: list[bytes] = []
    i = 0
    while len(found) < count:
        key = b"p%d" % i
        if partition_of(token("carts", key), 16) == number:
            found.append(key)
        i += 1
    return found


def test_a_fourth_node_is_filled_while_writes_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch)
    cluster = growing.cluster
    for key in in_partition(3, 1100):  # more than a page of items, and of bytes
        growing.write(key, b"v" * 30)
    growing.load(100)
    growing.write(b"large", b"L" * (5 * MIB))  # more than a frame
    growing.write(b"deleted", None)
    growing.write(b"expired", b"gone", expires=1)
    growing.sync(*OLD)
    state = growing.begin()
    growing.give(state)
    cluster.run(0.05)  # a write that is under way meets either step
    before = growing.total()
    for i in range(60):
        growing.put(b"k%d" % i, b"newer", also=i % 3 != 0)
        growing.put(b"w%d" % i, b"w", also=i % 3 != 0)
        cluster.run(0.02)
    assert growing.total() > before
    growing.run_until_proven()
    status = growing.cluster.hosts["n4"].shell.status()
    assert (status.transfers.coming, status.transfers.proven, status.counters.transfers_proven) == (
        16,
        16,
        16,
    )
    assert growing.total() < 1.2 * growing.bytes_held()
    assert cluster.trees_match_disks()


def test_crashes_of_source_and_target_resume_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.quorum.background.transfers._CURSOR_BYTES", 40 * KIB)
    monkeypatch.setattr("kvstore.sim.cluster.PARTITIONS", 16)
    growing = Growing(monkeypatch, settings=slow(100 * KIB))
    cluster = growing.cluster
    growing.load(1000, 1000)
    growing.give(growing.begin())
    for i in range(8):
        cluster.run(0.9)
        growing.put(b"k%d" % i, b"newer", also=bool(i % 2))
        name = "n4" if i % 2 else OLD[i % 3]
        growing.crash(name, Fate.NONE if i % 4 else Fate.ALL)
        cluster.run(0.3)
        cluster.restart(name)
    assert growing.proven() < 16, "crashes came too late"
    growing.run_until_proven()
    assert growing.total("resumed") > 0
    # at each crash of n4 four pages may be lost, and at each of a source
    assert growing.total() < growing.bytes_held() + 4 * 4 * 3 * RULES.answer_bytes


def slow(rate: float) -> NodeSettings:
    return replace(SETTINGS, anti_entropy=replace(RULES, transfer_byte_rate=rate))


def test_it_keeps_to_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch, settings=slow(50 * KIB))
    growing.load(1000, 1000)
    growing.give(growing.begin())
    growing.cluster.run(5.0)
    assert 0.7 * 5 * 50 * KIB < growing.total() < 5 * 50 * KIB + 5 * RULES.answer_bytes


def test_it_is_proven_only_when_a_read_quorum_has_taken_up_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spread, "want", lambda *_: None)  # no state gets to who is not given it
    growing = Growing(monkeypatch)
    growing.load(100)
    state = growing.begin()
    growing.give(state, "n4", "n1")
    growing.cluster.run(20.0)
    assert growing.proven() == 0
    growing.give(state, "n2")
    growing.run_until_proven()


def test_what_only_one_of_a_quorum_has_is_there_when_it_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch)
    for i in range(100):
        growing.write(b"k%d" % i, b"v", OLD[i % 2 : i % 2 + 2])
    growing.sync(*OLD)
    growing.cluster.crash("n3")  # whoever is fetched from lacks half of what n3 knows
    growing.give(growing.begin())
    growing.run_until_proven()
    growing.crash("n4", Fate.NONE)  # what is proven is durable
    growing.cluster.restart("n4")
    growing.must_hold_all("n4")
    growing.run_until_proven()


def test_a_node_that_was_emptied_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch)
    cluster = growing.cluster
    growing.load(300)
    lists = cluster.state.ring.replica_lists
    cluster.crash("n3")
    cluster.hosts["n3"].wipe()
    cluster.restart("n3")
    assert not list(cluster.hosts["n3"].engine.scan(b"d", b"e"))
    growing.give(begin(cluster.state, {}, emptied=dict.fromkeys(range(len(lists)), ("n3",))))
    cluster.run(1.0)
    growing.run_until_proven("n3")


def test_a_move_that_is_cancelled_drops_its_cursors(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch)
    growing.load(100)
    state = growing.begin()
    growing.give(state)
    growing.cluster.run(5.0)
    engine = growing.cluster.hosts["n4"].engine
    assert len(list(engine.scan_prefix(CURSORS))) == 16
    growing.give(cancel(state))
    growing.cluster.run(1.0)
    assert not list(engine.scan_prefix(CURSORS))
    assert growing.node("n4").background.transfers.status.coming == 0


def behind_the_cursors(growing: Growing, state: ClusterState) -> int:
    """That all before the cursors on the disk of n4 is there; how many cursors are within a partition."""
    found = 0
    for key, record in growing.cluster.hosts["n4"].engine.scan_prefix(CURSORS):
        number, after = int.from_bytes(key[len(CURSORS) :], "big"), record[12:]
        found += bool(after)
        first, end = partition_bounds(number, state.ring.partitions)
        growing.must_hold_all("n4", first, after or end)
    return found


def crashes_of_the_target(monkeypatch: pytest.MonkeyPatch) -> int:
    """Crashes n4 at many moments; how many cursors were found within partitions."""
    monkeypatch.setattr("kvstore.quorum.background.transfers._CURSOR_BYTES", 20 * KIB)
    growing = Growing(monkeypatch, settings=slow(50 * KIB))
    cluster = growing.cluster
    cluster.hosts["n4"].machine.slow_down(0.05)
    for number in (3, 4):
        for key in in_partition(number, 300):
            growing.write(key, b"v" * 1000)
    growing.sync(*OLD)
    state = growing.begin()
    growing.give(state)
    found = 0
    for i in range(14):
        cluster.run(1.5 + 0.037 * i)
        growing.crash("n4", (Fate.NONE, Fate.RANDOM)[i % 2])
        cluster.restart("n4")
        found += behind_the_cursors(growing, state)
    return found


def test_what_is_before_a_cursor_is_on_the_disk_whenever_it_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crashes_of_the_target(monkeypatch) > 10


def test_nothing_is_reaped_of_a_partition_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is coming may have a value that the tombstone covers, and is not asked for it."""
    rules = replace(RULES, reap_interval=1.0, reap_age=5.0)
    growing = Growing(monkeypatch, settings=replace(SETTINGS, anti_entropy=rules))
    key = growing.write(b"deleted", None)
    growing.sync(*OLD)
    state = growing.begin()
    growing.give(state)
    growing.cluster.run(30.0)
    growing.must_hold_all("n1")
    growing.give(cancel(state))
    growing.cluster.run(30.0)
    assert growing.cluster.hosts["n1"].engine.get(key) is None


def test_the_next_step_is_proposed_when_all_is_proven_by_the_first_of_the_living(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    growing = Growing(monkeypatch)
    growing.load(100)
    state = growing.begin()
    growing.give(state)
    growing.run_until_proven()
    growing.cluster.run(1.0)
    flipped = advance(state, range(16))
    assert [(name, found) for name, found, _ in growing.proposed] == [("n1", flipped)]
    growing.cluster.run(15.0)
    assert {name for name, _, _ in growing.proposed} == {"n1", "n2", "n3", "n4"}, "the others when n1 fails"
    first = {
        name: min(when for n, _, when in growing.proposed if n == name) for name in growing.cluster.hosts
    }
    assert all(first[b] - first[a] > 2.0 for a, b in zip(OLD, [*OLD[1:], "n4"], strict=True))
    growing.proposed.clear()
    growing.give(flipped)
    growing.cluster.run(1.0)
    assert {found for _, found, _ in growing.proposed} == {advance(flipped, range(16))}


def test_one_that_starts_anew_hears_again_who_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch)
    growing.load(100)
    growing.give(growing.begin())
    growing.run_until_proven()
    growing.cluster.crash("n1", Fate.ALL)
    growing.cluster.run(1.0)
    growing.cluster.restart("n1")
    growing.proposed.clear()
    growing.cluster.run(10.0)
    assert "n1" in {name for name, _, _ in growing.proposed}


def a_proof_without_the_comparison(patch: pytest.MonkeyPatch) -> None:
    def compare(_self: Transfers, _coming: object, _n: int, now: Instant) -> Flow[Instant]:
        return now
        yield

    patch.setattr(Transfers, "_compare", compare)


def a_proof_by_one_old_replica(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("kvstore.quorum.background.transfers.read_quorum", lambda *_: 1)


def a_cursor_that_is_stored_before_its_data(patch: pytest.MonkeyPatch) -> None:
    """It is on the disk while the versions are in memory alone."""
    fetch_page = Comparison.page

    def page(
        self: Comparison, partition: int, n: int, leaves: bytes, after: bytes, end: bytes, now: Instant
    ) -> Flow[tuple[Instant, tuple[KeyVersion, ...], bytes]]:
        now, versions, rest = yield from fetch_page(self, partition, n, leaves, after, end, now)
        if end and rest:
            made_last[-1].save(partition, Cursor(self._peer.epoch, n, rest))
            yield Sync(made_last[-1]._replica.last_lsn)
        return now, versions, rest

    def made(self: Cursors, records: Records, replica: Replica) -> None:
        begin_with(self, records, replica)
        made_last.append(self)

    made_last: list[Cursors] = []
    begin_with = Cursors.__init__
    patch.setattr(Cursors, "__init__", made)  # the last one that is made is that of n4
    patch.setattr(Comparison, "page", page)


@pytest.mark.parametrize(
    ("plant", "found_by"),
    [
        (a_proof_without_the_comparison, test_what_only_one_of_a_quorum_has_is_there_when_it_is_proven),
        (a_proof_by_one_old_replica, test_what_only_one_of_a_quorum_has_is_there_when_it_is_proven),
        (a_proof_without_the_comparison, test_it_is_proven_only_when_a_read_quorum_has_taken_up_the_step),
        (
            a_cursor_that_is_stored_before_its_data,
            test_what_is_before_a_cursor_is_on_the_disk_whenever_it_crashes,
        ),
    ],
)
def test_planted_defects_are_found(
    plant: Plant, found_by: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        found_by(monkeypatch)
