"""Bringing hints home: each target's hints in pages, the next when all of the last are answered.

The window of one page is the rate limit; a target that fails to answer is left alone for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvstore.config import MIB
from kvstore.errors import Corruption, Overloaded, StorageFull
from kvstore.quorum.hints import Hints
from kvstore.quorum.messages import ReplicaWrite
from kvstore.quorum.operation import Errand

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator

_PAGE_BYTES = MIB
_FOR_EVER = float("inf")


@dataclass(slots=True)
class _Target:
    """The replay to one node: what is under way, where the next page starts, when to try again."""

    under_way: set[int] = field(default_factory=set)
    after: bytes = b""
    retry_at: float = 0.0


class HintReplay:
    """Replays this node's hints to whichever of their targets are alive."""

    __slots__ = ("_alive", "_core", "_hints", "_targets")

    def __init__(self, core: Coordinator, hints: Hints, alive: Callable[[str], bool]) -> None:
        self._core = core
        self._hints = hints
        self._alive = alive
        self._targets: dict[str, _Target] = {}

    def next_deadline(self) -> float:
        """When `on_timer` next has work, in monotonic seconds."""
        if self._hints.empty:
            return _FOR_EVER
        return min(self._due(pending.target) for pending in self._hints.all_pending())

    def on_timer(self, now: float) -> None:
        """Send the next page to every live target that is due."""
        for pending in self._hints.all_pending():
            if self._due(pending.target) <= now:
                self._send_page(pending.target, now)

    def on_alive(self, node: str) -> None:
        """A target has come back: no need to wait."""
        if node in self._targets:
            self._targets[node].retry_at = 0.0

    def on_delivered(self, target: str, key: bytes, version: bytes, number: int) -> None:
        """`target` has acknowledged a hint: it can go, and with the last of a page comes the next."""
        try:
            discarded = self._hints.delivered(target, key, version)
        except (StorageFull, Overloaded, Corruption):
            # it cannot be deleted now: sending it again does no harm
            self.on_failed(target, number, self._core.now)
            return
        if discarded:
            self._core.hint_discarded(key)
            # until this is on the disk the key is not reaped: a power failure would bring the hint back
            self._core.durability.after(self._core.durability.last, _nothing_waits)
        self._done(target, number)

    def on_failed(self, target: str, number: int, now: float) -> None:
        """`target` did not take a hint: it stays, and is tried again later."""
        state = self._targets[target]
        state.retry_at = now + self._core.settings.hint_interval
        state.after = b""
        self._done(target, number)

    def _due(self, target: str) -> float:
        if not self._alive(target):
            return _FOR_EVER
        state = self._targets.get(target)
        if state is None:
            return 0.0
        return _FOR_EVER if state.under_way else state.retry_at

    def _send_page(self, target: str, now: float) -> None:
        state = self._targets.setdefault(target, _Target())
        try:
            page = self._hints.page(target, state.after, self._core.settings.hint_window, _PAGE_BYTES)
        except Corruption:  # until what is damaged has left the disk (kvstore.quorum.quarantine)
            page = []
        if not page:
            # from the start again: some were kept or changed behind the cursor
            state.after = b""
            state.retry_at = now + self._core.settings.hint_interval
            return
        state.after = page[-1][0]
        for key, version in page:
            state.under_way.add(DeliveryOperation(self, self._core, target, key, version).number)

    def _done(self, target: str, number: int) -> None:
        self._targets[target].under_way.discard(number)


class DeliveryOperation(Errand):
    """One hint on its way to the node it belongs to."""

    __slots__ = ("key", "replay", "version")

    def __init__(
        self, replay: HintReplay, core: Coordinator, target: str, key: bytes, version: bytes
    ) -> None:
        super().__init__(core, target, core.settings.default_timeout)
        self.replay = replay
        self.key = key
        self.version = version
        core.transport.send(target, ReplicaWrite(self.number, core.state.epoch, key, version, replay=True))

    def touches(self) -> bytes:
        """See Operation."""
        return self.key

    def on_write_ack(self, node: str) -> None:
        """The target has it durably."""
        if node == self.node:
            self.finish()
            self.replay.on_delivered(node, self.key, self.version, self.number)

    def on_lost(self) -> None:
        """See Errand."""
        self.replay.on_failed(self.node, self.number, self.core.now)


def _nothing_waits() -> None:
    """For a deletion that should be synced soon, although no ack depends on it."""
