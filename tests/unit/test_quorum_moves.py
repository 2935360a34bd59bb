"""Requests of a partition that moves: who is written to, who is read, and what a change under way does."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from kvstore.config import AntiEntropySettings, BucketSettings, QuorumMode
from kvstore.errors import StaleRing, Unavailable, WriteTimeout
from kvstore.membership import transitions
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Failed, Found, Stored
from kvstore.protocol.peer import (
    Forward,
    ForwardReply,
    MoveProgress,
    RangeItems,
    ReadReply,
    ReadSame,
    ReplicaRead,
    ReplicaWrite,
    ScanItems,
    WriteAck,
)
from kvstore.protocol.scan import Scan
from kvstore.protocol.spread import AtEpoch, NewState, StateWanted
from kvstore.quorum.placement import Placements, place
from kvstore.ring import ClusterState, replicas
from kvstore.versions import BucketName, Dot, EncodedVersion, Sibling, Version, encode_version
from tests.plain import Delete, Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster
from tests.unit.test_node_state import epoch, give, key_in

PARTITION = 3
QUIET = NodeSettings(anti_entropy=AntiEntropySettings(interval=float("inf"), reap_interval=float("inf")))
FAST = NodeSettings(
    anti_entropy=AntiEntropySettings(interval=1.0, settle=0.1, reap_interval=1.0, reap_age=5.0)
)
OLD, BOTH_READ_OLD, BOTH_READ_NEW, NEW = range(4)


class Moving:
    """A partition that moves from replicas a b c to a d e (`new` says otherwise), and a key of it.

    `emptied`: so many of the first ones have lost their data.
    """

    def __init__(
        self,
        cluster: Cluster | None = None,
        new: str = "ade",
        emptied: int = 0,
        bucket: str = "carts",
    ) -> None:
        self.cluster = cluster or Cluster(5, settings=QUIET)
        first = self.cluster.state
        old = first.ring.replica_lists[PARTITION]
        self.name = dict(
            zip("abcde", (*old, *(node for node in self.cluster.hosts if node not in old)), strict=False)
        )
        lists = {PARTITION: tuple(self.name[each] for each in new)}
        begun = transitions.begin(first, lists, emptied={PARTITION: old[:emptied]} if emptied else {})
        read_new = transitions.advance(begun, [PARTITION])
        last = transitions.advance(read_new, [PARTITION])
        self.states: tuple[ClusterState, ...] = (first, begun, read_new, last)
        self.bucket = bucket
        self.key = key_in(self.cluster, PARTITION, bucket)
        self.internal = data_key(token(bucket, self.key), bucket, self.key)
        self.silent: set[str] = set()
        """Nodes whose answers are lost."""
        self.sent: list[tuple[str, str, object]] = []
        self.cluster.passes = self._passes

    def _passes(self, sender: str, to: str, message: object) -> bool:
        self.sent.append((sender, to, message))
        # nodes hear of states from the test alone
        if isinstance(message, AtEpoch | NewState | StateWanted | MoveProgress):
            return False
        return sender not in self.silent or not isinstance(message, WriteAck | ReadSame | ReadReply)

    def nodes(self, names: str) -> set[str]:
        return {self.name[each] for each in names}

    def asked(self, kind: type) -> set[str]:
        """Who was asked about the partition, and since the last time."""
        found = {to for _, to, message in self.sent if isinstance(message, kind)}
        self.sent.clear()
        return found

    def at(self, step: int, names: str = "abcde") -> None:
        """These nodes take a step up: 0 is before the move, 3 after it."""
        for state in self.states[1 : step + 1]:
            behind = [n for n in self.nodes(names) if epoch(self.cluster.hosts[n]) < state.epoch]
            if behind:
                give(self.cluster, state, *sorted(behind))

    def call(self, name: str, call: Get | Put | Delete) -> object:  # type: ignore[valid-type]
        reply = self.cluster.call(self.name[name], call)
        return reply.error if isinstance(reply, Failed) else reply

    def put(self, name: str, value: bytes = b"v", **options: object) -> object:
        return self.call(name, Put(self.bucket, self.key, value, **options))  # type: ignore[arg-type]

    def get(self, name: str, **options: object) -> object:
        return self.call(name, Get(self.bucket, self.key, **options))  # type: ignore[arg-type]

    def holders(self) -> set[str]:
        found = {n for n in self.cluster.hosts if self.cluster.stored(n, self.bucket, self.key)}
        return {name for name, node in self.name.items() if node in found}

    def plant(self, names: str, value: bytes = b"planted") -> None:
        """A write that only some nodes have."""
        dot = Dot("planted", 1)
        stored = encode_version(Version((dot,), (Sibling(dot, value),)))
        for node in self.nodes(names):
            host = self.cluster.hosts[node]
            host.node.base.local.store(self.internal, EncodedVersion(stored))
            host.sync_wanted = True
        self.cluster.run()


def values(reply: object) -> list[bytes]:
    assert isinstance(reply, Found), reply
    return [sibling.value for sibling in reply.siblings]


@pytest.mark.parametrize("step", [BOTH_READ_OLD, BOTH_READ_NEW])
def test_a_write_goes_to_both_lists(step: int) -> None:
    moving = Moving()
    moving.at(step)
    assert isinstance(moving.put("a"), Stored)
    assert moving.holders() == set("abcde")


@pytest.mark.parametrize("step", [BOTH_READ_OLD, BOTH_READ_NEW])
@pytest.mark.parametrize(("silent", "enough"), [("bd", True), ("bc", False), ("de", False)])
def test_a_write_needs_w_of_each_list(step: int, silent: str, enough: bool) -> None:
    moving = Moving()
    moving.at(step)
    moving.silent = moving.nodes(silent)
    reply = moving.put("a", w=2)
    assert isinstance(reply, Stored if enough else WriteTimeout), reply


@pytest.mark.parametrize(
    ("step", "read"), [(OLD, "bc"), (BOTH_READ_OLD, "bc"), (BOTH_READ_NEW, "de"), (NEW, "de")]
)
def test_a_read_asks_the_list_that_its_step_reads(step: int, read: str) -> None:
    moving = Moving()
    moving.at(step)
    moving.sent.clear()
    assert values(moving.get("a", r=3)) == []
    assert moving.asked(ReplicaRead) == moving.nodes(read)


def test_what_a_coming_replica_lacks_is_missed_by_no_read() -> None:
    moving = Moving()
    moving.plant("bc")
    moving.at(BOTH_READ_OLD)
    for name in "de":
        assert values(moving.get(name, r=2)) == [b"planted"]
    # passed on to one that is read; when none can be reached for that, its own copy counts for nothing
    assert moving.asked(Forward) <= moving.nodes("abc")
    moving.cluster.kill(*moving.nodes("ab"))
    assert values(moving.get("d", r=1)) == [b"planted"]
    moving.cluster.kill(*moving.nodes("c"))
    assert isinstance(moving.get("d", r=1), Unavailable)


def test_a_coming_replica_that_a_request_was_passed_on_to_answers_with_what_others_hold() -> None:
    moving = Moving()
    moving.plant("abc")
    moving.at(BOTH_READ_OLD)
    moving.sent.clear()
    forward = Forward(7, 2, Get("carts", moving.key, r=1, timeout=5.0), "")
    moving.cluster.hosts[moving.name["d"]].node.on_frame(moving.name["a"], [forward], moving.cluster.instant)
    moving.cluster.run()
    (reply,) = [message for _, _, message in moving.sent if isinstance(message, ForwardReply)]
    assert values(reply.reply) == [b"planted"]


def test_a_delete_without_a_context_sees_what_the_old_list_has() -> None:
    moving = Moving()
    moving.plant("bc")
    moving.at(BOTH_READ_OLD)
    assert isinstance(moving.call("d", Delete("carts", moving.key)), Stored)
    assert values(moving.get("a", r=3)) == []
    moving.at(BOTH_READ_NEW)
    assert values(moving.get("a", r=3)) == []


@pytest.mark.parametrize(("step", "told"), [(BOTH_READ_OLD, True), (BOTH_READ_NEW, False)])
def test_a_scan_asks_the_list_that_its_step_reads(step: int, told: bool) -> None:
    moving = Moving()
    moving.plant("abc")
    moving.at(step)
    scan = Scan(BucketName("carts"), w=3)
    found = moving.cluster.scanned(scan, moving.name["d"])
    assert [each.key for each in found] == ([moving.key] if told else [])


def test_a_scan_is_asked_by_the_epoch_that_its_quorum_is_of() -> None:
    """As any request: by a later one, what is left of the old list would count as one of the new."""
    moving = Moving()
    moving.plant("bc")
    epochs: list[int] = []
    replies: list[object] = []

    def watch(_: str, __: str, message: object) -> bool:
        if isinstance(message, ScanItems) and message.partition == PARTITION:
            epochs.append(message.epoch)
            return len(epochs) > 1  # the first one is lost: another replica is asked
        return True

    moving.cluster.passes = watch
    node = moving.cluster.hosts[moving.name["a"]].node
    node.on_scan(Scan(BucketName("carts"), w=2), replies.append, moving.cluster.instant)
    moving.cluster.run()
    moving.at(BOTH_READ_OLD, "a")
    moving.cluster.move(10.0)
    assert replies
    assert set(epochs) == {1}


def test_a_partition_whose_replica_was_emptied_is_read_from_the_others() -> None:
    moving = Moving(new="abc", emptied=1)
    moving.plant("bc")
    moving.at(BOTH_READ_OLD)
    assert values(moving.get("a", r=2)) == [b"planted"]
    assert values(moving.get("b", r=2)) == [b"planted"]
    assert isinstance(moving.get("b", r=3), Unavailable)
    assert isinstance(moving.put("b", b"w", w=3), Stored), "all of a list that has less than W"
    moving.silent = moving.nodes("b")
    assert isinstance(moving.put("c", b"x", w=2), WriteTimeout), "W of those that were not emptied"


def test_where_all_are_emptied_reads_are_unavailable_until_the_new_list_is_read() -> None:
    moving = Moving(new="abc", emptied=3)
    moving.at(BOTH_READ_OLD)
    assert isinstance(moving.put("a"), Stored)
    assert isinstance(moving.get("a"), Unavailable)
    moving.at(BOTH_READ_NEW)
    assert values(moving.get("a")) == [b"v"]


def test_a_bucket_with_fewer_replicas_moves_between_the_first_of_each_list() -> None:
    moving = Moving(
        Cluster(5, [BucketSettings("two", n=2, r=2, w=2)], settings=QUIET), new="dae", bucket="two"
    )
    moving.at(BOTH_READ_OLD)
    assert isinstance(moving.put("a"), Stored)
    assert moving.holders() == set("abd")
    moving.silent = moving.nodes("d")
    assert isinstance(moving.put("a", b"w"), WriteTimeout)


@pytest.mark.parametrize("dead", ["b", "d"])
def test_a_dead_replica_of_either_list_gets_its_hint_at_a_node_that_is_in_neither(dead: str) -> None:
    moving = Moving(Cluster(6, settings=QUIET))
    (spare,) = moving.cluster.hosts.keys() - set(moving.name.values())
    moving.at(BOTH_READ_OLD)
    give(moving.cluster, moving.states[1], spare)
    moving.cluster.kill(moving.name[dead])
    assert isinstance(moving.put("a"), Stored)
    assert moving.cluster.hints(spare) == {moving.name[dead]: 1}
    moving.cluster.revive(moving.name[dead])
    moving.cluster.move(30.0)
    assert moving.holders() == set("abcde")
    assert not moving.cluster.hints(spare)


@pytest.mark.parametrize(("mode", "enough"), [(QuorumMode.SLOPPY, True), (QuorumMode.STRICT, False)])
def test_a_fallback_counts_for_the_list_of_whom_it_stands_in_for(mode: QuorumMode, enough: bool) -> None:
    """For b, and no other: with d and e silent the new list has one vote, as it has without them."""
    moving = Moving(Cluster(6, settings=QUIET))
    (spare,) = moving.cluster.hosts.keys() - set(moving.name.values())
    moving.at(BOTH_READ_OLD)
    give(moving.cluster, moving.states[1], spare)
    moving.cluster.kill(*moving.nodes("b"))
    moving.silent = moving.nodes("c")
    assert isinstance(moving.put("a", w=2, quorum=mode, timeout=1.5), Stored if enough else WriteTimeout)
    moving.silent = moving.nodes("de")
    assert isinstance(moving.put("a", b"w", w=2, quorum=mode, timeout=1.5), WriteTimeout)


def test_a_fallback_that_is_asked_later_counts_for_one_list_too() -> None:
    """It is asked for b, when b is late; of the new list a alone has the write."""
    moving = Moving(Cluster(6, settings=QUIET))
    (spare,) = moving.cluster.hosts.keys() - set(moving.name.values())
    moving.at(BOTH_READ_OLD)
    give(moving.cluster, moving.states[1], spare)
    moving.silent = moving.nodes("bc")
    assert isinstance(moving.put("a", w=2, quorum=QuorumMode.SLOPPY, timeout=4.0), Stored)
    moving.silent = moving.nodes("bde")
    assert isinstance(moving.put("a", b"w", w=2, quorum=QuorumMode.SLOPPY, timeout=4.0), WriteTimeout)


@pytest.mark.parametrize(("size", "spare"), [(5, 0), (6, 1), (8, 2)])
def test_no_replica_of_either_list_stands_in_for_another(size: int, spare: int) -> None:
    """In any partition: which nodes are the next to stand in differs."""
    first = Cluster(size, settings=QUIET).state
    nodes = [member.node for member in first.members]
    lists = {
        partition: (old[0], *[node for node in nodes if node not in old][:2])
        for partition, old in enumerate(first.ring.replica_lists)
    }
    begun = transitions.begin(first, lists)
    for state, partition in product((begun, transitions.advance(begun, lists)), lists):
        primaries = replicas(state, partition, 3)
        placements = Placements(primaries[0], state, lambda _: True)
        assert placements.another_fallback(partition, 3, (), primaries[0]) not in primaries
        for dead in combinations(primaries[1:], 2):
            placed = place(state, partition, 3, primaries[0], lambda node, dead=dead: node not in dead)  # type: ignore[misc]
            stand_ins = {target.node for target in placed.targets if target.hint_for}
            assert (len(stand_ins), len(placed.unplaced)) == (spare, 2 - spare)
            assert stand_ins.isdisjoint(primaries)


STEPS = [(OLD, BOTH_READ_OLD), (BOTH_READ_OLD, BOTH_READ_NEW), (BOTH_READ_NEW, NEW)]


@pytest.mark.parametrize(("before", "after"), STEPS)
@pytest.mark.parametrize("ahead", ["a", "bcde"])
def test_a_write_between_two_steps_waits_until_all_that_it_needs_are_at_the_same(
    before: int, after: int, ahead: str
) -> None:
    """Its coordinator is ahead of the others, or behind them; its client sees nothing of it."""
    moving = Moving()
    moving.at(before)
    moving.at(after, ahead)
    number = moving.cluster.start(moving.name["a"], Put("carts", moving.key, b"v", w=2))
    moving.cluster.run()
    replies = moving.cluster.hosts[moving.name["a"]].replies
    assert number not in replies, "whom it was placed at has refused it, or those that it asks"
    moving.at(after)
    moving.cluster.move(1.0)
    assert isinstance(replies[number], Stored), replies.get(number)
    needed = {OLD: "abc", BOTH_READ_OLD: "abcde", BOTH_READ_NEW: "abcde", NEW: "ade"}[after]
    moving.cluster.move(5.0)
    assert moving.holders() >= set(needed)
    assert len(values(moving.get("a", r=2))) == 1, "it has one dot, however often it was sent"


@pytest.mark.parametrize(("before", "after"), STEPS)
@pytest.mark.parametrize("ahead", ["a", "bcde"])
def test_a_read_between_two_steps_is_answered_by_its_own_or_refused_as_stale(
    before: int, after: int, ahead: str
) -> None:
    moving = Moving()
    moving.at(before)
    assert isinstance(moving.put("a", w=3), Stored)
    moving.cluster.run()
    moving.at(after, ahead)
    reply = moving.get("a", r=2, timeout=2.0)
    assert isinstance(reply, StaleRing), reply
    moving.at(after)
    if after != BOTH_READ_NEW or before != OLD:
        assert values(moving.get("a", r=2)) == [b"v"]


def test_votes_of_the_list_before_count_for_nothing_when_the_replicas_change() -> None:
    """What b and c have acknowledged makes no quorum of a d e."""
    moving = Moving()
    moving.at(BOTH_READ_NEW)
    moving.silent = moving.nodes("de")
    number = moving.cluster.start(moving.name["a"], Put("carts", moving.key, b"v", w=2, timeout=3.0))
    moving.cluster.run()
    moving.at(NEW)
    moving.cluster.move(1.0)
    replies = moving.cluster.hosts[moving.name["a"]].replies
    assert number not in replies
    moving.cluster.move(5.0)
    reply = replies[number]
    assert isinstance(reply, Failed)
    assert isinstance(reply.error, WriteTimeout)


def test_read_repair_of_the_coordinators_own_copy_is_fenced_by_the_epoch_of_its_read() -> None:
    """Else its vote would be of the present step, in a quorum of the one before."""
    moving = Moving()
    moving.plant("b")
    answers: list[tuple[str, ReadReply]] = []

    def hold(sender: str, _: str, message: object) -> bool:
        """The answer of b comes later, that of c never."""
        if isinstance(message, ReadReply):
            answers.append((sender, message))
        return not isinstance(message, ReadReply | ReadSame)

    moving.cluster.passes = hold
    call = Get("carts", moving.key, r=2, timeout=5.0)
    number = moving.cluster.start(moving.name["a"], call)
    moving.cluster.run()
    moving.cluster.move(1.0)  # until b is asked, too
    assert answers
    moving.at(BOTH_READ_OLD, "a")
    host = moving.cluster.hosts[moving.name["a"]]
    for sender, message in answers:
        host.node.on_frame(sender, [message], moving.cluster.instant)
    moving.cluster.run()
    assert "a" not in moving.holders()
    moving.cluster.move(10.0)
    assert isinstance(host.replies[number], Failed)


def test_a_proof_of_equality_by_an_earlier_step_is_none_of_this_one() -> None:
    moving = Moving(Cluster(5, settings=FAST))
    moving.cluster.move(20.0)
    proofs = moving.cluster.hosts[moving.name["a"]].node.background.proofs
    root = next(root for root in proofs.roots[moving.name["b"]] if root.partition == PARTITION)
    moving.at(BOTH_READ_OLD, "a")
    pairs = proofs.status(moving.cluster.instant).unproven
    proofs.proven(moving.name["b"], 1, root, moving.cluster.instant)
    assert proofs.status(moving.cluster.instant).unproven == pairs
    proofs.proven(moving.name["b"], 2, root, moving.cluster.instant)
    assert proofs.status(moving.cluster.instant).unproven == pairs - 1


def test_a_coming_replica_is_filled_and_knows_when_it_is() -> None:
    moving = Moving(Cluster(5, settings=FAST))
    moving.plant("bc")
    moving.at(BOTH_READ_OLD, "de")
    moving.cluster.move(5.0)
    transfers = [moving.cluster.hosts[moving.name[name]].node.background.transfers for name in "de"]
    assert [each.proven for each in transfers] == [(), ()], "the old ones have yet to take it up"
    moving.at(BOTH_READ_OLD)
    moving.cluster.move(20.0)
    assert moving.holders() == set("abcde")
    assert [each.proven for each in transfers] == [(PARTITION,), (PARTITION,)]


def test_a_coming_replica_is_sent_nothing_but_what_it_asks_for() -> None:
    moving = Moving(Cluster(5, settings=FAST))
    moving.plant("abc")

    def coming_ones_cannot_ask(sender: str, to: str, message: object) -> bool:
        asks = isinstance(message, RangeItems) and sender in moving.nodes("de")
        return not asks and moving._passes(sender, to, message)

    moving.cluster.passes = coming_ones_cannot_ask
    moving.at(BOTH_READ_OLD)
    moving.cluster.move(20.0)
    assert moving.holders() == set("abc")
    moving.cluster.passes = moving._passes
    moving.cluster.move(20.0)
    assert moving.holders() == set("abcde")


def test_no_tombstone_is_reaped_while_its_partition_moves() -> None:
    """What an old replica has sent to a coming one may be under way since before the delete."""
    moving = Moving(Cluster(5, settings=FAST))
    moving.at(BOTH_READ_OLD)
    moving.silent = set()
    assert isinstance(moving.put("a", w=3), Stored)
    moving.cluster.run()
    assert isinstance(moving.call("a", Delete("carts", moving.key)), Stored)
    moving.cluster.move(60.0)
    assert moving.holders() == set("abcde")
    moving.at(NEW)
    moving.cluster.move(60.0)
    assert moving.holders() == set()


def test_what_has_moved_away_does_not_come_back_with_the_partition() -> None:
    """A value that was deleted while its replica was elsewhere: nobody has its tombstone any more."""
    moving = Moving(Cluster(5, settings=FAST))
    assert isinstance(moving.put("a", w=3), Stored)
    moving.at(BOTH_READ_OLD)
    moving.cluster.move(20.0)
    moving.at(NEW)
    assert isinstance(moving.call("a", Delete("carts", moving.key)), Stored)
    assert "b" in moving.holders()
    moving.cluster.move(60.0)
    assert moving.holders() == set(), "the tombstone is reaped when what is left of the value has gone"
    assert values(moving.get("a", r=3)) == []


def test_a_hint_for_a_replica_that_has_left_goes_to_both_lists() -> None:
    moving = Moving()
    moving.cluster.kill(*moving.nodes("b"))
    assert isinstance(moving.put("a"), Stored)
    before = {node: moving.cluster.hints(node) for node in moving.cluster.hosts}
    assert any(before.values())
    moving.at(NEW, "acde")
    moving.cluster.move(60.0)
    assert moving.holders() >= set("ade")
    assert not any(moving.cluster.hints(node) for node in moving.nodes("acde"))


def test_the_ordinary_request_is_placed_once() -> None:
    """Placements are kept by partition: what a move costs is paid when the state changes."""
    moving = Moving()
    placements = moving.cluster.hosts[moving.name["a"]].node.base.placements
    for step in (OLD, BOTH_READ_OLD, BOTH_READ_NEW, NEW):
        moving.at(step)
        first = placements.place(PARTITION, 3)
        assert placements.place(PARTITION, 3) is first
        assert first.write_quorums(2, sloppy=False) is first.write_quorums(2, sloppy=False)
        assert len(first.write_quorums(2, sloppy=False)) == (2 if step in (1, 2) else 1)


def test_a_replica_write_is_not_asked_of_a_node_in_neither_list() -> None:
    moving = Moving(Cluster(6, settings=QUIET))
    (spare,) = moving.cluster.hosts.keys() - set(moving.name.values())
    moving.at(BOTH_READ_OLD)
    moving.sent.clear()
    assert isinstance(moving.put("a"), Stored)
    assert spare not in moving.asked(ReplicaWrite)
