"""What a node answers to those who compare their trees with its own."""

from __future__ import annotations

from functools import partial
from typing import Any

from kvstore.config import AntiEntropySettings
from kvstore.errors import Overloaded
from kvstore.lsm.reading import Scan
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import QuorumMessage, RangeDifference, RangeItems, TreeHashes, TreeRead
from kvstore.protocol.sizes import content_of
from kvstore.protocol.table import PeerMessage
from kvstore.quorum.background.answering import Answer, AnsweredQuestions, Answering
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.range_items import difference
from kvstore.quorum.counters.repair import RepairCounters


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
        """All that are answered here; what is sent for them is counted."""
        answers: dict[type[PeerMessage], Answer] = {
            TreeRead: self.on_tree_read,
            RangeItems: self.on_range_items,
        }
        return {question: Answering(partial(self._counted, answer)) for question, answer in answers.items()}

    def on_tree_read(self, sender: str, message: TreeRead, now: Instant) -> TreeHashes:
        """The hashes that another node asks for."""
        hashes = tuple([self._trees.node(node) for node in message.nodes])
        return TreeHashes(message.number, hashes)

    def on_range_items(self, sender: str, message: RangeItems, now: Instant) -> RangeDifference:
        """How this node's replica differs; raises Overloaded for a partition that another peer repairs.

        Two peers that bring the same versions at once would move them twice.
        """
        peer, until = self._served.get(message.partition, (sender, 0.0))
        if peer != sender and now.mono < until:
            seconds = until - now.mono
            raise Overloaded(seconds, f"partition {message.partition} is being repaired by {peer}")
        self._served[message.partition] = sender, now.mono + self._settings.settle
        return difference(self._trees, self._scan, message, self._settings.answer_bytes)

    def _counted(self, answer: Answer, sender: str, message: Any, now: Instant) -> QuorumMessage:
        answered = answer(sender, message, now)
        self._counters.repair_bytes += content_of(answered)
        return answered
