"""Log lines about what a node has been doing, made of its counters and figures.

The core logs nothing: it counts. The counters are read once a second, so that one line stands for all that
happened in that second, however much it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kvstore.lsm.messages import WHOLE, table_name
from kvstore.lsm.quarantine import Fence
from kvstore.node.status import NodeStatus

_SECONDS = 1.0
"""Between two readings of the counters."""
_CALM = 10.0
"""Seconds without a refusal after which an overload is over."""
_SUMMARY = 60.0
"""Seconds from one line of what goes on all the time to the next."""

_log = logging.getLogger(__name__)

Line = tuple[Any, ...]
"""The arguments of `Logger.log`: its level, the text, and what stands in that."""


@dataclass(slots=True)
class _Seen:
    """Hints for one node since the first of them."""

    since: float
    most: int


class Activity:
    """Finds what is worth a line in what a node says of itself, from one look to the next."""

    def __init__(self, first: NodeStatus) -> None:
        self._before = first
        self._fences: set[Fence] = set()
        self._hints: dict[str, _Seen] = {}
        self._summarized = float("-inf")
        self._repaired = first.counters.repairs
        self._overload: _Overload | None = None

    def look(self, status: NodeStatus, fences: tuple[Fence, ...], now: float) -> list[Line]:
        """The lines of what has happened since the last look; `now` in monotonic seconds."""
        lines = [
            *self._of_hints(status, now),
            *self._of_dropped(status),
            *self._of_damage(status, fences),
            *self._of_overload(status, now),
            *self._of_repair(status, now),
        ]
        self._before = status
        return lines

    def _of_hints(self, status: NodeStatus, now: float) -> Iterator[Line]:
        kept = {hints.target: hints for hints in status.hints}
        delivered = status.counters.hints_delivered - self._before.counters.hints_delivered
        if delivered and not kept and not self._hints:
            yield logging.INFO, "%d hints were kept briefly, and are delivered", delivered
        for target, hints in kept.items():
            if target not in self._hints:
                self._hints[target] = _Seen(now, hints.count)
                yield (
                    logging.INFO,
                    "keeps hints for node %s: %d of %d bytes",
                    target,
                    hints.count,
                    hints.bytes,
                )
            self._hints[target].most = max(self._hints[target].most, hints.count)
        for target in [target for target in self._hints if target not in kept]:
            seen = self._hints.pop(target)
            text = "no hints are left for node %s: there were up to %d, the first %.0f s ago"
            yield logging.INFO, text, target, seen.most, now - seen.since

    def _of_dropped(self, status: NodeStatus) -> Iterator[Line]:
        reasons = {
            "hints_overflowed": "no room for more",
            "hints_expired": "too old",
            "hints_unwritable": "the disk did not take them",
            "hints_unreadable": "they cannot be read",
        }
        for counter, reason in reasons.items():
            if count := getattr(status.counters, counter) - getattr(self._before.counters, counter):
                text = "dropped %d hints: %s; anti-entropy repairs what they held"
                yield logging.WARNING, text, count, reason

    def _of_damage(self, status: NodeStatus, fences: tuple[Fence, ...]) -> Iterator[Line]:
        for fence in fences:
            if fence not in self._fences:
                block = "" if fence.block == WHOLE else f"block {fence.block} of "
                yield logging.ERROR, "damaged, and quarantined: %s%s", block, table_name(fence.table)
        if fences and status.refetching_from != self._before.refetching_from:
            waiting = ", ".join(status.refetching_from) or "nobody"
            yield logging.INFO, "what is quarantined comes back when these have answered: %s", waiting
        if self._fences and not fences:
            text = "nothing is quarantined any more (%d versions refetched since the start)"
            yield logging.INFO, text, status.counters.refetched
        self._fences = set(fences)

    def _of_overload(self, status: NodeStatus, now: float) -> Iterator[Line]:
        refused = status.counters.overloaded - self._before.counters.overloaded
        if refused and self._overload is None:
            self._overload = _Overload(now, now, 0)
            text = "overloaded: requests are refused (%d under way, which hold %d bytes)"
            yield logging.WARNING, text, status.in_flight, status.in_flight_bytes
        overload = self._overload
        if overload is None:
            return
        if refused:
            overload.last = now
            overload.refused += refused
        elif now - overload.last >= _CALM:
            self._overload = None
            text = "the overload is over: %d requests were refused in %.0f s"
            yield logging.INFO, text, overload.refused, overload.last - overload.since

    def _of_repair(self, status: NodeStatus, now: float) -> Iterator[Line]:
        repairs = status.counters.repairs
        if repairs > self._repaired and now - self._summarized >= _SUMMARY:
            text = "anti-entropy has repaired %d versions; %d pairs of replicas are not proven equal"
            yield logging.INFO, text, repairs - self._repaired, status.anti_entropy.unproven
            self._repaired, self._summarized = repairs, now


@dataclass(slots=True)
class _Overload:
    """A time in which requests are refused."""

    since: float
    last: float
    refused: int


class ActivityLog:
    """Looks once a second, and logs; belongs to the loop's thread."""

    def __init__(self, status: Callable[[], NodeStatus], fences: Callable[[], tuple[Fence, ...]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._status = status
        self._fences = fences
        self._activity = Activity(status())
        self._timer = self._loop.call_later(_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(_SECONDS, self._look)
        for line in self._activity.look(self._status(), self._fences(), self._loop.time()):
            _log.log(*line)

    def close(self) -> None:
        """The end."""
        self._timer.cancel()
