"""What a node has done since it started: a counter is declared once, in the class of its topic.

From here status, kvctl, the simulator's totals and the table in docs/kvctl.md take it by its name. Whoever
counts is given the counters as its own topic. Plain integers, so that counting costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from kvstore.quorum.counters.hints import HintCounters
from kvstore.quorum.counters.reads import ReadCounters
from kvstore.quorum.counters.repair import RepairCounters
from kvstore.quorum.counters.requests import RequestCounters
from kvstore.quorum.counters.traffic import TrafficCounters
from kvstore.quorum.counters.transfers import TransferCounters


@dataclass
class Counters(
    RequestCounters, ReadCounters, HintCounters, RepairCounters, TransferCounters, TrafficCounters
):
    """All counters of one node, each a number of events since its process started."""


TOPICS = {
    topic: tuple(field.name for field in fields(kind))
    for topic, kind in (
        ("requests", RequestCounters),
        ("reads", ReadCounters),
        ("hints", HintCounters),
        ("repair", RepairCounters),
        ("transfers", TransferCounters),
        ("traffic", TrafficCounters),
    )
}
"""The names of the counters by topic, in the order in which they are shown."""
