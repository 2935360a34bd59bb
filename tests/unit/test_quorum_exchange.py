"""An exchange step by step: what it asks for, what it makes of wrong answers, what a message holds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import BucketSettings
from kvstore.errors import Overloaded
from kvstore.lsm import Engine, MemoryFileSystem
from kvstore.protocol.messages import NodeHash, RangeDifference, RangeItems, TreeHashes, TreeNode, TreeRead
from kvstore.quorum.background.exchange import (
    Exchange,
    Flow,
    Lost,
    Pause,
    Push,
    Step,
    _runs,
    difference,
    held_in,
)
from kvstore.quorum.background.merkle import LEAVES, ROOT, Trees
from kvstore.quorum.counters import Counters
from kvstore.quorum.replica import Replica
from kvstore.ring import Member, data_key, initial_state, partition_bounds, token
from kvstore.versions import Dot, Sibling, Version, encode_version

STATE = initial_state(
    "test", [Member(f"n{i}", f"h:{i}") for i in (1, 2, 3)], 1, 3, [BucketSettings("two", n=2, r=1, w=1)]
)
TREE = TreeNode(0, 3, ROOT)
WHOLE = partition_bounds(0, 1)
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
        self.replica = Replica(self.engine, STATE.bucket, self.trees, Counters())
        self.equal: list[TreeNode] = []
        self.exchange = Exchange(7, self.trees, self.engine.scan, self.store, self.equal.append)

    def store(self, key: bytes, version: bytes) -> bytes:
        self.replica.apply(key, version)
        return self.replica.read(key)

    def entries(self) -> dict[bytes, bytes]:
        return dict(self.engine.scan(b"d"))


def answer(asker: Side, side: Side, step: Step) -> object:
    """What a peer does with one step, within the bounds of a message."""
    match step:
        case TreeRead(_, epoch, nodes):
            assert epoch == 7
            assert 0 < len(nodes) <= MESSAGE_NODES
            return TreeHashes(0, tuple(side.trees.node(node) for node in nodes))
        case RangeItems():
            assert step.epoch == 7
            assert len(step.items) <= 8 * MESSAGE_ITEMS
            answer = difference(side.trees, side.engine.scan, step, ANSWER_BYTES)
            sizes = [len(key) + len(version) for key, version in answer.versions]
            assert sum(sizes[:-1]) < ANSWER_BYTES
            return answer
        case Push(keys):
            for pushed in keys:
                side.store(pushed, asker.replica.read(pushed))
    return None


def run(asker: Side, flow: Flow[None], side: Side) -> list[Step]:
    """All steps of a flow that `side` answers."""
    steps: list[Step] = []
    given: object = None
    while True:
        assert len(steps) < 300, "it never ends"
        try:
            steps.append(flow.send(given))
        except StopIteration:
            return steps
        given = answer(asker, side, steps[-1])


def ended(asker: Side, flow: Flow[list[TreeNode]], step: Step, side: Side) -> list[TreeNode]:
    """What a flow returns that only has questions left which `side` answers at once."""
    while True:
        assert not isinstance(step, Pause)
        try:
            step = flow.send(answer(asker, side, step))
        except StopIteration as end:
            found: list[TreeNode] = end.value
            return found


def until_items(asker: Side, flow: Flow[None], side: Side) -> RangeItems:
    """The first question about items; what comes before it `side` answers."""
    step = next(flow)
    while not isinstance(step, RangeItems):
        step = flow.send(answer(asker, side, step))
    return step


def fill(side: Side, numbers: range, size: int, actor: str = "a") -> None:
    for number in numbers:
        side.store(key(number), version(actor, b"x" * size))


@pytest.mark.parametrize("larger", ["asker", "asked"])
def test_answers_that_are_cut_leave_nothing_out_on_either_side(larger: str) -> None:
    a, b = Side(), Side()
    full, other = (a, b) if larger == "asker" else (b, a)
    fill(full, range(3000), 300)
    fill(other, range(3000, 3040), 50)
    fill(other, range(100), 60, "b")  # of these each side has a value that the other has not
    steps = run(a, a.exchange.repair(TREE), b)
    assert a.entries() == b.entries()
    assert len(a.entries()) == 3040
    assert a.equal == [TREE], "what was repaired is found equal at once"
    assert sum(isinstance(step, RangeItems) for step in steps) > (2 if larger == "asker" else 3)


def test_who_asks_has_nothing_of_what_an_answer_cannot_hold() -> None:
    a, b = Side(), Side()
    fill(b, range(200), 5000)
    run(a, a.exchange.repair(TREE), b)
    assert a.entries() == b.entries()


def test_roots_are_compared_again_after_the_pause_and_in_messages_of_a_bounded_size() -> None:
    a, b = Side(), Side()
    fill(a, range(1), 10)
    flow = a.exchange.compare([TREE] * 1200, 2.5)
    step, sizes = next(flow), []
    while isinstance(step, TreeRead):
        sizes.append(len(step.nodes))
        step = flow.send(answer(a, b, step))
    assert sizes == [512, 512, 176]
    assert step == Pause(2.5)
    b.store(key(0), a.replica.read(key(0)))  # it was in flight
    assert ended(a, flow, flow.send(None), b) == []
    assert len(a.equal) == 1200


def test_what_is_not_known_does_not_hide_what_differs() -> None:
    a, b = Side(), Side()
    fill(a, range(1), 10)
    flow = a.exchange.compare([TreeNode(0, 5, ROOT), TREE], 1.0)
    assert isinstance(flow.send(answer(a, b, next(flow))), Pause)


@pytest.mark.parametrize(("items", "children"), [(32, 0), (33, 16)])
def test_children_are_asked_for_where_that_is_less_than_the_items(items: int, children: int) -> None:
    a = Side()
    fill(a, range(items), 10)
    step = next(a.exchange.repair(TREE))
    assert (len(step.nodes) if isinstance(step, TreeRead) else 0) == children


def test_equal_roots_need_no_pause() -> None:
    a, b = Side(), Side()
    flow = a.exchange.compare([TREE], 1.0)
    assert ended(a, flow, next(flow), b) == []


@pytest.mark.parametrize("unknown", ["asker", "asked", "both"])
def test_a_tree_that_is_not_known_yet_is_neither_equal_nor_different(unknown: str) -> None:
    a, b = Side(unknown == "asked"), Side(unknown == "asker")
    if unknown != "asked":
        fill(b, range(5), 10)
    else:
        fill(a, range(5), 10)
    flow = a.exchange.compare([TREE], 1.0)
    assert ended(a, flow, next(flow), b) == []
    assert a.equal == []


@pytest.mark.parametrize(
    "wrong",
    [
        TreeHashes(0, ()),
        TreeHashes(0, (NodeHash(0, 0), NodeHash(0, 0))),
        RangeDifference(0, (), (), b""),
    ],
)
def test_an_answer_to_another_question_ends_the_exchange(wrong: object) -> None:
    a = Side()
    flow = a.exchange.compare([TREE], 1.0)
    assert isinstance(next(flow), TreeRead)
    with pytest.raises(Lost):
        flow.send(wrong)


@pytest.mark.parametrize("fetching", [True, False])
def test_hashes_are_no_answer_to_items(fetching: bool) -> None:
    a, b = Side(), Side()
    fill(b, range(3), 10)
    flow = a.exchange.fetch(0, 3, *WHOLE) if fetching else a.exchange.repair(TREE)
    until_items(a, flow, b)
    with pytest.raises(Lost):
        flow.send(TreeHashes(0, ()))


def test_a_peer_that_serves_somebody_else_ends_a_repair_in_peace() -> None:
    a, b = Side(), Side()
    fill(b, range(100), 10)
    flow = a.exchange.repair(TREE)
    until_items(a, flow, b)
    with pytest.raises(StopIteration):
        flow.throw(Overloaded(1.0))


def test_positions_beyond_what_was_sent_are_nobody_s() -> None:
    a, b = Side(), Side()
    fill(a, range(3), 10)
    flow = a.exchange.repair(TREE)
    step = until_items(a, flow, b)
    assert len(step.items) == 3 * 8
    push = flow.send(RangeDifference(0, (), (2, 3, 10**6), b""))
    assert push == Push((sorted(a.entries())[2],))


def test_what_is_pushed_is_what_the_peer_lacks_and_each_once() -> None:
    a, b = Side(), Side()
    fill(a, range(3), 10)
    flow = a.exchange.repair(TREE)
    until_items(a, flow, b)
    keys = sorted(a.entries())
    theirs = (
        (keys[0], version("b", b"other")),
        (keys[1], a.entries()[keys[1]]),
        (key(9), version("b", b"new")),
    )
    assert flow.send(RangeDifference(0, theirs, (0, 2), b"")) == Push((keys[0], keys[2]))
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
    steps = run(a, a.exchange.fetch(0, 3, first, end), b)
    inside = {key: value for key, value in b.entries().items() if first <= key < end}
    assert a.entries() == before | inside
    assert all(isinstance(step, RangeItems) for step in steps), "nothing is pushed"


def test_keys_of_other_buckets_belong_to_other_trees() -> None:
    side = Side()
    side.store(key(1), version("a", b"three"))
    side.store(key(1, "two"), version("a", b"two"))
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
