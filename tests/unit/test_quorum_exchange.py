"""An exchange step by step: what it asks for, what it makes of wrong answers, what a message holds."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import AntiEntropySettings, BucketSettings
from kvstore.errors import Overloaded
from kvstore.lsm import Engine, MemoryFileSystem
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import (
    KeyVersion,
    NodeHash,
    RangeDifference,
    RangeItems,
    ReplicaWrite,
    TreeHashes,
    TreeNode,
    TreeRead,
    WriteAck,
)
from kvstore.quorum.background.conversation import Conversation
from kvstore.quorum.background.exchange import Exchange
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.merkle_tree import LEAVES, ROOT
from kvstore.quorum.background.range_items import _runs, difference, held_in
from kvstore.quorum.counters import Counters
from kvstore.quorum.flow import Ask, Flow, Lost, Outcome, Pause, Question, Resumed, Step
from kvstore.quorum.replica import Replica
from kvstore.ring import Member, initial_state, partition_bounds
from kvstore.versions import Dot, EncodedVersion, InternalKey, Sibling, Version, encode_version
from tests.plain import data_key, token

STATE = initial_state(
    "test", [Member(f"n{i}", f"h:{i}") for i in (1, 2, 3)], 1, 3, [BucketSettings("two", n=2, r=1, w=1)]
)
TREE = TreeNode(0, 3, ROOT)
WHOLE = partition_bounds(0, 1)
NOW = Instant(0.0, 0)
PAUSE, TIMEOUT = 0.25, 3.0
T = TypeVar("T")
MESSAGE_NODES, MESSAGE_ITEMS, ANSWER_BYTES = 512, 1024, 256 * 1024


def key(number: int, bucket: str = "carts") -> bytes:
    name = b"key-%d" % number
    return data_key(token(bucket, name), bucket, name)


def version(actor: str, value: bytes) -> bytes:
    dot = Dot(actor, 1)
    return encode_version(Version((dot,), (Sibling(dot, value),)))


class Side:
    """One replica with its trees, and an exchange that it begins; `equal` are the roots found so."""

    def __init__(self, built: bool = True) -> None:
        self.engine = Engine.open(MemoryFileSystem(), "data")
        self.trees = Trees(STATE)
        if built:
            self.trees.build(self.engine.scan, 100_000)
            assert not self.trees.building
        self.replica = Replica(self.engine, STATE.bucket, self.trees.update, Counters())
        self.equal: list[TreeNode] = []
        self.asked: list[Question] = []
        peer = Conversation(
            "peer",
            7,
            self.replica.read,
            self.asked.append,
            lambda _: PAUSE,
            Counters(),
            AntiEntropySettings(timeout=TIMEOUT),
        )
        self.exchange = Exchange(
            peer, self.trees, self.engine.scan, self.store, lambda root, _: self.equal.append(root)
        )

    def store(self, key: InternalKey, version: EncodedVersion) -> EncodedVersion:
        self.replica.apply(key, version)
        return self.replica.read(key)

    def entries(self) -> dict[bytes, bytes]:
        return dict(self.engine.scan(b"d"))


def asked(step: Step) -> Question:
    """The one question that a step asks the peer."""
    assert isinstance(step, Ask)
    ((peer, question),) = step.questions
    assert (peer, step.timeout) == ("peer", TIMEOUT)
    return question


def pushed(step: Step) -> list[InternalKey]:
    """The keys that a step pushes to the peer."""
    assert isinstance(step, Ask)
    writes = [question for _, question in step.questions]
    keys = [write.key for write in writes if isinstance(write, ReplicaWrite)]
    assert len(keys) == len(writes)
    return keys


def outcome(side: Side, question: Question) -> Outcome:
    """What a peer does with one question, within the bounds of a message."""
    match question:
        case TreeRead(_, epoch, nodes):
            assert epoch == 7
            assert 0 < len(nodes) <= MESSAGE_NODES
            return TreeHashes(0, tuple(side.trees.node(node) for node in nodes))
        case RangeItems():
            assert question.epoch == 7
            assert len(question.items) <= 8 * MESSAGE_ITEMS
            answer = difference(side.trees, side.engine.scan, question, ANSWER_BYTES)
            sizes = [len(key) + len(version) for key, version in answer.versions]
            assert sum(sizes[:-1]) < ANSWER_BYTES
            return answer
        case ReplicaWrite():
            assert question.background
            side.store(question.key, question.version)
            return WriteAck(())
        case _:
            raise AssertionError(question)


def answered(side: Side, step: Step) -> Resumed:
    """What a flow goes on with after a step that `side` answers."""
    if isinstance(step, Ask):
        return Resumed(NOW, tuple(outcome(side, question) for _, question in step.questions))
    return Resumed(NOW)


def told(flow: Flow[T], outcome: Outcome) -> Step:
    """The next step but the pause, when the peer says this to the last."""
    step = flow.send(Resumed(NOW, (outcome,)))
    assert step == Pause(PAUSE)
    return flow.send(Resumed(NOW))


def run(flow: Flow[T], side: Side) -> list[Step]:
    """All steps of a flow that `side` answers."""
    steps: list[Step] = []
    try:
        steps.append(next(flow))
        while True:
            assert len(steps) < 600, "it never ends"
            steps.append(flow.send(answered(side, steps[-1])))
    except StopIteration:
        return steps


def ended(flow: Flow[tuple[Instant, list[TreeNode]]], step: Step, side: Side) -> list[TreeNode]:
    """What a flow returns that only has questions left which `side` answers at once."""
    while True:
        assert isinstance(step, Ask) or step == Pause(PAUSE)
        try:
            step = flow.send(answered(side, step))
        except StopIteration as end:
            _, found = end.value
            return list(found)


def until_items(flow: Flow[T], side: Side) -> RangeItems:
    """The first question about items; what comes before it `side` answers."""
    step = next(flow)
    while not (isinstance(step, Ask) and isinstance(question := asked(step), RangeItems)):
        step = flow.send(answered(side, step))
    return question


def fill(side: Side, numbers: range, size: int, actor: str = "a") -> None:
    for number in numbers:
        side.store(InternalKey(key(number)), EncodedVersion(version(actor, b"x" * size)))


@pytest.mark.parametrize("larger", ["asker", "asked"])
def test_answers_that_are_cut_leave_nothing_out_on_either_side(larger: str) -> None:
    a, b = Side(), Side()
    full, other = (a, b) if larger == "asker" else (b, a)
    fill(full, range(3000), 300)
    fill(other, range(3000, 3040), 50)
    fill(other, range(100), 60, "b")  # of these each side has a value that the other has not
    run(a.exchange.repair(TREE, NOW), b)
    assert a.entries() == b.entries()
    assert len(a.entries()) == 3040
    assert a.equal == [TREE], "what was repaired is found equal at once"
    assert sum(isinstance(question, RangeItems) for question in a.asked) > (2 if larger == "asker" else 3)


def test_who_asks_has_nothing_of_what_an_answer_cannot_hold() -> None:
    a, b = Side(), Side()
    fill(b, range(200), 5000)
    run(a.exchange.repair(TREE, NOW), b)
    assert a.entries() == b.entries()


def test_roots_are_compared_again_after_the_pause_and_in_messages_of_a_bounded_size() -> None:
    a, b = Side(), Side()
    fill(a, range(1), 10)
    flow = a.exchange.compare([TREE] * 1200, 2.5, NOW)
    step = next(flow)
    while step != Pause(2.5):
        assert isinstance(step, Ask) or step == Pause(PAUSE)
        step = flow.send(answered(b, step))
    assert [len(question.nodes) for question in a.asked if isinstance(question, TreeRead)] == [512, 512, 176]
    b.store(InternalKey(key(0)), a.replica.read(InternalKey(key(0))))  # it was in flight
    assert ended(flow, flow.send(Resumed(NOW)), b) == []
    assert len(a.equal) == 1200


def test_what_is_not_known_does_not_hide_what_differs() -> None:
    a, b = Side(), Side()
    fill(a, range(1), 10)
    flow = a.exchange.compare([TreeNode(0, 5, ROOT), TREE], 1.0, NOW)
    assert told(flow, outcome(b, asked(next(flow)))) == Pause(1.0)


@pytest.mark.parametrize(("items", "children"), [(32, 0), (33, 16)])
def test_children_are_asked_for_where_that_is_less_than_the_items(items: int, children: int) -> None:
    a = Side()
    fill(a, range(items), 10)
    question = asked(next(a.exchange.repair(TREE, NOW)))
    assert (len(question.nodes) if isinstance(question, TreeRead) else 0) == children


def test_equal_roots_need_no_pause() -> None:
    a, b = Side(), Side()
    flow = a.exchange.compare([TREE], 1.0, NOW)
    assert ended(flow, next(flow), b) == []


@pytest.mark.parametrize("unknown", ["asker", "asked", "both"])
def test_a_tree_that_is_not_known_yet_is_neither_equal_nor_different(unknown: str) -> None:
    a, b = Side(unknown == "asked"), Side(unknown == "asker")
    if unknown != "asked":
        fill(b, range(5), 10)
    else:
        fill(a, range(5), 10)
    flow = a.exchange.compare([TREE], 1.0, NOW)
    assert ended(flow, next(flow), b) == []
    assert a.equal == []


@pytest.mark.parametrize(
    "wrong",
    [
        TreeHashes(0, ()),
        TreeHashes(0, (NodeHash(0, 0), NodeHash(0, 0))),
        RangeDifference(0, (), (), b""),
        None,
    ],
)
def test_an_answer_to_another_question_ends_the_exchange(wrong: Outcome) -> None:
    a = Side()
    flow = a.exchange.compare([TREE], 1.0, NOW)
    assert isinstance(asked(next(flow)), TreeRead)
    with pytest.raises(Lost):
        told(flow, wrong)


@pytest.mark.parametrize("fetching", [True, False])
def test_hashes_are_no_answer_to_items(fetching: bool) -> None:
    a, b = Side(), Side()
    fill(b, range(3), 10)
    flow = a.exchange.fetch(0, 3, *WHOLE, NOW) if fetching else a.exchange.repair(TREE, NOW)
    until_items(flow, b)
    with pytest.raises(Lost):
        told(flow, TreeHashes(0, ()))


FOREIGN = KeyVersion(InternalKey(key(1)), EncodedVersion(version("z", b"v")))


@pytest.mark.parametrize(
    ("fetching", "versions", "reached"),
    [(True, (), b"\xff"), (False, (), b"\xff"), (True, (FOREIGN,), WHOLE[0])],
    ids=["fetched, nothing in it", "nothing in it", "fetched, does not go on"],
)
def test_an_answer_that_is_cut_and_leads_nowhere_ends_the_exchange(
    fetching: bool, versions: tuple[KeyVersion, ...], reached: bytes
) -> None:
    a, b = Side(), Side()
    fill(a, range(3), 10)
    flow = a.exchange.fetch(0, 3, *WHOLE, NOW) if fetching else a.exchange.repair(TREE, NOW)
    until_items(flow, b)
    with pytest.raises(Lost):
        told(flow, RangeDifference(0, versions, (), reached))


def test_the_same_answer_again_and_again_ends_the_exchange() -> None:
    a, b = Side(), Side()
    fill(a, range(3), 10)
    flow = a.exchange.repair(TREE, NOW)
    until_items(flow, b)
    reached = max(a.entries())
    cut = RangeDifference(0, (FOREIGN,), (), reached)
    for after in (b"", reached):
        step = told(flow, cut)
        while not (isinstance(step, Ask) and isinstance(question := asked(step), RangeItems)):
            step = flow.send(answered(b, step))
        assert question.after == after
    with pytest.raises(Lost):
        told(flow, cut)


def test_a_peer_that_serves_somebody_else_ends_a_repair_in_peace() -> None:
    a, b = Side(), Side()
    fill(b, range(100), 10)
    flow = a.exchange.repair(TREE, NOW)
    until_items(flow, b)
    with pytest.raises(StopIteration):
        told(flow, Overloaded(1.0))


def test_positions_beyond_what_was_sent_are_nobody_s() -> None:
    a, b = Side(), Side()
    fill(a, range(3), 10)
    flow = a.exchange.repair(TREE, NOW)
    question = until_items(flow, b)
    assert len(question.items) == 3 * 8
    push = told(flow, RangeDifference(0, (), (2, 3, 10**6), b""))
    assert pushed(push) == [sorted(a.entries())[2]]


def test_what_is_pushed_is_what_the_peer_lacks_and_each_once() -> None:
    a, b = Side(), Side()
    fill(a, range(3), 10)
    flow = a.exchange.repair(TREE, NOW)
    until_items(flow, b)
    keys = sorted(a.entries())
    theirs = (
        KeyVersion(InternalKey(keys[0]), EncodedVersion(version("b", b"other"))),
        KeyVersion(InternalKey(keys[1]), EncodedVersion(a.entries()[keys[1]])),
        KeyVersion(InternalKey(key(9)), EncodedVersion(version("b", b"new"))),
    )
    assert pushed(told(flow, RangeDifference(0, theirs, (0, 2), b""))) == [keys[0], keys[2]]
    assert key(9) in a.entries()


@pytest.mark.parametrize("numbers", [range(2500), range(200)], ids=["more than a message", "few"])
@pytest.mark.parametrize("size", [20, 4000])
def test_a_range_is_fetched_whole_and_nothing_beside_it(numbers: range, size: int) -> None:
    a, b = Side(), Side()
    fill(b, numbers, size if len(numbers) == 200 else 20)
    fill(a, range(0, len(numbers), 2), size if len(numbers) == 200 else 20)
    held = sorted(b.entries())
    first, end = held[20], held[-20]
    before = a.entries()
    steps = run(a.exchange.fetch(0, 3, first, end, NOW), b)
    inside = {key: value for key, value in b.entries().items() if first <= key < end}
    assert a.entries() == before | inside
    assert all(step == Pause(PAUSE) or isinstance(asked(step), RangeItems) for step in steps), (
        "nothing is pushed"
    )


def test_keys_of_other_buckets_belong_to_other_trees() -> None:
    side = Side()
    side.store(InternalKey(key(1)), EncodedVersion(version("a", b"three")))
    side.store(InternalKey(key(1, "two")), EncodedVersion(version("a", b"two")))
    leaves = bytes(range(LEAVES))
    for n, held in ((3, key(1)), (2, key(1, "two"))):
        found = held_in(side.trees, side.engine.scan, 0, n, leaves, b"", b"")
        assert [each for each, _ in found] == [held]


def test_a_version_that_no_node_would_take_is_not_sent() -> None:
    a, b = Side(), Side()
    b.engine.write([(key(1), b"garbage"), (key(2), version("a", b"v"))])
    asked = RangeItems(0, 7, 0, 3, bytes(range(LEAVES)), b"", b"", b"")
    assert [each for each, _ in difference(b.trees, b.engine.scan, asked, ANSWER_BYTES).versions] == [key(2)]
    assert a.entries() == {}


@given(st.sets(st.integers(0, LEAVES - 1)))
def test_neighbours_make_one_run(leaves: set[int]) -> None:
    runs = list(_runs(bytes(sorted(leaves))))
    assert [leaf for first, last in runs for leaf in range(first, last + 1)] == sorted(leaves)
    assert all(end + 1 < start for (_, end), (start, _) in pairwise(runs))
