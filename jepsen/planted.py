"""Nodes with a defect in them: `python -m jepsen.planted DEFECT` and then what `kvnode` takes.

Each is a defect that databases have had, put into the running node from outside. A test of faults that does
not find them would find none: docs/testing.md says which workload and nemesis find which, and how long
that takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kvstore.quorum.request
from kvstore.protocol.instant import Instant
from kvstore.quorum.actors import Actors
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.hints import Hints
from kvstore.quorum.read import ReadOperation
from kvstore.quorum.request import Request
from kvstore.quorum.write import WriteEvent, WriteOperation, WriteState
from kvstore.server.main import main
from kvstore.versions import NO_VERSION, CausalContext, Dot, EncodedVersion, InternalKey

_LEASE = 1000


def ack_before_quorum() -> None:
    """A write is acknowledged when the coordinator alone has it."""
    advance: Callable[[WriteOperation, Instant], None] = WriteOperation._advance

    def reply_early(self: WriteOperation, now: Instant) -> None:
        if self.state is WriteState.WAITING and self._common.placements.name in self.acked:
            self.move(WriteEvent.ACKNOWLEDGED)
            self.answer(self._stored(), now)
        advance(self, now)

    _plant(WriteOperation, "_advance", reply_early)


def strict_counts_fallbacks() -> None:
    """Strict quorums are sloppy ones: fallbacks count towards R and W."""

    def sloppy(*arguments: Any) -> Request:
        fields = dict(zip(Request.__struct_fields__, arguments, strict=True))
        return Request(**{**fields, "sloppy": True})

    _plant(kvstore.quorum.request, "Request", sloppy)


def repair_dropped() -> None:
    """A read replies with what it has found, and repairs nobody."""

    def reply_at_once(self: ReadOperation, now: Instant) -> None:
        if self._waited_for and len(self.answers) >= self.request.r:
            result = NO_VERSION
            for version in self.answers.values():
                result = self._common.local.replica.combine(self.request.key, result, version)
            self._reply(result, now)

    _plant(ReadOperation, "_evaluate", reply_at_once)


def hint_deleted_before_ack() -> None:
    """A hint is deleted when it is sent, not when its target has it."""
    page = Hints.page

    def forget(
        self: Hints, target: str, after: InternalKey, count: int, size: int
    ) -> list[tuple[InternalKey, EncodedVersion]]:
        found = page(self, target, after, count, size)
        for key, version in found:
            self.delivered(target, key, version)
        return found

    _plant(Hints, "page", forget)


def ack_before_fsync() -> None:
    """What is applied is acknowledged; nobody waits for the disk."""
    _plant(HeldOutputs, "after", lambda self, lsn, output, now: self._release(output, now))


def actor_kept_after_wipe() -> None:
    """A node keeps its actors for ever, with a counter leased on its disk: until that is another."""
    place = Path(sys.argv[sys.argv.index("--data") + 1]) / "engine" / "COUNTER"
    counters: dict[str, int] = {}

    def mint(self: Actors, partition: int, _known: CausalContext = ()) -> Dot:
        if not counters:
            counters["next"] = counters["leased"] = int(place.read_text()) if place.exists() else 0
        counters["next"] += 1
        if counters["next"] > counters["leased"]:
            counters["leased"] = counters["next"] + _LEASE
            place.write_text(str(counters["leased"]))
        return Dot(f"{self._node}.{partition:x}", counters["next"])

    _plant(Actors, "mint", mint)


DEFECTS: dict[str, Callable[[], None]] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (
        ack_before_quorum,
        strict_counts_fallbacks,
        repair_dropped,
        hint_deleted_before_ack,
        ack_before_fsync,
        actor_kept_after_wipe,
    )
}


def _plant(where: object, name: str, what: object) -> None:
    assert hasattr(where, name), f"{where} has no {name} any more: plant this defect anew"
    setattr(where, name, what)


if __name__ == "__main__":
    DEFECTS[sys.argv.pop(1)]()
    main()
