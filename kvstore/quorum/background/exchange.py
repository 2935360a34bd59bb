"""How two primaries of a partition are made equal: long flows, told in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from kvstore.errors import Overloaded
from kvstore.lsm.reading import Scan
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import KeyVersion, RangeDifference, RangeItems, TreeHashes, TreeNode, TreeRead
from kvstore.quorum.background.conversation import Conversation
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.merkle_tree import FAN_OUT, FIRST_LEAF, LEAVES, ROOT, children
from kvstore.quorum.background.range_items import held_in, packed_item
from kvstore.quorum.flow import Flow, Lost, Pause
from kvstore.versions import EncodedVersion, InternalKey

ALL_LEAVES = bytes(range(LEAVES))
_NODES_A_MESSAGE = 512
_ITEMS_A_MESSAGE = 1024
_FEW = 2 * FAN_OUT
"""Items of a node whose children are not worth asking for: 8 bytes each, against 14 for each child."""


class Comparison:
    """Finds out what this node and a peer hold differently.

    `equal` hears of roots that were found equal, and when the peer was asked.
    """

    def __init__(
        self,
        peer: Conversation,
        equal: Callable[[TreeNode, Instant], None],
        trees: Trees,
        scan: Scan,
    ) -> None:
        self._peer = peer
        self._trees = trees
        self._scan = scan
        self._equal = equal

    def compare(
        self, roots: Sequence[TreeNode], settle: float, now: Instant
    ) -> Flow[tuple[Instant, list[TreeNode]]]:
        """Those roots that differ, twice, so that writes in flight do not count."""
        now, differing = yield from self._differing(roots, now)
        if not differing:
            return now, []
        now, _ = yield Pause(settle)
        return (yield from self._differing(differing, now))

    def differing_leaves(self, root: TreeNode, now: Instant) -> Flow[tuple[Instant, bytes]]:
        """The numbers of the leaves of a tree that differ, or may; raises Lost where a hash is unknown."""
        now, inner = yield from self._below([root], now)
        now, leaves = yield from self._below(inner, now)
        return now, bytes(sorted(leaf.number - FIRST_LEAF for leaf in leaves))

    def _differing(
        self, nodes: Sequence[TreeNode], now: Instant, all_known: bool = False
    ) -> Flow[tuple[Instant, list[TreeNode]]]:
        """Those that differ; one of which a hash is unknown does not, or if all must be known it is Lost."""
        differing = []
        for first in range(0, len(nodes), _NODES_A_MESSAGE):
            page = tuple(nodes[first : first + _NODES_A_MESSAGE])
            asked_at = now
            now, answer = yield from self._peer.ask(TreeRead(0, self._peer.epoch, page), now)
            if not isinstance(answer, TreeHashes) or len(answer.hashes) != len(page):
                raise Lost
            for node, theirs in zip(page, answer.hashes, strict=True):
                ours = self._trees.node(node)
                if ours is None or theirs is None:
                    if all_known:
                        raise Lost
                    continue
                if ours != theirs:
                    differing.append(node)
                elif node.number == ROOT:
                    self._equal(node, asked_at)
        return now, differing

    def _below(self, nodes: Sequence[TreeNode], now: Instant) -> Flow[tuple[Instant, list[TreeNode]]]:
        """The nodes one level down that differ, or that may: asking costs more than a few items."""
        large = [node for node in nodes if (found := self._trees.node(node)) and found.items > _FEW]
        now, asked = yield from self._differing(_children(large), now, all_known=True)
        return now, _children([node for node in nodes if node not in large]) + asked

    def page(
        self, partition: int, n: int, leaves: bytes, after: bytes, end: bytes, now: Instant
    ) -> Flow[tuple[Instant, tuple[KeyVersion, ...], bytes]]:
        """What the peer holds in these leaves and this node does not, of the next keys of [after, end).

        With it comes where the rest begins (empty: there is none).
        """
        _, items, until = self._items(partition, n, leaves, after, end)
        question = RangeItems(0, self._peer.epoch, partition, n, leaves, after, until or end, items)
        now, answer = yield from self._peer.ask(question, now)
        difference = _difference(answer, after)
        return now, difference.versions, difference.reached or until

    def _items(
        self, partition: int, n: int, leaves: bytes, after: bytes, end: bytes
    ) -> tuple[list[InternalKey], bytes, bytes]:
        """Keys and items of one message, and where the next one begins (empty: there is none)."""
        held = held_in(self._trees, self._scan, partition, n, leaves, after, end)
        page = list(islice(held, _ITEMS_A_MESSAGE))
        keys = [key for key, _ in page]
        items = b"".join(packed_item(key, version) for key, version in page)
        return keys, items, keys[-1] + b"\0" if len(page) == _ITEMS_A_MESSAGE else b""


class Exchange(Comparison):
    """Compares trees with one peer and repairs what differs, on both sides.

    `store` reconciles a version of the peer into what is stored and returns the result.
    """

    def __init__(
        self,
        peer: Conversation,
        trees: Trees,
        scan: Scan,
        store: Callable[[InternalKey, EncodedVersion], EncodedVersion],
        equal: Callable[[TreeNode, Instant], None],
    ) -> None:
        super().__init__(peer, equal, trees, scan)
        self._store = store

    def repair(self, root: TreeNode, now: Instant) -> Flow[Instant]:
        """Make one partition equal."""
        try:
            now, leaves = yield from self.differing_leaves(root, now)
            if leaves:
                now = yield from self._exchange(root.partition, root.n, leaves, now)
            now, _ = yield from self._differing([root], now)
        except Overloaded:  # another peer is being served there: its turn comes again
            pass
        return now

    def _exchange(self, partition: int, n: int, leaves: bytes, now: Instant) -> Flow[Instant]:
        after = furthest = b""
        while True:
            keys, items, until = self._items(partition, n, leaves, after, b"")
            question = RangeItems(0, self._peer.epoch, partition, n, leaves, after, until, items)
            now, answer = yield from self._peer.ask(question, now)
            difference = _difference(answer, after)
            now = yield from self._peer.push(self._due(keys, difference), now)
            reached = difference.reached
            if not reached and not until:
                return now
            if not reached:
                after = until
            elif not keys or keys[0] >= reached or reached <= furthest:
                after = reached
            else:  # the same again: what was sent is equal now, so the answer gets further
                furthest = reached

    def fetch(self, partition: int, n: int, first: bytes, end: bytes, now: Instant) -> Flow[Instant]:
        """Take what the peer holds of the keys [first, end) and this node does not."""
        after = first
        while True:
            now, versions, after = yield from self.page(partition, n, ALL_LEAVES, after, end, now)
            for key, version in versions:
                self._store(key, version)
            if not after:
                return now

    def _due(self, keys: Sequence[InternalKey], answer: RangeDifference) -> tuple[InternalKey, ...]:
        """Take the peer's versions; returns the keys of which it lacks what is stored here now."""
        stored = [(key, version, self._store(key, version)) for key, version in answer.versions]
        due = [key for key, theirs, ours in stored if theirs != ours]
        due += [keys[position] for position in answer.wanted if position < len(keys)]
        return tuple(dict.fromkeys(due))


def _difference(answer: object, after: bytes) -> RangeDifference:
    """The answer to items from `after`; raises Lost for what is none.

    One that is cut has versions, and goes on: else the exchange would never end, and all others wait.
    """
    if not isinstance(answer, RangeDifference):
        raise Lost
    if answer.reached and (answer.reached <= after or not answer.versions):
        raise Lost
    return answer


def _children(nodes: Sequence[TreeNode]) -> list[TreeNode]:
    return [TreeNode(p, n, child) for p, n, number in nodes for child in children(number)]
