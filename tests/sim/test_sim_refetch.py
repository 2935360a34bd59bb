"""Refetching what is quarantined, where something is in the way: full disks, peers that cannot answer."""

from __future__ import annotations

from collections import Counter

import pytest

from kvstore.errors import Corruption, StorageFull
from kvstore.lsm import Engine, Fence
from kvstore.protocol.client import Stored
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import TreeNode
from kvstore.quorum.background.conversation import Conversation
from kvstore.quorum.background.merkle_tree import ROOT
from kvstore.quorum.background.quarantine import Quarantine
from kvstore.quorum.flow import Flow
from kvstore.ring import partition_of
from kvstore.sim.cluster import SETTINGS
from kvstore.sim.invariants.deletions import Deletions
from kvstore.versions import (
    Dot,
    EncodedVersion,
    InternalKey,
    Sibling,
    Version,
    decode_version,
    encode_version,
)
from tests.plain import Put, token
from tests.sim.test_sim_quarantine import KEYS, Damaged, internal, node, without_primaries

PAUSE = SETTINGS.anti_entropy.settle


def test_the_trees_of_what_is_hidden_are_not_known_until_it_is_back() -> None:
    damaged = Damaged()
    cluster = damaged.cluster
    damaged.host.machine.disk.corrupt(f"data/{damaged.table}", 10, 1)  # whole again
    cluster.restart("n1")
    cluster.run(20.0)
    trees = node(damaged.host).base.trees
    state = cluster.state
    parts = {key: partition_of(token("carts", key), state.ring.partitions) for key in KEYS}
    assert all(trees.node(TreeNode(part, 3, ROOT)) for part in parts.values())
    damaged.host.machine.disk.corrupt(f"data/{damaged.table}", 10, 1)
    damaged.engine.tables.scrub()
    cluster.split(["n2"])
    cluster.run(0.1)
    lost = damaged.unreadable()
    assert lost
    assert not any(trees.node(TreeNode(parts[key], 3, ROOT)) for key in lost)
    cluster.heal()
    damaged.wait_until_whole()
    cluster.run(5.0)
    assert all(trees.node(TreeNode(part, 3, ROOT)) for part in parts.values())
    assert cluster.trees_match_disks()


def test_what_nobody_can_tell_stays_hidden_and_is_asked_for_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damaged = Damaged()
    rounds: Counter[str] = Counter()
    take_round = Quarantine.round

    def counted(self: Quarantine, peer: str, conversation: Conversation, now: Instant) -> Flow[None]:
        rounds[peer] += 1
        return take_round(self, peer, conversation, now)

    def damaged_as_well(*_: object) -> None:
        raise Corruption("a table", "a bit has flipped")

    monkeypatch.setattr(Quarantine, "round", counted)
    monkeypatch.setattr("kvstore.quorum.background.answers.difference", damaged_as_well)
    damaged.cluster.restart("n1")
    lost = damaged.unreadable()
    assert lost
    damaged.cluster.run(20 * PAUSE)
    assert damaged.unreadable() == lost
    assert set(rounds) == {"n2", "n3"}
    assert all(3 < number <= 21 for number in rounds.values()), rounds
    assert damaged.host.shell.status().refetching_from == ("n2", "n3")
    damaged.cluster.crash("n3")
    damaged.cluster.run(10.0)
    rounds.clear()
    damaged.cluster.run(10 * PAUSE)
    assert set(rounds) == {"n2"}, "who is dead is not asked"
    monkeypatch.undo()
    damaged.cluster.restart("n3")
    damaged.wait_until_whole()
    assert damaged.unreadable() == []


