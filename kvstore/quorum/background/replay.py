"""Bringing hints home: each target's hints in pages, the next when all of the last are answered.

Pages are paced, node-wide and slower under load, so that replay does not starve foreground work. A target
that fails to answer is left alone for a while, longer each time. A hint whose target is no primary of its
key any more goes to the present primaries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from kvstore.config import MIB
from kvstore.errors import Corruption, KVError, Overloaded, StorageFull
from kvstore.protocol.messages import ReplicaWrite
from kvstore.quorum.background.expiry import HintExpiry
from kvstore.quorum.hints import Hints
from kvstore.quorum.operation import Errand

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator

_PAGE_BYTES = MIB
_LONGEST_PAUSE = 1.0
"""Seconds between two pages at most, however great the load is."""
_FOR_EVER = float("inf")


@dataclass(slots=True)
class _Target:
    """The replay to one node: what is under way, where the next page starts, when to try again.

    `failures` counts pages in a row that were not taken as a whole. All hints are known to fit the ring of
    epoch `fits`; another one may have moved their partitions. `astray` tells that one on the present way
    through them has moved and could not be sent.
    """

    under_way: set[int] = field(default_factory=set)
    after: bytes = b""
    retry_at: float = 0.0
    served_at: float = 0.0
    failed: bool = False
    failures: int = 0
    fits: int = -1
    astray: bool = False


class HintReplay:
    """Replays this node's hints to whichever of their targets are alive."""

    __slots__ = ("_alive", "_core", "_expiry", "_hints", "_paced_until", "_targets")

    def __init__(self, core: Coordinator, hints: Hints, alive: Callable[[str], bool]) -> None:
        self._core = core
        self._hints = hints
        self._alive = alive
        self._targets: defaultdict[str, _Target] = defaultdict(_Target)
        self._paced_until = 0.0
        self._expiry = HintExpiry(core, hints, self._reachable)

    def next_deadline(self) -> float:
        """When `on_timer` next has work, in monotonic seconds."""
        if self._hints.empty:
            return _FOR_EVER
        return min(self._expiry.next_deadline(), *map(self._due, self._hints.targets))

    def on_timer(self, now: float) -> None:
        """Send the next page to the target that has waited longest of those that are due."""
        self._hints.drop_unreadable()
        if self._hints.empty:
            return
        self._core.guard.run(self._expiry.on_timer, now)
        due = [target for target in self._hints.targets if self._due(target) <= now]
        if due:
            self._send_page(min(due, key=lambda target: self._targets[target].served_at), now)

    def on_alive(self, node: str) -> None:
        """A target has come back: no need to wait, and all from the start."""
        if state := self._targets.get(node):
            state.retry_at = 0.0
            state.failures = 0
            state.after = b""

    def on_delivered(self, delivery: DeliveryOperation) -> None:
        """A hint was acknowledged: it can go, and with the last of a page comes the next."""
        target, key = delivery.node, delivery.key
        try:
            discarded = self._hints.delivered(target, key, delivery.version)
        except (StorageFull, Overloaded, Corruption):
            # it cannot be deleted now: sending it again does no harm
            self.on_failed(delivery)
            return
        if discarded:
            self._core.counters.hints_rerouted += delivery.rerouted
            self._core.hint_discarded(key)
            # until this is on the disk the key is not reaped: a power failure would bring the hint back
            self._core.durability.soon(self._core.durability.last)
        self._done(delivery)

    def on_failed(self, delivery: DeliveryOperation) -> None:
        """A hint was not taken: it stays, and is tried again later."""
        state = self._targets[delivery.node]
        state.failed = True
        self._done(delivery)

    def _done(self, delivery: DeliveryOperation) -> None:
        state = self._targets[delivery.node]
        state.under_way.discard(delivery.number)
        if not state.under_way:
            self._page_ended(state)

    def _page_ended(self, state: _Target) -> None:
        if not state.failed:
            state.failures = 0
            return
        settings = self._core.settings
        state.failed = False
        pause = settings.hint_interval * 2 ** min(state.failures, 16)
        state.retry_at = self._core.now + min(pause, settings.hint_longest_interval)
        state.failures += 1
        state.after = b""
        state.astray = False

    def _reachable(self, target: str) -> bool:
        """Whether it is a member, and alive."""
        return self._core.state.member(target) is not None and self._alive(target)

    def _due(self, target: str) -> float:
        state = self._targets[target]
        if state.under_way:
            return _FOR_EVER
        if state.fits == self._core.state.epoch and not self._reachable(target):
            return _FOR_EVER
        return max(state.retry_at, self._paced_until)

    def _send_page(self, target: str, now: float) -> None:
        state = self._targets[target]
        state.served_at = now
        try:
            page = self._hints.page(target, state.after, self._core.settings.hint_window, _PAGE_BYTES)
        except Corruption:  # until what is damaged has left the disk (kvstore.quorum.background.quarantine)
            page = []
        if not page:
            # from the start again: some were kept or changed behind the cursor
            if not state.astray:
                state.fits = self._core.state.epoch
            state.after = b""
            state.astray = False
            state.retry_at = now + self._core.settings.hint_interval
            return
        state.after = page[-1][0]
        self._paced_until = now + self._pause(page)
        deliveries = [d for key, version in page if (d := self._delivery(state, target, key, version))]
        state.under_way.update(delivery.number for delivery in deliveries)
        for delivery in deliveries:
            delivery.send()

    def _pause(self, page: list[tuple[bytes, bytes]]) -> float:
        """How long after a page the next one follows, to whichever target."""
        settings = self._core.settings
        size = sum(len(version) for _, version in page)
        pause = max(len(page) / settings.hint_rate, size / settings.hint_byte_rate)
        return min(pause * (1 + self._core.load), _LONGEST_PAUSE)

    def _delivery(self, state: _Target, target: str, key: bytes, version: bytes) -> DeliveryOperation | None:
        """What to do about one hint; None: it has to wait for somebody who is dead."""
        primaries = self._core.primaries(key)
        if target in primaries:
            if not self._reachable(target):
                return None
            return DeliveryOperation(self, self._core, target, {target}, key, version)
        if not all(map(self._reachable, primaries)):
            state.astray = True
            return None
        return DeliveryOperation(self, self._core, target, set(primaries), key, version)


