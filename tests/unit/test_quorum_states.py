"""The named states of operations: each table by itself, and that nothing happens which it does not name."""

from __future__ import annotations

import random
from collections import Counter
from enum import Enum
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.config import AntiEntropySettings, BucketSettings, QuorumMode
from kvstore.contexts import encode_seen
from kvstore.errors import Corruption, KVError, Overloaded, StaleRing, StorageFull, VersionTooLarge
from kvstore.membership import transitions
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import ClientRequest
from kvstore.protocol.gossip import GossipMessage
from kvstore.protocol.peer import Forward, KeyOffer, Refusal, ReplicaRead, ReplicaWrite
from kvstore.protocol.table import PeerMessage
from kvstore.quorum.forward import ForwardOperation, ForwardState
from kvstore.quorum.operation import Moves, Operation
from kvstore.quorum.read import ReadOperation, ReadState
from kvstore.quorum.read_repair import Repair
from kvstore.quorum.rpc import Waiting
from kvstore.quorum.write import WriteOperation, WriteState
from kvstore.versions import Dot, EncodedVersion, SessionToken, Sibling, Version, encode_version
from tests.plain import Delete, Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster, Host

KINDS: list[tuple[type[Operation], Enum, Enum]] = [
    (WriteOperation, WriteState.WAITING, WriteState.FINISHED),
    (ReadOperation, ReadState.ASKING, ReadState.FINISHED),
    (ForwardOperation, ForwardState.ASKING, ForwardState.FINISHED),
]


def reached(moves: Moves, first: Enum) -> set[Enum]:
    found: set[Enum] = {first}
    while more := {to for (state, _), to in moves.items() if state in found} - found:
        found |= more
    return found


@pytest.mark.parametrize(("kind", "first", "last"), KINDS, ids=lambda each: getattr(each, "__name__", ""))
def test_every_state_is_reached_and_every_one_but_the_last_is_left_for_it(
    kind: type[Operation], first: Enum, last: Enum
) -> None:
    moves, states = kind.MOVES, set(type(first))
    assert reached(moves, first) == states
    for state in states - {last}:
        assert last in reached(moves, state), f"who is in {state} never finishes"
    assert not [state for state, _ in moves if state is last], "what has finished does not move"


@pytest.mark.parametrize("kind", [kind for kind, _, _ in KINDS])
def test_every_event_means_something_in_some_state(kind: type[Operation]) -> None:
    events = {event for _, event in kind.MOVES}
    (enum,) = {type(event) for event in events}
    assert events == set(enum)


# whatever happens, in any order

KEY = b"user:1"
INTERNAL = data_key(token("carts", KEY), "carts", KEY)
BUCKETS = [BucketSettings("carts", quorum=QuorumMode.STRICT)]
SETTINGS = NodeSettings(anti_entropy=AntiEntropySettings(interval=float("inf"), reap_interval=float("inf")))
REFUSALS: list[KVError] = [
    Overloaded(0.1),
    StorageFull("no space"),
    Corruption("replica", "unreadable"),
    VersionTooLarge(2, 1),
    StaleRing(1),
]
STEPS = (0.01, 0.26, 2.0, 11.0)


def version(*actors: str) -> bytes:
    dots = tuple(Dot(actor, 1) for actor in sorted(actors))
    return encode_version(Version(dots, tuple(Sibling(dot, dot.actor.encode()) for dot in dots)))


def seen(*actors: str) -> SessionToken:
    return encode_seen(tuple(Dot(actor, 1) for actor in sorted(actors)), token("carts", KEY))


def refuse(_batch: object) -> int:
    raise StorageFull("no space left")