def test_one_that_cannot_answer_is_passed_over_when_the_other_has(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = Damaged()
    take_round = Quarantine.round

    def n2_cannot(self: Quarantine, peer: str, conversation: Conversation, now: Instant) -> Flow[None]:
        flow = take_round(self, peer, conversation, now)
        if peer != "n2":
            yield from flow
            return
        try:
            next(flow)
            while True:
                flow.throw(Corruption("a table", "a bit has flipped"))
        except StopIteration:
            return
        yield

    monkeypatch.setattr(Quarantine, "round", n2_cannot)
    damaged.cluster.restart("n1")
    assert damaged.unreadable()
    damaged.wait_until_whole()
    assert damaged.unreadable() == []


@pytest.mark.parametrize("at", ["the writes", "the lifting"])
def test_on_a_full_disk_a_fence_stays_and_is_lifted_when_there_is_space(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = Damaged()
    attempts, full = [0], [True]
    write, lift = Quarantine._write, Engine.lift

    def counted_write(self: Quarantine, part: object) -> None:
        attempts[0] += 1
        if full[0]:
            raise StorageFull("no space left")
        write(self, part)  # type: ignore[arg-type]

    def counted_lift(self: Engine, fence: Fence) -> None:
        attempts[0] += 1
        if full[0]:
            raise StorageFull("no space left")
        lift(self, fence)

    if at == "the writes":
        monkeypatch.setattr(Quarantine, "_write", counted_write)
    else:
        monkeypatch.setattr(Engine, "lift", counted_lift)
    damaged.cluster.restart("n1")
    assert damaged.unreadable()
    damaged.cluster.run(15.0)
    attempts[0] = 0  # at first also each answer was a reason to try
    damaged.cluster.run(20 * PAUSE)
    assert damaged.engine.quarantine.fences
    assert 3 < attempts[0] <= 21 * len(damaged.engine.quarantine.fences)
    full[0] = False
    damaged.wait_until_whole()
    assert damaged.unreadable() == []


def test_of_a_key_that_the_others_have_reaped_no_older_version_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Deletions, "data_deleted", lambda *_: None)  # it is taken from them as it is
    damaged = Damaged(compacted=False)
    cluster = damaged.cluster
    cluster.restart("n1")
    cluster.split(["n1"])
    lost = damaged.unreadable()
    assert lost
    for name in ("n2", "n3"):
        for key in KEYS:
            replica = node(cluster.hosts[name]).base.local.replica
            stored = replica.read(InternalKey(internal(key)))
            replica.replace({InternalKey(internal(key)): (stored, EncodedVersion(b""))})
    cluster.run(1.0)
    cluster.heal()
    damaged.wait_until_whole()
    assert [cluster.stored("n1", "carts", key) for key in lost] == [None] * len(lost)


def test_of_a_hint_that_was_damaged_no_older_one_comes_back() -> None:
    """Nobody else has it, so it is given up, and counted: what lies beneath would be a hint of the past."""
    cluster, fallback = without_primaries()
    host = cluster.hosts[fallback]
    for _ in range(2):
        assert isinstance(cluster.call(fallback, Put("sloppy", b"k", b"v" * 400)), Stored)
        cluster.run(1.0)
        host.engine.flush()
    before = host.shell.status().hints
    newest = max(host.engine.tables.levels, key=lambda table: table.path)
    cluster.crash(fallback)
    host.machine.disk.corrupt(newest.path, 10, 1)
    cluster.restart(fallback)
    cluster.run(1.0)
    host.engine.tables.scrub()
    cluster.run(10.0)
    status = host.shell.status()
    assert (status.counters.quarantines > 0, status.engine.quarantined) == (True, 0)
    after = [(pending.target, pending.bytes) for pending in status.hints]
    assert after == [(pending.target, pending.bytes) for pending in before[1:]], "its block held the first"
    assert len(list(host.engine.scan_prefix(b"h"))) == len(after)


def test_what_is_together_too_large_for_a_replica_keeps_no_fence_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each round with who has too much of one key would end there."""
    monkeypatch.setattr("kvstore.sim.cluster.PARTITIONS", 4)  # several keys in each, some of them not hidden
    damaged = Damaged()
    damaged.cluster.split(["n3"])  # it does not learn of what is large
    for key in [*KEYS, *(b"x%d" % i for i in range(8))]:  # the filter of n1's table denies the latter
        dot = Dot(f"of {key!r}", 1)
        version = encode_version(Version((dot,), (Sibling(dot, b"large" * 300),)))
        damaged.cluster.run(0.5)
        node(damaged.cluster.hosts["n2"]).base.local.store(InternalKey(internal(key)), version)
    damaged.cluster.restart("n1")
    node(damaged.host).base.local.replica.largest = 1000
    damaged.cluster.crash("n2")
    damaged.cluster.heal()
    damaged.cluster.run(5.0)
    damaged.cluster.restart("n2")
    lost = damaged.unreadable()
    assert lost
    assert len(lost) < len(KEYS)
    damaged.wait_until_whole()
    for key in lost:
        stored = decode_version(EncodedVersion(damaged.cluster.stored("n1", "carts", key) or b""))
        assert [sibling.value for sibling in stored.siblings] == [b"new"], "what fits"
