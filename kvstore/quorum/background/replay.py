"""Replay of hints: each target's hints are delivered in pages, the next when all of the last are answered.

Pages are paced, node-wide and slower under load, so that replay does not starve foreground work. A target
that fails to answer is left alone for a while, longer each time. A hint whose target is no primary of its
key any more goes to the present primaries.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from kvstore.config import MIB, QuorumSettings
from kvstore.errors import Corruption, KVError, Overloaded, StorageFull
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReplicaWrite, WriteAck
from kvstore.quorum.admission import Admission
from kvstore.quorum.counters.hints import HintCounters
from kvstore.quorum.deadlines import NEVER
from kvstore.quorum.flow import Ask, Flow, Flows, Sync
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.mint import Mint
from kvstore.quorum.placement import Placements
from kvstore.versions import NO_KEY, EncodedVersion, InternalKey

_PAGE_BYTES = MIB
_LONGEST_PAUSE = 1.0
"""Seconds between two pages at most, however great the load is."""


@dataclass(slots=True)
class _Target:
    """The replay to one node: whether a page is under way, where the next one starts, when to try again.

    `failures` counts pages in a row that were not taken as a whole. All hints are known to fit the ring of
    epoch `fits`; another one may have moved their partitions. The present way through them began at epoch
    `began`, and `astray` tells that one on it has moved and could not be sent.
    """

    under_way: bool = False
    after: InternalKey = NO_KEY
    retry_at: float = 0.0
    served_at: float = 0.0
    failures: int = 0
    fits: int = -1
    began: int = -1
    astray: bool = False


class _Delivery(NamedTuple):
    """One hint of a page, and the nodes that must have it before it is deleted."""

    key: InternalKey
    version: EncodedVersion
    to: tuple[str, ...]


class HintReplay:
    """Replays this node's hints to whichever of their targets are alive."""

    def __init__(
        self,
        flows: Flows,
        local: LocalCopy,
        placements: Placements,
        mint: Mint,
        durability: HeldOutputs,
        admission: Admission,
        counters: HintCounters,
        settings: QuorumSettings,
    ) -> None:
        self._flows = flows
        self._local = local
        self._hints = local.hints
        self._placements = placements
        self._mint = mint
        self._durability = durability
        self._admission = admission
        self._counters = counters
        self._settings = settings
        self._targets: defaultdict[str, _Target] = defaultdict(_Target)
        self._paced_until = 0.0
        self._timer = flows.deadlines.timer(self._on_time)

    def start(self, now: Instant) -> None:
        """There may be hints from before this start."""
        self._timer.set(now.mono)

    def on_kept(self, target: str) -> None:
        """A hint for `target` has been written."""
        self._timer.set_by(self._due(target))

    def on_alive(self, node: str) -> None:
        """A target has come back: no need to wait, and all from the start."""
        if state := self._targets.get(node):
            state.retry_at = 0.0
            state.failures = 0
            state.after = NO_KEY
        self._sleep()

    def on_state(self) -> None:
        """The cluster state has changed: others may be due than before."""
        self._sleep()

    def _sleep(self) -> None:
        """Until the first target is due."""
        self._timer.set(min(map(self._due, self._hints.targets), default=NEVER))

    def _due(self, target: str) -> float:
        state = self._targets[target]
        if state.under_way:
            return NEVER
        if state.fits == self._placements.state.epoch and not self._reachable(target):
            return NEVER
        return max(state.retry_at, self._paced_until)

    def _reachable(self, target: str) -> bool:
        """Whether it is a member, and alive."""
        return self._placements.state.member(target) is not None and self._placements.alive(target)

    def _on_time(self, now: Instant) -> None:
        """Send the next page to the target that has waited longest of those that are due."""
        self._hints.drop_unreadable()
        due = [target for target in self._hints.targets if self._due(target) <= now.mono]
        if due:
            self._send_page(min(due, key=lambda target: self._targets[target].served_at), now)
        self._sleep()

    def _send_page(self, target: str, now: Instant) -> None:
        state, settings = self._targets[target], self._settings
        state.served_at = now.mono
        if not state.after:
            state.began = self._placements.state.epoch
        try:
            page = self._hints.page(target, state.after, settings.hint_window, _PAGE_BYTES)
        except Corruption:  # until what is damaged has left the disk (kvstore.quorum.background.quarantine)
            page = []
        if not page:
            # from the start again: some were kept or changed behind the cursor
            if not state.astray:
                state.fits = state.began
            state.after = NO_KEY
            state.astray = False
            state.retry_at = now.mono + settings.hint_interval
            return
        state.after = page[-1][0]
        self._paced_until = now.mono + self._pause(page)
        deliveries = [d for key, version in page if (d := self._delivery(state, target, key, version))]
        if deliveries:
            state.under_way = True
            self._flows.begin(self._deliver(target, deliveries), now)

    def _pause(self, page: list[tuple[InternalKey, EncodedVersion]]) -> float:
        """How long after a page the next one follows, to whichever target."""
        settings = self._settings
        size = sum(len(version) for _, version in page)
        pause = max(len(page) / settings.hint_rate, size / settings.hint_byte_rate)
        return min(pause * (1 + self._admission.load), _LONGEST_PAUSE)

    def _delivery(
        self, state: _Target, target: str, key: InternalKey, version: EncodedVersion
    ) -> _Delivery | None:
        """What to do about one hint; None: it has to wait for somebody who is dead."""
        primaries = self._placements.primaries(key)
        if target in primaries:
            return _Delivery(key, version, (target,)) if self._reachable(target) else None
        if not all(map(self._reachable, primaries)):
            state.astray = True
            return None
        return _Delivery(key, version, primaries)

    def _deliver(self, target: str, page: list[_Delivery]) -> Flow[None]:
        """Send a page, and delete the hints that all their nodes have acknowledged."""
        state = self._targets[target]
        try:
            now, acknowledged = yield from self._asked(page)
            for_each = zip(page, acknowledged, strict=True)
            taken = [acked and self._delivered(target, hint) for hint, acked in for_each]
            self._page_ended(state, all(taken), now)
        finally:
            state.under_way = False
            self._sleep()

    def _asked(self, page: list[_Delivery]) -> Flow[tuple[Instant, list[bool]]]:
        """For each hint of a page, whether all nodes that must have it do, durably."""
        name, epoch = self._placements.name, self._placements.state.epoch
        kept_here = [name not in hint.to or self._keep_here(hint) for hint in page]
        asked = [(i, node) for i, hint in enumerate(page) for node in sorted(hint.to) if node != name]
        now, outcomes = yield Ask(
            tuple(
                (node, ReplicaWrite(0, epoch, page[i].key, page[i].version, background=True))
                for i, node in asked
            ),
            self._settings.default_timeout,
        )
        if any(name in hint.to for hint in page):
            now, _ = yield Sync(self._durability.last)
        failed = {
            i for (i, _), outcome in zip(asked, outcomes, strict=True) if not isinstance(outcome, WriteAck)
        }
        return now, [here and i not in failed for i, here in enumerate(kept_here)]

    def _keep_here(self, hint: _Delivery) -> bool:
        """This node is one of the primaries itself now."""
        try:
            self._local.store(hint.key, hint.version)
        except KVError:
            return False
        return True

    def _delivered(self, target: str, hint: _Delivery) -> bool:
        """Delete a hint that was acknowledged; whether that was possible."""
        try:
            discarded = self._hints.delivered(target, hint.key, hint.version)
        except (StorageFull, Overloaded, Corruption):
            return False  # it cannot be deleted now: sending it again does no harm
        if discarded:
            self._counters.hints_rerouted += target not in hint.to
            self._mint.hint_discarded(hint.key)
            # until this is on the disk the key is not reaped: a power failure would bring the hint back
            self._durability.soon(self._durability.last)
        return True

    def _page_ended(self, state: _Target, went_well: bool, now: Instant) -> None:
        if went_well:
            state.failures = 0
            return
        settings = self._settings
        pause = settings.hint_interval * 2 ** min(state.failures, 16)
        state.retry_at = now.mono + min(pause, settings.hint_longest_interval)
        state.failures += 1
        state.after = NO_KEY
        state.astray = False
