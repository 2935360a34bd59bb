"""An exchange between two replicas, however they differ, makes them equal and moves little more than that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.config import KIB, AntiEntropySettings
from kvstore.lsm import Engine, MemoryFileSystem
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import (
    RangeItems,
    ReplicaWrite,
    TreeHashes,
    TreeNode,
    TreeRead,
    WriteAck,
)
from kvstore.protocol.sizes import content_of
from kvstore.quorum.background.conversation import Conversation
from kvstore.quorum.background.exchange import Exchange
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.merkle_tree import ROOT
from kvstore.quorum.background.range_items import difference
from kvstore.quorum.counters import Counters
from kvstore.quorum.flow import Ask, Flow, Outcome, Question, Resumed, Step
from kvstore.quorum.replica import Replica
from kvstore.ring import Member, initial_state
from kvstore.versions import Dot, EncodedVersion, InternalKey, Sibling, Version, encode_version
from tests.plain import data_key, token

STATE = initial_state("test", [Member("n1", "h:1"), Member("n2", "h:2")], 4, 2)
NOW = Instant(0.0, 0)
T = TypeVar("T")
ROOTS = [TreeNode(partition, 2, ROOT) for partition in range(4)]


def key(number: int) -> bytes:
    name = b"key-%d" % number
    return data_key(token("carts", name), "carts", name)


def version(actor: str, counter: int, value: bytes) -> bytes:
    dot = Dot(actor, counter)
    return encode_version(Version((dot,), (Sibling(dot, value),)))


class Side:
    """One replica with its trees."""

    def __init__(self) -> None:
        self.engine = Engine.open(MemoryFileSystem(), "data")
        self.trees = Trees(STATE)
        self.replica = Replica(self.engine, STATE.bucket, self.trees.update, Counters())
        self.trees.build(self.engine.scan, 1000)
        assert not self.trees.building

    def store(self, key: InternalKey, version: EncodedVersion) -> EncodedVersion:
        self.replica.apply(key, version)
        return self.replica.read(key)

    def entries(self) -> dict[bytes, bytes]:
        return dict(self.engine.scan(b"d"))


class Pair:
    """Two replicas, and an exchange that the first one begins; `bytes` counts what is moved."""

    def __init__(self) -> None:
        self.a, self.b = Side(), Side()
        self.bytes = 0
        self.equal: set[TreeNode] = set()

    def converge(self) -> None:
        a = self.a
        peer = Conversation(
            "b", 1, a.replica.read, lambda _: None, lambda _: 0.0, Counters(), AntiEntropySettings()
        )
        exchange = Exchange(peer, a.trees, a.engine.scan, a.store, lambda root, _: self.equal.add(root))
        _, differing = self.result(exchange.compare(ROOTS, 1.0, NOW))
        for root in differing:
            self.result(exchange.repair(root, NOW))

    def result(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                step = flow.send(Resumed(NOW, self.outcomes(step)))
        except StopIteration as end:
            returned: T = end.value
            return returned

    def outcomes(self, step: Step) -> tuple[Outcome, ...]:
        return tuple(self.answer(question) for _, question in step.questions) if isinstance(step, Ask) else ()

    def answer(self, question: Question) -> Outcome:
        match question:
            case ReplicaWrite():
                self.bytes += len(question.key) + len(question.version)
                self.b.store(question.key, question.version)
                return WriteAck(())
            case TreeRead(_, _, nodes):
                hashes = TreeHashes(0, tuple(self.b.trees.node(n) for n in nodes))
                self.bytes += content_of(question) + content_of(hashes)
                return hashes
            case RangeItems():
                found = difference(self.b.trees, self.b.engine.scan, question, 256 * KIB)
                self.bytes += content_of(question) + content_of(found)
                return found
            case _:
                raise AssertionError(question)


writes = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 3), st.sampled_from([b"v", b"same", b"x" * 300])),
    max_size=60,
)


@settings(max_examples=60)
@given(writes, writes, writes)
def test_any_two_replicas_converge(
    both: list[tuple[int, int, bytes]],
    left: list[tuple[int, int, bytes]],
    right: list[tuple[int, int, bytes]],
) -> None:
    pair = Pair()
    for sides, history in (((pair.a, pair.b), both), ((pair.a,), left), ((pair.b,), right)):
        for side in sides:
            for number, counter, value in history:
                side.store(
                    InternalKey(key(number)),
                    EncodedVersion(version(f"actor{len(sides)}{side is pair.a}", counter, value)),
                )
    pair.converge()
    assert pair.a.entries() == pair.b.entries()
    pair.converge()
    assert pair.equal == set(ROOTS)
    expected = rebuilt(pair.a)
    assert [pair.a.trees.node(root) for root in ROOTS] == expected
    assert [pair.b.trees.node(root) for root in ROOTS] == expected


def rebuilt(side: Side) -> list[object]:
    trees = Trees(STATE)
    while trees.building:
        trees.build(side.engine.scan, 1000)
    return [trees.node(root) for root in ROOTS]


def filled(full: Side, numbers: Iterator[int] | range, size: int) -> int:
    moved = 0
    for number in numbers:
        content = version("n1.0", number + 1, b"x" * size)
        full.store(InternalKey(key(number)), EncodedVersion(content))
        moved += len(key(number)) + len(content)
    return moved


def test_an_empty_replica_is_filled_from_either_side_with_less_than_twice_the_bytes() -> None:
    for to_the_right in (True, False):
        pair = Pair()
        differing = filled(pair.a if to_the_right else pair.b, range(5000), 100)
        pair.converge()
        assert pair.a.entries() == pair.b.entries()
        assert len(pair.a.entries()) == 5000
        assert differing <= pair.bytes <= 2 * differing
        assert pair.bytes <= 1.2 * differing, "8 bytes a key and some hashes are all that is added"


def test_few_differences_among_many_keys_cost_few_bytes() -> None:
    pair = Pair()
    filled(pair.a, range(4000), 100)
    filled(pair.b, range(4000), 100)
    for number in range(0, 4000, 400):
        pair.a.store(InternalKey(key(number)), EncodedVersion(version("n1.1", 1, b"newer")))
    pair.converge()
    assert pair.a.entries() == pair.b.entries()
    assert pair.bytes < 20_000


def test_bugs_18_duplicate_content_and_missing_pairs_are_seen_and_brought_back() -> None:
    pair = Pair()
    same = version("n1.0", 1, b"same")
    for number in range(100):
        pair.a.store(InternalKey(key(number)), EncodedVersion(same))
    for number in range(2, 100):
        pair.b.store(InternalKey(key(number)), EncodedVersion(same))
    pair.converge()
    assert pair.a.entries() == pair.b.entries()
    assert len(pair.b.entries()) == 100
