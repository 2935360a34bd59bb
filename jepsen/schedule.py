"""When which fault is made: drawn from the seed before the run, the same from the same seed.

A choice of nemeses is text: names and groups of them with commas between are taken in turn, one fault at
a time; `+` joins such lists, which then go on side by side. So `network+kill-one,pause` splits the network
while it kills.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from jepsen.cluster import Cluster
from jepsen.nemeses import GROUPS, NEMESES
from jepsen.nemeses.base import Nemesis, Value


class BadChoice(Exception):
    """A choice of nemeses cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: from `begin` to `end`, seconds since the run began."""

    nemesis: str
    begin: float
    end: float
    value: Value
    track: int
    """Faults of one track are made one after the other."""


def parse_nemeses(text: str) -> list[list[str]]:
    """The lists of nemeses that go on side by side. Raises BadChoice."""
    lists = [_names(part) for part in text.split("+")]
    repeated = [name for name, count in Counter(chain.from_iterable(lists)).items() if count > 1]
    if repeated:
        # two faults of one kind at a time could not be told apart in the history
        raise BadChoice(f"{', '.join(repeated)} cannot go on beside itself")
    return [names for names in lists if names]


def _names(text: str) -> list[str]:
    names: list[str] = []
    for name in filter(None, text.split(",")):
        if name not in GROUPS and name not in NEMESES:
            known = ", ".join([*GROUPS, *NEMESES])
            raise BadChoice(f"there is no nemesis {name!r} (known: {known})")
        names += GROUPS.get(name, [name])
    return list(dict.fromkeys(names))


def make_schedule(
    lists: Sequence[Sequence[str]], seed: int, cluster: Cluster, seconds: float, typical: float
) -> list[Fault]:
    """All faults of a run of so many seconds, a fault lasting about `typical` seconds, in order of begin."""
    faults: list[Fault] = []
    for number, names in enumerate(lists):
        rng = random.Random(f"{seed} nemesis {number}")
        faults += _track(number, rng, names, cluster, seconds, typical)
    return sorted(faults, key=lambda fault: (fault.begin, fault.nemesis))


def skipped(lists: Sequence[Sequence[str]], cluster: Cluster) -> dict[str, str]:
    """The nemeses that this cluster cannot have, and why."""
    reasons = {name: NEMESES[name].reason_to_skip(cluster) for names in lists for name in names}
    return {name: reason for name, reason in reasons.items() if reason}


def _track(
    number: int, rng: random.Random, names: Sequence[str], cluster: Cluster, seconds: float, typical: float
) -> Iterator[Fault]:
    possible = [NEMESES[name] for name in names if not NEMESES[name].reason_to_skip(cluster)]
    turns = _in_turn(rng, possible)
    now = typical * rng.uniform(0.3, 0.6)
    while possible:
        nemesis = next(turns)
        length = min(nemesis.longest, typical * rng.choice((0.5, 1.0, 1.0, 2.0)) * rng.uniform(0.7, 1.3))
        if now + length / 2 > seconds:
            return
        end = min(now + length, seconds)
        yield Fault(nemesis.name, round(now, 3), round(end, 3), nemesis.plan(rng, cluster), number)
        now = end + typical * rng.uniform(0.3, 1.0)


def _in_turn(rng: random.Random, nemeses: Sequence[Nemesis]) -> Iterator[Nemesis]:
    """All in random order, then all again: a long run makes each equally often."""
    while nemeses:
        yield from rng.sample(nemeses, len(nemeses))
