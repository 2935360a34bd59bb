"""What a node answers to those who unite what replicas hold of a bucket."""

from __future__ import annotations

from kvstore.config import MIB
from kvstore.node.scan import BeginStep, Wanted
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import KeyVersion, ScanDifference, ScanItems
from kvstore.quorum.background.answering import AnsweredQuestions, Answering
from kvstore.quorum.background.range_items import ITEM_BYTES, packed_item
from kvstore.ring import partition_bounds
from kvstore.versions import check_version

_MOST_KEYS = 4096
"""Of what the asker wants, looked at for one answer; more than a page has: keys that the asker lacks."""
_ANSWER_BYTES = MIB


class ScanAnswers:
    """Of one node. They show what it holds, so they must wait until that is on its disk."""

    def __init__(self, begin_step: BeginStep, partitions: int) -> None:
        self._begin_step = begin_step
        self._partitions = partitions

    @property
    def questions(self) -> AnsweredQuestions:
        """All that are answered here."""
        return {ScanItems: Answering(self.on_scan_items, durable=True)}

    def on_scan_items(self, _sender: str, asked: ScanItems, _now: Instant) -> ScanDifference:
        """What this node holds that the asker does not; raises Corruption for what it cannot read."""
        first, end = partition_bounds(asked.partition, self._partitions)
        start, until = max(asked.after, first), min(asked.until or end, end)
        wanted = Wanted(asked.bucket, asked.prefix)
        held = self._begin_step(_MOST_KEYS).read(wanted, start, until)
        theirs = {asked.items[i : i + ITEM_BYTES] for i in range(0, len(asked.items), ITEM_BYTES)}
        versions: list[KeyVersion] = []
        size = 0
        for key, version in held.versions.items():
            if packed_item(key, version) in theirs:
                continue
            if size >= _ANSWER_BYTES:
                return ScanDifference(asked.number, tuple(versions), key)
            check_version(version)  # what the asker would refuse is not sent: it is as what cannot be read
            versions.append(KeyVersion(key, version))
            size += len(key) + len(version)
        reached = held.reached if held.reached < until else b""
        return ScanDifference(asked.number, tuple(versions), reached)