class Play:
    """Five nodes, what is on its way between them, and what may happen to it: each a method with a number."""

    def __init__(self, planted: list[set[str]]) -> None:
        self.cluster = Cluster(5, BUCKETS, settings=SETTINGS)
        self.on_the_way: list[tuple[str, str, PeerMessage]] = []
        replicas = self.cluster.replicas("carts", KEY)
        self.nodes = [*replicas, *(node for node in self.cluster.hosts if node not in replicas)]
        self.cluster.passes = self._take
        self._full: set[str] = set()
        self._states = [self.cluster.state]
        """That of each epoch."""
        for node, actors in zip(replicas, planted, strict=True):
            if actors:
                self._host(node).node.base.local.store(INTERNAL, EncodedVersion(version(*actors)))
                self._host(node).sync_wanted = True
        self.cluster.run()
        self.cluster.stuck.update(self.cluster.hosts)  # from now on disks sync when they are told to

    def _host(self, node: str) -> Host:
        return self.cluster.hosts[node]

    def _take(self, sender: str, to: str, message: PeerMessage) -> bool:
        if isinstance(message, GossipMessage | KeyOffer):
            return True
        self.on_the_way.append((sender, to, message))
        return False

    def _one(self, number: int) -> tuple[str, str, PeerMessage] | None:
        return self.on_the_way.pop(number % len(self.on_the_way)) if self.on_the_way else None

    def start(self, call: ClientRequest, at: int) -> None:
        self.cluster.start(self.nodes[at], call)
        self.cluster.run()

    def deliver(self, number: int) -> None:
        if one := self._one(number):
            sender, to, message = one
            self._host(to).node.on_frame(sender, [message], self.cluster.instant)

    def repeat(self, number: int) -> None:
        if self.on_the_way:
            sender, to, message = self.on_the_way[number % len(self.on_the_way)]
            self._host(to).node.on_frame(sender, [message], self.cluster.instant)

    def lose(self, number: int) -> None:
        self._one(number)

    def refuse(self, number: int) -> None:
        if one := self._one(number):
            sender, to, message = one
            if isinstance(message, ReplicaRead | ReplicaWrite | Forward):
                error = REFUSALS[number % len(REFUSALS)]
                refusal = Refusal(message.number, error)
                self._host(sender).node.on_frame(to, [refusal], self.cluster.instant)

    def unsent(self, number: int) -> None:
        if one := self._one(number):
            sender, to, message = one
            if isinstance(message, ReplicaRead | ReplicaWrite | Forward):
                self._host(sender).node.on_unsent(to, [message.number], self.cluster.instant)

    def gone(self, number: int) -> None:
        node, peer = self.nodes[number % 5], self.nodes[number // 5 % 5]
        if node != peer:
            self._host(node).node.on_link_lost(peer, self.cluster.instant)

    def cancel(self, number: int) -> None:
        requests = set(range(number % 4 + 1))
        self._host(self.nodes[number % 5]).node.on_cancelled(requests, self.cluster.instant)

    def relieve(self, number: int) -> None:
        """Twice: slow is who has not answered from one look to the next."""
        relief = self._host(self.nodes[number % 5]).node._coordinator._relief
        relief.relieve(self.cluster.instant)
        self.cluster.move(0.21)
        relief.relieve(self.cluster.instant)

    def take_up(self, number: int) -> None:
        """A node takes the next step of a move up: the second replica of the key gives way to a new one."""
        states, replicas = self._states, self.nodes[:3]
        if len(states) == 1:
            partition = states[0].ring.partition("carts", KEY)
            new = (replicas[0], self.nodes[3], replicas[2])
            states.append(transitions.begin(states[0], {partition: new}))
            states.append(transitions.advance(states[1], [partition]))
            states.append(transitions.advance(states[2], [partition]))
        host = self._host(self.nodes[number % 5])
        if host.node.state.epoch < len(states):
            host.node.on_state(states[host.node.state.epoch], self.cluster.instant)
            self.cluster.move(0.0)
            host.node.on_durable(host.engine.sync(), self.cluster.instant)

    def time(self, number: int) -> None:
        self.cluster.move(STEPS[number % len(STEPS)])

    def stop(self, number: int) -> None:
        """All nodes stand still meanwhile: what comes then, comes before any timer."""
        self.cluster.now += STEPS[number % len(STEPS)]

    def sync(self, number: int) -> None:
        """One of those that want it."""
        if wanting := [host for host in self.cluster.hosts.values() if host.sync_wanted]:
            host = wanting[number % len(wanting)]
            host.sync_wanted = False
            host.node.on_durable(host.engine.sync(), self.cluster.instant)

    def fill(self, number: int) -> None:
        """A disk is full, or has space again."""
        node = self.nodes[number % 5]
        self._full ^= {node}
        if node in self._full:
            vars(self._host(node).engine)["write"] = refuse
        else:
            del vars(self._host(node).engine)["write"]

    def damage(self, number: int) -> None:
        """What a replica holds cannot be read any more."""
        node = self.nodes[number % 3]
        if node not in self._full:
            self._host(node).engine.write([(INTERNAL, b"rubbish")])

    def happen(self, what: str, number: int) -> None:
        getattr(self, what)(number)
        self.cluster.run()

    def end(self) -> None:
        """Nothing is delivered any more, and all deadlines pass."""
        self.on_the_way.clear()
        self.cluster.move(15.0)
        kinds: tuple[type[Waiting], ...] = (Repair, *(kind for kind, _, _ in KINDS))
        for host in self.cluster.hosts.values():
            base = host.node.base
            assert not [each for each in base.rpc.all() if isinstance(each, kinds)]
            assert (base.admission.unanswered, base.admission.bytes) == (0, 0), host.node.name
        assert sum(len(host.replies) for host in self.cluster.hosts.values()) == self.cluster.requests


OFTEN = ("deliver",) * 20 + ("sync",) * 10
NOW_AND_THEN = ("lose", "refuse", "unsent", "gone", "time", "stop", "repeat") * 2
SELDOM = ("cancel", "relieve", "fill", "damage", *("take_up",) * 3)
EVENTS = OFTEN + NOW_AND_THEN + SELDOM
actors = st.sets(st.sampled_from("ab"))
known = st.sets(st.sampled_from("abc"), min_size=1)
numbers = st.integers(0, 59)
modes = st.sampled_from([QuorumMode.STRICT, QuorumMode.SLOPPY])
some = st.integers(1, 3)
calls: st.SearchStrategy[ClientRequest] = st.one_of(
    st.builds(lambda w, mode: Put("carts", KEY, b"new", w=w, quorum=mode), some, modes),
    st.builds(lambda r, mode: Get("carts", KEY, r=r, quorum=mode), some, modes),
    st.builds(lambda r, known: Get("carts", KEY, r=r, seen=seen(*known)), some, known),
    st.builds(lambda r, w: Delete("carts", KEY, r=r, w=w), some, some),
)


Acts = tuple[list[set[str]], list[tuple[ClientRequest, int]], list[tuple[str, int]]]
"""What replicas hold, who is asked for what, and what happens then."""


@st.composite
def plays(draw: st.DrawFn) -> Acts:
    planted = draw(st.lists(actors, min_size=3, max_size=3))
    started = draw(st.lists(st.tuples(calls, st.integers(0, 4)), min_size=1, max_size=3))
    return (
        planted,
        started,
        draw(st.lists(st.tuples(st.sampled_from(EVENTS), numbers), min_size=20, max_size=60)),
    )


def played(
    play: Acts,
) -> Counter[tuple[Enum, Enum]]:
    """The moves that operations have made. A defect, as a move that no table names, is raised by its host."""
    planted, started, events = play
    moved: Counter[tuple[Enum, Enum]] = Counter()
    move = Operation.move

    def noted(self: Operation, event: Enum) -> None:
        moved[self.state, event] += 1
        move(self, event)

    with patch.object(Operation, "move", noted):
        scene = Play(planted)
        for call, at in started:
            scene.start(call, at)
        for what, number in events:
            scene.happen(what, number)
        scene.end()
    return moved


@given(plays())
def test_whatever_happens_in_any_order_every_request_ends_once_and_no_state_is_surprised(
    play: Acts,
) -> None:
    played(play)


def at_random(rng: random.Random) -> Acts:
    """One request, of which most messages come through."""
    planted = [{actor for actor in "ab" if rng.random() < 0.5} for _ in range(3)]
    known = seen(*rng.sample("abc", rng.randint(1, 3)))
    r, w, mode = rng.randint(1, 3), rng.randint(1, 3), rng.choice(list(QuorumMode))
    call = rng.choice(
        (
            Put("carts", KEY, b"new", w=w, quorum=mode),
            Get("carts", KEY, r=r, quorum=mode),
            Get("carts", KEY, r=r, quorum=mode, seen=known),
            Delete("carts", KEY, r=r, w=w),
        )
    )
    events = rng.choices(EVENTS, k=rng.randint(5, 60))
    return planted, [(call, rng.randrange(5))], [(what, rng.randrange(60)) for what in events]


def test_plays_at_random_make_every_move_of_every_table() -> None:
    rng, every = random.Random(1), {move for kind, _, _ in KINDS for move in kind.MOVES}
    made: Counter[tuple[Enum, Enum]] = Counter()
    for _ in range(3000):
        made += played(at_random(rng))
        if set(made) == every:
            return
    assert set(made) == every
