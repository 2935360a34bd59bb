"""The rules for dots (DESIGN section 5, riak_kv#679) as a random model of one key.

Three primaries and two fallbacks mint dots with the real `Actors` and combine versions with the real
`write` and `reconcile`, while messages are late or lost, crashes lose what was not synced, disks are
wiped or restored from old backups, and fallbacks discard delivered hints. No write that reached a disk
may be lost, acknowledged or not. With any one rule left out, some are: each rule is needed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import reduce

import pytest

from kvstore.quorum.actors import Actors
from kvstore.versions import EMPTY, CausalContext, Sibling, Version, reconcile, write

PRIMARIES = ("p0", "p1", "p2")
FALLBACKS = ("f0", "f1")
STEPS = 150
W = 2

Copies = dict[str, Version]
"""What a node holds, by the primary that it is for: its own version, or hints."""


@dataclass(slots=True, eq=False)
class Session:
    """What a client knows: the context it was given, and the values it has truly seen."""

    context: CausalContext = ()
    seen: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class Write:
    """A write under way: acknowledged once durable at its coordinator and on W nodes."""

    number: int
    session: Session
    given: Session | None
    coordinator: str
    durable: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Node:
    """One node's memory and disk."""

    name: str
    actors: Actors
    up: bool = True
    held: Copies = field(default_factory=dict)
    disk: Copies = field(default_factory=dict)
    backup: Copies = field(default_factory=dict)
    unsynced: list[Write] = field(default_factory=list)

    def apply(self, target: str, version: Version) -> None:
        self.held[target] = reconcile(self.held.get(target, EMPTY), version)

    def local(self) -> Version:
        if self.name in PRIMARIES:
            return self.held.get(self.name, EMPTY)
        return union(self.held)


def union(*copies: Copies) -> Version:
    return reduce(reconcile, (version for held in copies for version in held.values()), EMPTY)


def values(version: Version) -> frozenset[int]:
    return frozenset(int(sibling.value or b"") for sibling in version.siblings)


