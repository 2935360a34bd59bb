"""What the figures of a node say in words."""

from __future__ import annotations

from typing import Any

from kvstore.lsm.messages import WHOLE
from kvstore.lsm.quarantine import Fence
from kvstore.quorum.counters import Counters
from kvstore.quorum.hints import PendingHints
from kvstore.server.activity import Activity
from tests.unit.status_records import node_status


class Told:
    """A story, by seconds."""

    def __init__(self) -> None:
        self.activity = Activity(node_status("n1"))
        self.now = 100.0

    def after(
        self, seconds: float, fences: tuple[Fence, ...] = (), counters: Counters | None = None, **known: Any
    ) -> list[str]:
        self.now += seconds
        status = node_status("n1", counters=counters or Counters(), **known)
        lines = self.activity.look(status, fences, self.now)
        return [text % tuple(args) for _, text, *args in lines]


def test_nothing_happens_and_nothing_is_said() -> None:
    told = Told()
    assert [told.after(60) for _ in range(5)] == [[]] * 5


def test_hints_are_kept_and_go_home() -> None:
    told = Told()
    assert told.after(1, hints=(PendingHints("n2", 3, 40, 0.5),)) == [
        "keeps hints for node n2: 3 of 40 bytes"
    ]
    assert told.after(9, hints=(PendingHints("n2", 500, 9000, 9.0),)) == []
    assert told.after(11) == ["no hints are left for node n2: there were up to 500, the first 20 s ago"]


def test_hints_that_are_home_before_anybody_looks_are_told_as_well() -> None:
    told = Told()
    delivered = Counters(hints_stored=7, hints_delivered=7)
    assert told.after(1, counters=delivered) == ["7 hints were kept briefly, and are delivered"]
    assert told.after(1, counters=delivered) == []


def test_dropped_hints_have_a_reason() -> None:
    told = Told()
    dropped = Counters(hints_overflowed=5, hints_expired=2, hints_dropped=7)
    behind = "anti-entropy repairs what they held"
    assert told.after(1, counters=dropped) == [
        f"dropped 5 hints: no room for more; {behind}",
        f"dropped 2 hints: too old; {behind}",
    ]
    assert told.after(1, counters=dropped) == []


def test_damage_is_told_once_with_its_place_and_its_end() -> None:
    told = Told()
    fences = (Fence(7, 3, b"a", b"b"), Fence(8, WHOLE, b"a", b"b"))
    assert told.after(1, fences, refetching_from=("n2", "n3")) == [
        "damaged, and quarantined: block 3 of 00000007.sst",
        "damaged, and quarantined: 00000008.sst",
        "what is quarantined comes back when these have answered: n2, n3",
    ]
    assert told.after(1, fences, refetching_from=("n2", "n3")) == []
    assert told.after(1, fences, refetching_from=("n3",))[0].endswith("answered: n3")
    assert told.after(1, counters=Counters(refetched=12)) == [
        "nothing is quarantined any more (12 versions refetched since the start)"
    ]


def test_an_overload_begins_and_ends() -> None:
    told = Told()
    (begun,) = told.after(1, counters=Counters(overloaded=10), in_flight=4, in_flight_bytes=99)
    assert begun == "overloaded: requests are refused (4 under way, which hold 99 bytes)"
    assert told.after(5, counters=Counters(overloaded=25)) == []
    assert told.after(9, counters=Counters(overloaded=25)) == []
    assert told.after(1, counters=Counters(overloaded=25)) == [
        "the overload is over: 25 requests were refused in 5 s"
    ]


def test_repairs_are_summed_up_by_the_minute() -> None:
    told = Told()
    (first,) = told.after(1, counters=Counters(repairs=2))
    assert first.startswith("anti-entropy has repaired 2 versions")
    assert told.after(30, counters=Counters(repairs=900)) == []
    (second,) = told.after(30, counters=Counters(repairs=1000))
    assert second.startswith("anti-entropy has repaired 998 versions")
