"""How two primaries of a partition are made equal: one long flow, told in order.

A generator that yields what it waits for: an answer to a message, pushed versions to be acknowledged, or
time. Whoever drives it (`anti_entropy`) sends in the answer, or throws what went wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias, TypeVar

from kvstore.errors import Corruption, Overloaded
from kvstore.protocol.messages import RangeDifference, RangeItems, TreeHashes, TreeNode, TreeRead
from kvstore.quorum.background.merkle import FAN_OUT, FIRST_LEAF, LEAVES, ROOT, Scan, Trees, children, item
from kvstore.versions import check_version

_NODES_A_MESSAGE = 512
_ITEMS_A_MESSAGE = 1024
ITEM_BYTES = 8
_FEW = 2 * FAN_OUT
"""Items of a node whose children are not worth asking for: 8 bytes each, against 14 for each child."""


class Pause(NamedTuple):
    """Go on after so many seconds."""

    seconds: float


class Push(NamedTuple):
    """Send what is stored here under these keys; go on when all of it is durable there."""

    keys: tuple[bytes, ...]


Step: TypeAlias = TreeRead | RangeItems | Push | Pause
T = TypeVar("T")
Flow: TypeAlias = Generator[Step, object, T]


class Lost(Exception):
    """The peer did not answer, or not what was asked: this exchange is over, a later one will do better."""


class Exchange:
    """Compares trees with one peer and repairs what differs, on both sides.

    `store` reconciles a version of the peer into what is stored and returns the result; `equal` hears of
    roots that were found equal.
    """

    def __init__(
        self,
        epoch: int,
        trees: Trees,
        scan: Scan,
        store: Callable[[bytes, bytes], bytes],
        equal: Callable[[TreeNode], None],
    ) -> None:
        self._epoch = epoch
        self._trees = trees
        self._scan = scan
        self._store = store
        self._equal = equal

    def compare(self, roots: Sequence[TreeNode], settle: float) -> Flow[list[TreeNode]]:
        """Those roots that differ, twice, so that writes in flight do not count."""
        differing = yield from self._differing(roots)
        if not differing:
            return []
        yield Pause(settle)
        return (yield from self._differing(differing))

    def repair(self, root: TreeNode) -> Flow[None]:
        """Make one partition equal."""
        try:
            inner = yield from self._below([root])
            leaves = yield from self._below(inner)
            if leaves:
                numbers = sorted(leaf.number - FIRST_LEAF for leaf in leaves)
                yield from self._exchange(root.partition, root.n, bytes(numbers))
            yield from self._differing([root])
        except Overloaded:  # another peer is being served there: its turn comes again
            return

    def _differing(self, nodes: Sequence[TreeNode]) -> Flow[list[TreeNode]]:
        differing = []
        for first in range(0, len(nodes), _NODES_A_MESSAGE):
            page = tuple(nodes[first : first + _NODES_A_MESSAGE])
            answer = yield TreeRead(0, self._epoch, page)
            if not isinstance(answer, TreeHashes) or len(answer.hashes) != len(page):
                raise Lost
            for node, theirs in zip(page, answer.hashes, strict=True):
                ours = self._trees.node(node)
                if ours is None or theirs is None:
                    continue
                if ours != theirs:
                    differing.append(node)
                elif node.number == ROOT:
                    self._equal(node)
        return differing

    def _below(self, nodes: Sequence[TreeNode]) -> Flow[list[TreeNode]]:
        """The nodes one level down that differ, or that may: asking costs more than a few items."""
        large = [node for node in nodes if (found := self._trees.node(node)) and found.items > _FEW]
        asked = yield from self._differing(_children(large))
        return _children([node for node in nodes if node not in large]) + asked

    def _exchange(self, partition: int, n: int, leaves: bytes) -> Flow[None]:
        after = b""
        while True:
            keys, items, until = self._items(partition, n, leaves, after, b"")
            answer = yield RangeItems(0, self._epoch, partition, n, leaves, after, until, items)
            if not isinstance(answer, RangeDifference):
                raise Lost
            yield Push(self._due(keys, answer))
            reached = answer.reached
            if not reached and not until:
                return
            if not reached:
                after = until
            elif not keys or keys[0] >= reached:
                after = reached
            # else the same again: what was sent is equal now, so the answer gets further

    def fetch(self, partition: int, n: int, first: bytes, end: bytes) -> Flow[None]:
        """Take what the peer holds of the keys [first, end) and this node does not."""
        leaves = bytes(range(LEAVES))
        after = first
        while True:
            _, items, until = self._items(partition, n, leaves, after, end)
            answer = yield RangeItems(0, self._epoch, partition, n, leaves, after, until or end, items)
            if not isinstance(answer, RangeDifference):
                raise Lost
            for key, version in answer.versions:
                self._store(key, version)
            after = answer.reached or until
            if not after:
                return

    def _items(
        self, partition: int, n: int, leaves: bytes, after: bytes, end: bytes
    ) -> tuple[list[bytes], bytes, bytes]:
        """Keys and items of one message, and where the next one begins (empty: there is none)."""
        held = held_in(self._trees, self._scan, partition, n, leaves, after, end)
        page = list(islice(held, _ITEMS_A_MESSAGE))
        keys = [key for key, _ in page]
        items = b"".join(packed_item(key, version) for key, version in page)
        return keys, items, keys[-1] + b"\0" if len(page) == _ITEMS_A_MESSAGE else b""

    def _due(self, keys: Sequence[bytes], answer: RangeDifference) -> tuple[bytes, ...]:
        """Take the peer's versions; returns the keys of which it lacks what is stored here now."""
        stored = [(key, version, self._store(key, version)) for key, version in answer.versions]
        due = [key for key, theirs, ours in stored if theirs != ours]
        due += [keys[position] for position in answer.wanted if position < len(keys)]
        return tuple(dict.fromkeys(due))