class Model:
    """A run: `defect` names the one rule that is left out."""

    def __init__(self, seed: int, defect: str = "") -> None:
        self.rng = random.Random(f"dots/{seed}")
        self.defect = defect
        self.nodes = {n: Node(n, Actors(n, self.rng)) for n in (*PRIMARIES, *FALLBACKS)}
        self.sessions = [Session() for _ in range(3)]
        self.saw: list[frozenset[int]] = []
        self.durable: set[int] = set()
        self.acked: set[int] = set()
        self.network: list[tuple[str, str, Version, Write]] = []
        self.exercised: set[str] = set()

    def run(self) -> set[int]:
        """The durable writes that are lost when all is over and everyone has met."""
        events = {
            self.write: 6,
            self.deliver: 12,
            self.sync: 8,
            self.read: 4,
            self.exchange: 2,
            self.crash: 2,
            self.start: 3,
            self.replay: 4,
            self.wipe: 2,
            self.take_backup: 2,
            self.restore: 2,
        }
        for event in self.rng.choices(list(events), list(events.values()), k=STEPS):
            event()
        return self.lost(union(*(node.held for node in self.nodes.values())))

    def lost(self, left: Version) -> set[int]:
        """Durable writes neither in `left` nor replaced, in steps, by one in it that saw them."""
        known: set[int] = set()
        ahead = list(values(left))
        while ahead:
            number = ahead.pop()
            if number not in known:
                known.add(number)
                ahead.extend(self.saw[number])
        return self.durable - known

    def placement(self) -> list[tuple[str, str]]:
        """Who takes the place of each primary, and for whom."""
        spare = [name for name in FALLBACKS if self.nodes[name].up]
        self.rng.shuffle(spare)
        return [(p if self.nodes[p].up else spare.pop(), p) for p in PRIMARIES if self.nodes[p].up or spare]

    def some_up(self) -> Node | None:
        up = [node for node in self.nodes.values() if node.up]
        return self.rng.choice(up) if up else None

    # what clients do

    def write(self) -> None:
        places = self.placement()
        if not places:
            return
        coordinator = self.nodes[self.rng.choice(places)[0]]
        session = self.rng.choice(self.sessions)
        seen = session if self.rng.random() < 0.7 else Session()
        number = len(self.saw)
        self.saw.append(seen.seen)
        current, dot = coordinator.local(), coordinator.actors.mint(0)
        version = write(current, seen.context, Sibling(dot, str(number).encode()))
        alone = len(version.siblings) == 1 or self.defect == "a context in spite of siblings"
        given = Session(version.context, seen.seen | {number}) if alone else None
        under_way = Write(number, session, given, coordinator.name)
        for name, target in places:
            if name == coordinator.name:
                coordinator.apply(target, version)
            else:
                self.network.append((name, target, version, under_way))
        coordinator.unsynced.append(under_way)

    def read(self) -> None:
        asked = self.rng.sample(self.placement(), k=min(2, len(self.placement())))
        for name, _ in asked:
            self._sync(self.nodes[name])  # what is not durable is not shown
        version = reduce(reconcile, (self.nodes[name].local() for name, _ in asked), EMPTY)
        session = self.rng.choice(self.sessions)
        session.context, session.seen = version.context, values(version)

    # what nodes do

    def deliver(self) -> None:
        if self.network:
            name, target, version, under_way = self.network.pop(self.rng.randrange(len(self.network)))
            node = self.nodes[name]
            if node.up and self.rng.random() < 0.8:
                node.apply(target, version)
                node.unsynced.append(under_way)

    def sync(self) -> None:
        node = self.some_up()
        if node:
            self._sync(node)

    def _sync(self, node: Node) -> None:
        node.disk = dict(node.held)
        self.durable.update(*map(values, node.disk.values()))
        for under_way in node.unsynced:
            under_way.durable.add(node.name)
            if len(under_way.durable) >= W and under_way.coordinator in under_way.durable:
                self.acked.add(under_way.number)
                if under_way.given:
                    under_way.session.context = under_way.given.context
                    under_way.session.seen = under_way.given.seen
        node.unsynced.clear()

    def exchange(self) -> None:
        one, other = (self.nodes[name] for name in self.rng.sample(PRIMARIES, k=2))
        if one.up and other.up:
            other.apply(other.name, one.local())

    def replay(self) -> None:
        hints = [
            (node, target)
            for node in self.nodes.values()
            for target in node.held
            if node.up and target != node.name and self.nodes[target].up
        ]
        if not hints:
            return
        node, target = self.rng.choice(hints)
        self.nodes[target].apply(target, node.held[target])
        self._sync(self.nodes[target])
        if self.rng.random() < 0.7:  # else the ack is lost
            del node.held[target]
            self._renew(node, "discarded hints")

    # what befalls them

    def crash(self) -> None:
        node = self.some_up()
        if node:
            self._renew(node, "a crash")
            self._stop(node)

    def start(self) -> None:
        down = [node for node in self.nodes.values() if not node.up]
        if down:
            self.rng.choice(down).up = True

    def take_backup(self) -> None:
        node = self.some_up()
        if node:
            node.backup = dict(node.disk)

    def wipe(self) -> None:
        self._replace_disk("a wiped disk")

    def restore(self) -> None:
        self._replace_disk("a restored backup")

    def _replace_disk(self, cause: str) -> None:
        """Only while the other disks hold every write: no rule brings back what was on one disk alone."""
        node = self.some_up()
        if node is None:
            return
        others = [other for other in self.nodes.values() if other is not node]
        for other in others:
            if other.up:
                self._sync(other)
        if self.lost(union(*(other.disk for other in others))):
            return
        node.disk = dict(node.backup) if cause == "a restored backup" else {}
        self._renew(node, cause)
        self._stop(node)

    def _stop(self, node: Node) -> None:
        node.up = False
        node.held = dict(node.disk)
        node.unsynced.clear()

    def _renew(self, node: Node, cause: str) -> None:
        self.exercised.add(cause)
        if cause == self.defect:
            return
        if cause != "discarded hints":
            node.actors = Actors(node.name, self.rng)
        elif node.name in FALLBACKS:
            node.actors.renew(0)


RULES = ("a crash", "a wiped disk", "a restored backup", "discarded hints")


def test_no_write_that_reached_a_disk_is_lost() -> None:
    exercised: set[str] = set()
    acked = 0
    for seed in range(1000):
        model = Model(seed)
        assert not model.run(), f"seed {seed}"
        exercised |= model.exercised
        acked += len(model.acked)
    assert exercised == set(RULES)
    assert acked > 1000


@pytest.mark.parametrize("defect", [*RULES, "a context in spite of siblings"])
def test_each_rule_is_needed(defect: str) -> None:
    """An actor kept over one of these events, or a context that covers unseen siblings, loses writes."""
    assert any(Model(seed, defect).run() for seed in range(1000))
