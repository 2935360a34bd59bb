"""Hints that are kept for too long: dropped, a slice at a time.

Nothing is lost by it. A primary holds the version itself; a fallback first gives it to a primary that is
alive, and keeps the hint while none is. The partition is marked for anti-entropy, which brings home what the
hint held. A fallback that drops hints forgets dots, as when it delivers them: it takes a new actor
(kvstore.quorum.actors).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kvstore.config import MIB
from kvstore.errors import Corruption, KVError
from kvstore.protocol.messages import ReplicaWrite
from kvstore.quorum.hints import Hints
from kvstore.quorum.operation import Errand

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator

_SLICE = 256
_SLICE_BYTES = MIB
_PAUSE = 0.05
"""Seconds between two slices."""
_LONGEST_INTERVAL = 60.0


class HintExpiry:
    """Looks now and then whether the hints of some target are too old."""

    __slots__ = ("_alive", "_core", "_hints", "_interval", "_look_at", "_steps", "_under_way")

    def __init__(self, core: Coordinator, hints: Hints, alive: Callable[[str], bool]) -> None:
        self._core = core
        self._hints = hints
        self._alive = alive
        self._interval = min(_LONGEST_INTERVAL, core.settings.hint_age / 100)
        self._look_at = 0.0
        self._steps = self._passes()
        self._under_way: set[int] = set()

    def next_deadline(self) -> float:
        """When `on_timer` next has work, in monotonic seconds, while there are hints."""
        return self._look_at

    def on_timer(self, now: float) -> None:
        """The next slice, if it is time."""
        if now < self._look_at:
            return
        self._look_at = now + self._interval
        steps, self._steps = self._steps, self._passes()  # one that raises is over
        self._look_at = now + next(steps)
        self._steps = steps

    def _passes(self) -> Iterator[float]:
        """Over all hints of the targets that have old ones, for ever; yields how long to wait."""
        while True:
            for target in self._hints.targets:
                after = b""
                while self._hints.have_expired(target, self._core.wall):
                    try:
                        page = self._hints.page(target, after, _SLICE, _SLICE_BYTES)
                    except Corruption:  # until what is damaged has left the disk
                        break
                    if not page:
                        break
                    after = page[-1][0]
                    for key, version in page:
                        if self._hints.is_too_old(version, self._core.wall):
                            self._part_with(target, key, version)
                    yield _PAUSE
                    while self._under_way:
                        yield _PAUSE
            yield self._interval

    def _part_with(self, target: str, key: bytes, version: bytes) -> None:
        core = self._core
        primaries = core.primaries(key)
        if core.name in primaries:
            try:
                core.store(key, version, "")
            except KVError:
                return  # it cannot be written now, nor need it be
            self.drop(target, key, version)
            return
        heirs = [node for node in primaries if node != target and self._alive(node)]
        if heirs:
            operation = InheritOperation(self, core, heirs[0], target, key, version)
            self._under_way.add(operation.number)

    def drop(self, target: str, key: bytes, version: bytes) -> None:
        """A primary holds what this hint does."""
        core = self._core
        try:
            dropped = self._hints.expired(target, key, version)
        except KVError:
            return
        if dropped:
            core.hint_discarded(key)
            # until this is on the disk a power failure would bring it back, so its key is not reaped
            core.durability.soon(core.durability.last)

    def done(self, number: int) -> None:
        """An operation is over."""
        self._under_way.discard(number)


class InheritOperation(Errand):
    """An old hint on its way to a primary that is alive."""

    __slots__ = ("_expiry", "_target", "key", "version")

    def __init__(
        self, expiry: HintExpiry, core: Coordinator, heir: str, target: str, key: bytes, version: bytes
    ) -> None:
        super().__init__(core, heir, core.settings.default_timeout)
        self._expiry = expiry
        self._target = target
        self.key = key
        self.version = version
        core.transport.send(heir, ReplicaWrite(self.number, core.state.epoch, key, version, replay=True))

    def touches(self) -> bytes:
        """See Operation."""
        return self.key

    def on_write_ack(self, node: str) -> None:
        """The primary has it durably."""
        if node == self.node:
            self.finish()
            self._expiry.done(self.number)
            self._expiry.drop(self._target, self.key, self.version)

    def on_lost(self) -> None:
        """See Errand."""
        self._expiry.done(self.number)
