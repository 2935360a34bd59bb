"""Merkle trees: kept up to date they equal rebuilt ones, whatever is written while they are built."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import BucketSettings
from kvstore.protocol.peer import NodeHash, TreeNode
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.merkle_tree import FIRST_LEAF, LEAVES, NODES, ROOT, Tree, children
from kvstore.ring import Member, initial_state, partition_bounds
from kvstore.versions import EncodedVersion, InternalKey
from tests.plain import data_key, token

STATE = initial_state(
    "test", [Member(f"n{i}", f"h:{i}") for i in (1, 2, 3)], 4, 3, [BucketSettings("two", n=2, r=1, w=1)]
)
KEYS = [data_key(token(b, b"k%d" % i), b, b"k%d" % i) for b in ("two", "three") for i in range(8)]
NAMES = [TreeNode(p, n, number) for p in range(4) for n in (2, 3) for number in range(FIRST_LEAF + LEAVES)]


class Store:
    """A dict that can be scanned, with its trees."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.trees = Trees(STATE)

    def scan(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        inside = sorted(key for key in self.entries if start <= key and (end is None or key < end))
        return ((key, self.entries[key]) for key in inside)

    def put(self, key: bytes, version: bytes) -> None:
        old = self.entries.pop(key, b"")
        if version:
            self.entries[key] = version
        self.trees.update(InternalKey(key), EncodedVersion(old), EncodedVersion(version))

    def hashes(self) -> list[NodeHash | None]:
        return [self.trees.node(name) for name in NAMES]


def rebuilt(store: Store) -> list[NodeHash | None]:
    other = Store()
    other.entries = store.entries
    while other.trees.building:
        other.trees.build(other.scan, 1000)
    return other.hashes()


changes = st.tuples(st.sampled_from(KEYS), st.sampled_from([b"", b"a", b"b", b"same"]))
steps = st.lists(st.one_of(changes, st.integers(1, 40), st.just("rebuild")), max_size=60)


@given(steps)
def test_trees_kept_up_to_date_equal_rebuilt_ones(history: list[tuple[bytes, bytes] | int | str]) -> None:
    store = Store()
    for step in history:
        match step:
            case (bytes(key), bytes(version)):
                store.put(key, version)
            case int(entries):
                store.trees.build(store.scan, entries)
            case _:
                store.trees.rebuild()
    while store.trees.building:
        store.trees.build(store.scan, 5)
    assert store.hashes() == rebuilt(store)
    assert store.trees.corrected == 0


@given(st.lists(changes, max_size=30))
def test_an_inner_node_is_the_sum_of_those_below_it(history: list[tuple[bytes, bytes]]) -> None:
    store = Store()
    while store.trees.building:
        store.trees.build(store.scan, 1000)
    for key, version in history:
        store.put(key, version)
    for name in (name for name in NAMES if name.number < FIRST_LEAF):
        below = [store.trees.node(name._replace(number=child)) for child in children(name.number)]
        found = [node for node in below if node]
        assert len(found) == 16
        total = NodeHash(sum(node.sum for node in found) % 2**64, sum(node.items for node in found))
        assert store.trees.node(name) == total


def test_bugs_18_equal_hashes_do_not_cancel_and_the_count_tells() -> None:
    """XOR trees hid pairs of missing rows whose hashes are equal."""
    full, empty = Tree(), Tree()
    for _ in range(2):
        full.change(7, 2**63, 1)  # the worst case for addition: twice this is 0 modulo 2^64
    assert full.node(ROOT) == NodeHash(0, 2)
    assert full.node(ROOT) != empty.node(ROOT)
    assert full.node(FIRST_LEAF + 7) != empty.node(FIRST_LEAF + 7)


def test_bugs_18_duplicate_content_and_a_missing_pair_are_seen() -> None:
    full, lacking = Store(), Store()
    for store in (full, lacking):
        while store.trees.building:
            store.trees.build(store.scan, 1000)
    for key in KEYS:
        full.put(key, b"same")
    for key in KEYS[2:]:
        lacking.put(key, b"same")
    assert full.hashes() != lacking.hashes()
    for key in KEYS[:2]:
        lacking.put(key, b"same")
    assert full.hashes() == lacking.hashes()


def test_a_rebuild_corrects_trees_that_missed_a_change_and_counts_it() -> None:
    store = Store()
    while store.trees.building:
        store.trees.build(store.scan, 1000)
    store.entries[KEYS[0]] = b"unnoticed"
    assert store.hashes() != rebuilt(store)
    store.trees.rebuild()
    while store.trees.building:
        store.trees.build(store.scan, 1000)
    assert store.hashes() == rebuilt(store)
    assert store.trees.corrected == 1


def test_what_is_forgotten_while_it_is_built_is_built_from_its_start_again() -> None:
    """What the scan has passed may be other than it was."""
    store = Store()
    for key in KEYS:
        store.put(key, b"old")
    while store.trees._place == 0 and store.trees._cursor == partition_bounds(0, 4)[0]:
        store.trees.build(store.scan, 1)
    changed = next(key for key in sorted(store.entries) if key < store.trees._cursor)
    store.entries[changed] = b"unnoticed"
    store.trees.forget(changed, changed)
    while store.trees.building:
        store.trees.build(store.scan, 3)
    store.trees.build_missing()
    while store.trees.building:
        store.trees.build(store.scan, 3)
    assert store.hashes() == rebuilt(store)


def test_only_what_is_forgotten_is_not_known() -> None:
    store = Store()
    for key in KEYS:
        store.put(key, b"v")
    while store.trees.building:
        store.trees.build(store.scan, 1000)
    for first in range(4):
        for last in range(first, 4):
            bounds = [partition_bounds(partition, 4) for partition in (first, last)]
            store.trees.forget(bounds[0][0], bounds[1][0] + b"x")
            known = [store.trees.node(TreeNode(partition, 3, ROOT)) is not None for partition in range(4)]
            assert known == [not first <= partition <= last for partition in range(4)]
            store.trees.build_missing()
            while store.trees.building:
                store.trees.build(store.scan, 1000)
    assert store.hashes() == rebuilt(store)


@pytest.mark.parametrize(("entries", "size"), [(1, 10), (40, 10), (400, 10), (100_000, 100_000)])
def test_one_step_takes_in_about_what_it_may_and_no_more(entries: int, size: int) -> None:
    """A step is done between requests: it must be short, whatever is stored."""
    store = Store()
    keys = [data_key(token("three", b"k%d" % i), "three", b"k%d" % i) for i in range(1000)]
    store.entries = dict.fromkeys(keys, b"x" * size)
    taken = scans = 0

    def counted(start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        nonlocal taken, scans
        scans += 1
        for entry in store.scan(start, end):
            taken += 1
            yield entry

    steps = 0
    while store.trees.building:
        before = taken, scans
        store.trees.build(counted, entries)
        assert taken - before[0] <= min(entries, 3 * 1024 * 1024 // size) + 1, "of a few partitions"
        assert scans - before[1] <= max(1, entries // 16 + 1)
        steps += 1
    assert taken == 1000
    assert steps >= 1000 * size // (2 * 1024 * 1024)
    assert store.hashes() == rebuilt(store)


def test_a_node_that_there_is_not_has_no_hash() -> None:
    store = Store()
    while store.trees.building:
        store.trees.build(store.scan, 1000)
    assert (
        store.trees.node(TreeNode(0, 3, 0)) == store.trees.node(TreeNode(3, 3, NODES - 1)) == NodeHash(0, 0)
    )
    for wrong in (
        TreeNode(-1, 3, 0),
        TreeNode(4, 3, 0),
        TreeNode(0, 1, 0),
        TreeNode(0, 3, -1),
        TreeNode(0, 3, NODES),
    ):
        assert store.trees.node(wrong) is None