def difference(trees: Trees, scan: Scan, asked: RangeItems, most_bytes: int) -> RangeDifference:
    """The answer to a peer's `RangeItems`: no further version once there are `most_bytes` of them."""
    theirs = asked.items
    missing = {theirs[i : i + ITEM_BYTES]: i // ITEM_BYTES for i in range(0, len(theirs), ITEM_BYTES)}
    versions: list[tuple[bytes, bytes]] = []
    size = 0
    for key, version in held_in(
        trees, scan, asked.partition, asked.n, asked.leaves, asked.after, asked.until
    ):
        if missing.pop(packed_item(key, version), None) is not None:
            continue
        if size >= most_bytes:
            return RangeDifference(asked.request, tuple(versions), (), key)
        if not can_be_sent(version):
            continue
        versions.append((key, version))
        size += len(key) + len(version)
    return RangeDifference(asked.request, tuple(versions), tuple(sorted(missing.values())), b"")


def can_be_sent(version: bytes) -> bool:
    """Whether another node would take it: an earlier kvstore may have stored what a wrong peer had sent."""
    try:
        check_version(version)
    except Corruption:
        return False
    return True


def held_in(
    trees: Trees, scan: Scan, partition: int, n: int, leaves: bytes, after: bytes, until: bytes
) -> Iterator[tuple[bytes, bytes]]:
    """What these leaves hold, in order, from `after` up to and without `until` (empty: no bound)."""
    for first, last in _runs(leaves):
        start = max(after, trees.leaf_bounds(partition, first)[0])
        end = trees.leaf_bounds(partition, last)[1]
        end = min(end, until) if until else end
        if start < end:
            yield from ((key, version) for key, version in scan(start, end) if trees.n_of(key) == n)


def packed_item(key: bytes, version: bytes) -> bytes:
    """An item as it travels."""
    return item(key, version).to_bytes(ITEM_BYTES, "big", signed=True)


def _runs(leaves: bytes) -> Iterator[tuple[int, int]]:
    """First and last of each run of neighbours."""
    first = last = -1
    for leaf in leaves:
        if leaf != last + 1 or first < 0:
            if first >= 0:
                yield first, last
            first = leaf
        last = leaf
    if first >= 0:
        yield first, last


def _children(nodes: Sequence[TreeNode]) -> list[TreeNode]:
    return [TreeNode(p, n, child) for p, n, number in nodes for child in children(number)]