class DeliveryOperation(Errand):
    """One hint for `node` on its way to those it belongs to: that node, else the present primaries."""

    __slots__ = ("_awaiting", "_replay", "key", "rerouted", "version")

    def __init__(
        self, replay: HintReplay, core: Coordinator, target: str, to: set[str], key: bytes, version: bytes
    ) -> None:
        super().__init__(core, target, core.settings.default_timeout)
        self._replay = replay
        self._awaiting = to
        self.key = key
        self.version = version
        self.rerouted = target not in to

    def send(self) -> None:
        """Begin."""
        core = self.core
        message = ReplicaWrite(self.number, core.state.epoch, self.key, self.version, replay=True)
        for node in sorted(self._awaiting - {core.name}):
            core.transport.send(node, message)
        if core.name in self._awaiting:
            self._take_here()

    def _take_here(self) -> None:
        """This node is one of the primaries itself now."""
        core = self.core
        try:
            lsn = core.store(self.key, self.version, "")
        except KVError:
            self._lose()
        else:
            core.durability.after(lsn, partial(self.on_write_ack, core.name))

    def touches(self) -> bytes:
        """See Operation."""
        return self.key

    def on_write_ack(self, node: str) -> None:
        """The node has it durably."""
        self._awaiting.discard(node)
        if not self._awaiting and self.core.operation(self.number) is self:
            self.finish()
            self._replay.on_delivered(self)

    def on_gone(self, node: str) -> None:
        """The message or its answer may be lost."""
        if node in self._awaiting:
            self._lose()

    def on_lost(self) -> None:
        """See Errand."""
        self._replay.on_failed(self)
