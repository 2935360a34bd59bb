"""One partition of a page of a scan: what this node holds there, and what others hold beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from kvstore.errors import KVError, Unavailable
from kvstore.node.scan import Wanted
from kvstore.protocol.peer import ScanDifference, ScanItems
from kvstore.quorum.background.range_items import packed_item
from kvstore.quorum.votes import Outcome as Votes
from kvstore.quorum.votes import Quorum, count
from kvstore.versions import NO_VERSION, EncodedVersion, InternalKey, Version, decode_version

Combine: TypeAlias = Callable[[InternalKey, EncodedVersion, EncodedVersion], EncodedVersion]
"""See `Replica.combine`."""


class Own(NamedTuple):
    """What this node holds under a key."""

    encoded: EncodedVersion
    version: Version


class ScanPart:
    """Asks until a `quorum` of primaries has told what it holds from `start` up to and without `end`.

    The primaries are those of `epoch`, and are asked by it. `own` is what the node `here` holds there, None
    when it is not one that is read or cannot read it; `others` are those that can be asked, in their order.
    """

    def __init__(
        self,
        epoch: int,
        partition: int,
        wanted: Wanted,
        start: bytes,
        end: bytes,
        own: tuple[str, Mapping[InternalKey, Own]] | None,
        quorum: Quorum,
        others: Sequence[str],
    ) -> None:
        self.end = end
        self.heard: set[str] = set()
        """The primaries that have told."""
        self._own: Mapping[InternalKey, Own] = {}
        if own is not None:
            here, self._own = own
            self.heard.add(here)
        self._epoch = epoch
        self._partition = partition
        self._wanted = wanted
        self._start = start
        self._quorum = quorum
        self._lost = {*quorum.members} - self.heard - {*others}
        self._left = list(reversed(others))
        self._reached = end
        self._differences: list[ScanDifference] = []
        self._problem: KVError | None = None
        self._items = b"".join([packed_item(key, held.encoded) for key, held in self._own.items()])

    def to_ask(self) -> list[str]:
        """Who must be asked now, all at once; nobody: all is known. Raises Unavailable if few are left."""
        outcome, needed = count((self._quorum,), self.heard, self._lost), self._quorum.needed
        if outcome is Votes.LOST:
            raise Unavailable(needed, len(self._quorum.members - self._lost)) from self._problem
        missing = needed - len(self.heard) if outcome is Votes.PENDING else 0
        return [self._left.pop() for _ in range(missing)]

    def question(self, seconds: float) -> ScanItems:
        """What they are asked, by a node that has so much time left; its number is given to it later."""
        wanted = self._wanted
        return ScanItems(
            0,
            self._epoch,
            self._partition,
            wanted.bucket,
            wanted.prefix,
            self._start,
            self.end,
            self._items,
            int(seconds * 1000) + 1,
        )

    def on_outcome(self, node: str, outcome: object) -> None:
        """One of them has told, or will not (kvstore.quorum.flow.Outcome)."""
        if isinstance(outcome, ScanDifference) and self._makes_sense(outcome):
            self.heard.add(node)
            self._differences.append(outcome)
            if outcome.reached:
                self._reached = min(self._reached, outcome.reached)
            return
        self._lost.add(node)
        if isinstance(outcome, KVError):
            self._problem = outcome

    def _makes_sense(self, answer: ScanDifference) -> bool:
        """Whether it is about what was asked, and the next page begins behind the beginning of this one."""
        goes_on = not answer.reached or self._start < answer.reached < self.end
        return goes_on and all(self._asked_for(key) for key, _ in answer.versions)

    def _asked_for(self, key: InternalKey) -> bool:
        return self._start <= key < self.end and self._wanted.has(key)

    @property
    def reached(self) -> bytes:
        """Up to where, and without which key, all that have told have told everything."""
        return self._reached

    def united(self, combine: Combine) -> Iterator[tuple[InternalKey, Version]]:
        """What all of them hold together, up to what is `reached`, in order."""
        differing: dict[InternalKey, EncodedVersion] = {}
        for difference in self._differences:
            for key, version in difference.versions:
                held = self._own.get(key)
                known = differing.get(key) or (held.encoded if held else NO_VERSION)
                differing[key] = combine(key, known, version)
        keys = sorted({*self._own, *differing}) if differing else [*self._own]
        for key in keys:
            if key >= self._reached:
                return
            yield key, decode_version(differing[key]) if key in differing else self._own[key].version
