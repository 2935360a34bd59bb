"""Hints that are kept for too long: dropped, a slice at a time.

Nothing is lost by it. A primary holds the version itself; a fallback first gives it to a primary that is
alive, and keeps the hint while none is. The partition is marked for anti-entropy, which repairs what the
hint held. A fallback that drops hints forgets dots, as when it delivers them: it takes a new actor
(kvstore.quorum.actors).
"""

from __future__ import annotations

from kvstore.config import MIB, QuorumSettings
from kvstore.errors import Corruption, KVError
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReplicaWrite, WriteAck
from kvstore.quorum.flow import Ask, Flow, Flows, Pause
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.mint import Mint
from kvstore.quorum.placement import Placements
from kvstore.versions import NO_KEY, EncodedVersion, InternalKey

_SLICE = 256
_SLICE_BYTES = MIB
_PAUSE = 0.05
"""Seconds between two slices."""
_LONGEST_INTERVAL = 60.0


class HintExpiry:
    """Looks now and then whether the hints of some target are too old."""

    def __init__(
        self,
        flows: Flows,
        local: LocalCopy,
        placements: Placements,
        mint: Mint,
        durability: HeldOutputs,
        settings: QuorumSettings,
    ) -> None:
        self._local = local
        self._hints = local.hints
        self._placements = placements
        self._mint = mint
        self._durability = durability
        self._timeout = settings.default_timeout
        self._interval = min(_LONGEST_INTERVAL, settings.hint_age / 100)
        self._flow = flows.lasting(self._passes)

    def start(self, now: Instant) -> None:
        """Look for the first time."""
        self._flow.start_at(now.mono)

    def _passes(self, now: Instant) -> Flow[None]:
        """Over all hints of the targets that have old ones, for ever."""
        while True:
            for target in self._hints.targets:
                yield from self._pass(target, now)
            now, _ = yield Pause(self._interval)

    def _pass(self, target: str, now: Instant) -> Flow[None]:
        after = NO_KEY
        while self._hints.have_expired(target, now.wall):
            try:
                page = self._hints.page(target, after, _SLICE, _SLICE_BYTES)
            except Corruption:  # until what is damaged has left the disk
                return
            if not page:
                return
            after = page[-1][0]
            old = [(key, version) for key, version in page if self._hints.is_too_old(version, now.wall)]
            yield from self._part_with(target, old, now)
            now, _ = yield Pause(_PAUSE)

    def _part_with(
        self, target: str, hints: list[tuple[InternalKey, EncodedVersion]], now: Instant
    ) -> Flow[None]:
        placements = self._placements
        given: list[tuple[InternalKey, EncodedVersion]] = []
        questions: list[tuple[str, ReplicaWrite]] = []
        for key, version in hints:
            if placements.are_here(key):
                self._take(target, key, version, now)
            elif heirs := [n for n in placements.primaries(key) if n != target and placements.alive(n)]:
                given.append((key, version))
                epoch = placements.state.epoch
                questions.append((heirs[0], ReplicaWrite(0, epoch, key, version, background=True)))
        now, outcomes = yield Ask(tuple(questions), self._timeout)
        for (key, version), outcome in zip(given, outcomes, strict=True):
            if isinstance(outcome, WriteAck):
                self._drop(target, key, version, now)

    def _take(self, target: str, key: InternalKey, version: EncodedVersion, now: Instant) -> None:
        """This node is a primary itself."""
        try:
            self._local.store(key, version)
        except KVError:
            return  # it cannot be written now, nor need it be
        self._drop(target, key, version, now)

    def _drop(self, target: str, key: InternalKey, version: EncodedVersion, now: Instant) -> None:
        """A primary holds what this hint does."""
        try:
            dropped = self._hints.expired(target, key, version, now)
        except KVError:
            return
        if dropped:
            self._mint.hint_discarded(key)
            # until this is on the disk a power failure would bring it back, so its key is not reaped
            self._durability.soon(self._durability.last)
