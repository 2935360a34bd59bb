"""An exchange between two replicas, however they differ, makes them equal and moves little more than that."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.config import KIB
from kvstore.lsm import Engine, MemoryFileSystem
from kvstore.protocol.messages import RangeDifference, TreeHashes, TreeNode, TreeRead
from kvstore.quorum.background.anti_entropy import content_bytes
from kvstore.quorum.background.exchange import Exchange, Flow, Pause, Push, difference
from kvstore.quorum.background.merkle import ROOT, Trees
from kvstore.quorum.counters import Counters
from kvstore.quorum.replica import Replica
from kvstore.ring import Member, data_key, initial_state, token
from kvstore.versions import Dot, Sibling, Version, encode_version

STATE = initial_state("test", [Member("n1", "h:1"), Member("n2", "h:2")], 4, 2)
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
        self.replica = Replica(self.engine, STATE.bucket, self.trees, Counters())
        self.trees.build(self.engine.scan, 1000)
        assert not self.trees.building

    def store(self, key: bytes, version: bytes) -> bytes:
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
        exchange = Exchange(1, a.trees, a.engine.scan, a.store, self.equal.add)
        for root in self.result(exchange.compare(ROOTS, 1.0)):
            self.run(exchange.repair(root))

    def result(self, flow: Flow[list[TreeNode]]) -> list[TreeNode]:
        try:
            answer = None
            while True:
                answer = self.answer(flow.send(answer))
        except StopIteration as end:
            found: list[TreeNode] = end.value
            return found

    def run(self, flow: Flow[None]) -> None:
        def wrapped() -> Flow[list[TreeNode]]:
            yield from flow
            return []

        self.result(wrapped())

    def answer(self, step: object) -> object:
        match step:
            case Pause():
                return None
            case Push(keys):
                for pushed in keys:
                    found = self.a.replica.read(pushed)
                    self.bytes += len(pushed) + len(found)
                    self.b.store(pushed, found)
                return None
            case TreeRead(_, _, nodes):
                answer: TreeHashes | RangeDifference = TreeHashes(
                    0, tuple(self.b.trees.node(n) for n in nodes)
                )
                self.bytes += content_bytes(step)
            case _:
                assert not isinstance(step, TreeHashes)
                self.bytes += content_bytes(step)  # type: ignore[arg-type]
                answer = difference(self.b.trees, self.b.engine.scan, step, 256 * KIB)  # type: ignore[arg-type]
        self.bytes += content_bytes(answer)
        return answer


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
                side.store(key(number), version(f"actor{len(sides)}{side is pair.a}", counter, value))
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
        full.store(key(number), content)
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
        pair.a.store(key(number), version("n1.1", 1, b"newer"))
    pair.converge()
    assert pair.a.entries() == pair.b.entries()
    assert pair.bytes < 20_000


def test_bugs_18_duplicate_content_and_missing_pairs_are_seen_and_brought_back() -> None:
    pair = Pair()
    same = version("n1.0", 1, b"same")
    for number in range(100):
        pair.a.store(key(number), same)
    for number in range(2, 100):
        pair.b.store(key(number), same)
    pair.converge()
    assert pair.a.entries() == pair.b.entries()
    assert len(pair.b.entries()) == 100
