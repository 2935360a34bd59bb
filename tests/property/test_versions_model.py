"""A model that forgets nothing: every replica keeps every event it ever heard of, with all that it had seen.

It is as dumb as can be, and says which values must live: those that no other known event has seen. Versions,
which remember a counter for each actor, must say the same after any course of events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from kvstore.versions import (
    EMPTY,
    CausalContext,
    Dot,
    Sibling,
    Version,
    join,
    reconcile,
    reconcile_lww,
    write,
)

REPLICAS = 3


@dataclass(frozen=True, eq=False)
class Event:
    """One write, with every event that its client had seen, and those that these had seen."""

    dot: Dot
    time: int
    saw: frozenset[Event]


Known = frozenset[Event]


def past(known: Known) -> Known:
    """All that is known, and all that was seen by it."""
    return known.union(*(event.saw for event in known))


def living(known: Known) -> set[Dot]:
    seen = frozenset[Event]().union(*(event.saw for event in known))
    return {event.dot for event in known - seen}


class Seen(NamedTuple):
    """What a client holds after a read or a write, and what that means."""

    context: CausalContext = ()
    events: Known = frozenset()


class Replicas:
    """Versions beside the model."""

    def __init__(self, lww: bool = False) -> None:
        self.lww = lww
        self.versions = [EMPTY] * REPLICAS
        self.known: list[Known] = [frozenset()] * REPLICAS
        self.seen = [Seen()]
        self.minted = 0

    def write(self, at: int, client: int, tombstone: bool) -> None:
        seen = self.seen[client % len(self.seen)]
        current = self.versions[at]
        self.minted += 1
        dot = Dot(f"n{at}", self.minted)
        time = self.minted if self.lww else 0
        context = join(seen.context, current.context) if self.lww else seen.context
        sibling = Sibling(dot, None if tombstone else b"v", time)
        self.versions[at] = version = write(current, context, sibling)
        self.known[at] |= {Event(dot, time, seen.events)}
        if len(version.siblings) == 1 and not self.lww:
            self.seen.append(Seen(version.context, past(self.known[at])))

    def read(self, at: int) -> None:
        self.seen.append(Seen(self.versions[at].context, past(self.known[at])))

    def bring(self, version: Version, known: Known, to: int) -> None:
        rule = reconcile_lww if self.lww and version.siblings and self.versions[to].siblings else reconcile
        self.versions[to] = rule(self.versions[to], version)
        self.known[to] |= known


steps = st.tuples(
    st.sampled_from(["write", "write", "read", "bring", "send", "arrive"]),
    st.integers(0, REPLICAS - 1),
    st.integers(0, REPLICAS - 1),
    st.integers(0, 99),
)


def run(replicas: Replicas, course: list[tuple[str, int, int, int]]) -> None:
    """`send` and `arrive`: messages are late, out of order, repeated, or lost."""
    sent: list[tuple[Version, Known]] = [(EMPTY, frozenset())]
    for what, one, other, number in course:
        match what:
            case "write":
                replicas.write(one, number, number % 5 == 0)
            case "read":
                replicas.read(one)
            case "send":
                sent.append((replicas.versions[one], replicas.known[one]))
            case "arrive":
                replicas.bring(*sent[number % len(sent)], other)
            case _:
                replicas.bring(replicas.versions[one], replicas.known[one], other)


@given(st.lists(steps, max_size=40))
def test_versions_keep_exactly_what_a_model_of_every_event_keeps(
    course: list[tuple[str, int, int, int]],
) -> None:
    replicas = Replicas()
    run(replicas, course)
    for version, known in zip(replicas.versions, replicas.known, strict=True):
        assert {sibling.dot for sibling in version.siblings} == living(known)


@given(st.lists(steps, max_size=40))
def test_lww_keeps_exactly_the_last_of_every_event(course: list[tuple[str, int, int, int]]) -> None:
    replicas = Replicas(lww=True)
    run(replicas, course)
    for version, known in zip(replicas.versions, replicas.known, strict=True):
        last = max(known, key=lambda event: (event.time, event.dot), default=None)
        assert [sibling.dot for sibling in version.siblings] == ([last.dot] if last else [])
