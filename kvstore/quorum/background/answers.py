"""What a node answers to those who compare their trees with its own."""

from __future__ import annotations

from typing import TypeVar

from kvstore.config import AntiEntropySettings
from kvstore.errors import Overloaded
from kvstore.instant import Instant
from kvstore.lsm.reading import Scan
from kvstore.protocol.peer import RangeDifference, RangeItems, TreeHashes, TreeRead
from kvstore.protocol.sizes import content_of
from kvstore.quorum.background.answering import AnsweredQuestions, Answering
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.range_items import difference
from kvstore.quorum.counters.repair import RepairCounters

A = TypeVar("A", TreeHashes, RangeDifference)


class Answers:
    """Of one node. They show what it holds, so they must wait until that is on its disk."""

    def __init__(
        self, trees: Trees, scan: Scan, counters: RepairCounters, settings: AntiEntropySettings
    ) -> None:
        self._trees = trees
        self._scan = scan
        self._counters = counters
        self._settings = settings
        self._served: dict[int, tuple[str, float]] = {}
        """Who repairs a partition with this node, and until when no other may."""

    @property
    def questions(self) -> AnsweredQuestions:
        """All that are answered here."""
        return {
            TreeRead: Answering(self.on_tree_read, durable=True),
            RangeItems: Answering(self.on_range_items, durable=True),
        }

    def on_tree_read(self, sender: str, message: TreeRead, now: Instant) -> TreeHashes:
        """The hashes that another node asks for."""
        hashes = tuple([self._trees.node(node) for node in message.nodes])
        return self._counted(TreeHashes(message.number, hashes))

    def on_range_items(self, sender: str, message: RangeItems, now: Instant) -> RangeDifference:
        """How this node's replica differs; raises Overloaded for a partition that another peer repairs.

        Two peers that bring the same versions at once would move them twice.
        """
        peer, until = self._served.get(message.partition, (sender, 0.0))
        if peer != sender and now.mono < until:
            seconds = until - now.mono
            raise Overloaded(seconds, f"partition {message.partition} is being repaired by {peer}")
        self._served[message.partition] = sender, now.mono + self._settings.settle
        return self._counted(difference(self._trees, self._scan, message, self._settings.answer_bytes))

    def _counted(self, answer: A) -> A:
        self._counters.repair_bytes += content_of(answer)
        return answer
