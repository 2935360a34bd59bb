"""What an exchange says to its peer: one question after the other, with pauses, and what the peer lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kvstore.config import MIB, AntiEntropySettings
from kvstore.errors import KVError, VersionTooLarge
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReplicaWrite, WriteAck
from kvstore.protocol.sizes import content_of
from kvstore.quorum.background.range_items import can_be_sent
from kvstore.quorum.counters.repair import RepairCounters
from kvstore.quorum.flow import Ask, Flow, Lost, Pause, Question
from kvstore.versions import EncodedVersion, InternalKey

_PUSH_BYTES = MIB
Entry = tuple[InternalKey, EncodedVersion]


class Conversation:
    """With one peer. `pause` tells how many seconds to leave between two steps at a time.

    `asking` hears of each question before it is sent.
    """

    def __init__(
        self,
        peer: str,
        epoch: int,
        read: Callable[[InternalKey], EncodedVersion],
        asking: Callable[[Question], None],
        pause: Callable[[Instant], float],
        counters: RepairCounters,
        settings: AntiEntropySettings,
    ) -> None:
        self.epoch = epoch
        self._peer = peer
        self._read = read
        self._asking = asking
        self._pause = pause
        self._counters = counters
        self._settings = settings

    def ask(self, question: Question, now: Instant) -> Flow[tuple[Instant, object]]:
        """The answer, and the time after a pause; raises Lost, and the KVError of a refusal."""
        self._asking(question)
        self._counters.repair_bytes += content_of(question)
        now, (outcome,) = yield Ask(((self._peer, question),), self._settings.timeout)
        now, _ = yield Pause(self._pause(now))
        if isinstance(outcome, KVError):
            raise outcome
        if outcome is None:
            raise Lost
        return now, outcome

    def push(self, keys: Iterable[InternalKey], now: Instant) -> Flow[Instant]:
        """Send what is stored here under these keys; the time when all of it is durable there.

        A version that the peer cannot take is left out. Raises Lost, KVError.
        """
        left = iter(keys)
        while page := tuple(self._page(left)):
            writes = [
                (self._peer, ReplicaWrite(0, self.epoch, key, version, background=True))
                for key, version in page
            ]
            self._counters.repair_bytes += sum(content_of(write) for _, write in writes)
            now, outcomes = yield Ask(tuple(writes), self._settings.timeout)
            for outcome in outcomes:
                if isinstance(outcome, WriteAck):
                    self._counters.repairs += 1
                elif not isinstance(outcome, VersionTooLarge):
                    raise Lost
        now, _ = yield Pause(self._pause(now))
        return now

    def _page(self, keys: Iterator[InternalKey]) -> Iterator[Entry]:
        """The next versions, about 1 MiB of them."""
        size = 0
        for key in keys:
            version = self._read(key)
            if version and not can_be_sent(version):
                self._counters.unreadable += 1
            elif version:
                size += len(version)
                yield key, version
            if size >= _PUSH_BYTES:
                return
