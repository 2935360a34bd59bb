"""How members decide on an epoch, every interleaving: the acceptor and the attempts of proposers themselves.

What was sent may arrive at any time, any number of times, or never: messages are a set, so that loss,
delay, order and repetition need no steps of their own. When a proposer tries again is its timer's business
(kvstore.membership.proposer): here it may at any time, a bounded number of times. A record is on the disk
when its answer is sent, so a crash loses the attempt of a node and nothing of its record: a crash before
that is as if the message had not arrived. All parts of a state are numbers; what a machine makes of a
message is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from kvstore.membership import acceptor, transitions
from kvstore.membership.acceptor import Record
from kvstore.membership.attempt import Attempt
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.paxos import (
    NO_BALLOT,
    Accept,
    Accepted,
    Answer,
    Ballot,
    Prepare,
    Promise,
    Question,
    Vote,
)
from tests.model.explorer import Explored, Numbers, explore
from tests.model.steps import FIRST, MEMBERS


class Member(NamedTuple):
    """A node: the number of the state that it is at, of its record, and of its attempt (-1: none)."""

    state: int
    record: int
    attempt: int = -1
    tries: int = 0


class World(NamedTuple):
    """`sent` is a set of messages, as bits; `decided` are numbers of states that were found decided."""

    members: tuple[Member, ...]
    sent: int = 0
    decided: frozenset[int] = frozenset()
    crashes: int = 1


class Message(NamedTuple):
    """One that was sent; who it is for, and by whom."""

    to: str
    sender: str
    content: Question | Answer


class Decision:
    """The model: by node the state that it is at, its record, and what it wants next (None: nothing)."""

    forgets = False
    """Whether a crash loses the record: a plant."""
    asks_removed = False
    """Whether who is no member is asked: a plant."""

    def __init__(
        self,
        nodes: Mapping[str, tuple[ClusterState, Record, ClusterState | None]],
        tries: int = 1,
        decided: tuple[ClusterState, ...] = (),
        crashes: int = 1,
    ) -> None:
        self._names = tuple(nodes)
        self._wants = {node: wanted for node, (_, _, wanted) in nodes.items()}
        self._tries = tries
        self._states: Numbers[ClusterState] = Numbers()
        self._records: Numbers[Record] = Numbers()
        self._attempts: Numbers[Attempt] = Numbers()
        self._messages: Numbers[Message] = Numbers()
        self._asked = cache(self._on_question)
        self._answered = cache(self._on_answer)
        self._tried = cache(self._try)
        self._first = World(
            tuple(
                Member(self._states.of(state), self._records.of(record))
                for state, record, _ in nodes.values()
            ),
            decided=frozenset(map(self._states.of, decided)),
            crashes=crashes,
        )

    def explore(self) -> Explored:
        return explore(self._first, self.successors, self.wrong)

    def wrong(self, world: World) -> str:
        epochs = [self._states.things[number].epoch for number in world.decided]
        return (
            "" if len(set(epochs)) == len(epochs) else f"two states are decided on of epochs {sorted(epochs)}"
        )

    def successors(self, world: World) -> Iterator[tuple[str, World]]:
        for i, member in enumerate(world.members):
            yield from self._delivered(world, i, member)
            yield from self._begun(world, i, member)
            yield from self._learnt(world, i, member)
            if world.crashes and (member.attempt >= 0 or self.forgets):
                lost = self._records.of(Record()) if self.forgets else member.record
                left = self._with(world, i, member._replace(attempt=-1, record=lost))
                yield f"{self._names[i]} crashes", left._replace(crashes=world.crashes - 1)

    def _with(self, world: World, i: int, member: Member, sent: int = 0, decided: int = -1) -> World:
        members = (*world.members[:i], member, *world.members[i + 1 :])
        found = world.decided if decided < 0 else world.decided | {decided}
        return world._replace(members=members, sent=self._alive(world.sent | sent, members), decided=found)

    def _alive(self, sent: int, members: tuple[Member, ...]) -> int:
        """The messages that may change something yet; the others would only make equal states look different.

        A record, the state of a member and an attempt only grow, and no ballot is used twice. So what changes
        nothing now never will, unless it is asked of a member that is behind.
        """
        alive, number = 0, 0
        while sent >> number:
            if sent >> number & 1 and self._matters(number, members):
                alive |= 1 << number
            number += 1
        return alive

    def _matters(self, number: int, members: tuple[Member, ...]) -> bool:
        message = self._messages.things[number]
        member = members[self._names.index(message.to)]
        if isinstance(message.content, Prepare | Accept):
            if message.content.epoch > self._states.things[member.state].epoch + 1:
                return True
            return self._asked(message.to, member.state, member.record, number)[0] != member.record
        if member.attempt < 0:
            return False
        return self._answered(message.to, member.attempt, member.record, number)[0] != member.attempt

    # what a node does

    def _delivered(self, world: World, i: int, member: Member) -> Iterator[tuple[str, World]]:
        name = self._names[i]
        for number, message in enumerate(self._messages.things):
            if not world.sent >> number & 1 or message.to != name:
                continue
            if isinstance(message.content, Prepare | Accept):
                record, sent = self._asked(name, member.state, member.record, number)
                found = self._with(world, i, member._replace(record=record), sent)
            elif member.attempt >= 0:
                after, record, sent, decided = self._answered(name, member.attempt, member.record, number)
                now = member._replace(attempt=after, record=record)
                found = self._with(world, i, now, sent, decided)
            else:
                continue
            if found != world:
                yield f"{name} gets {_shown(message)}", found

    def _begun(self, world: World, i: int, member: Member) -> Iterator[tuple[str, World]]:
        name, wanted = self._names[i], self._wants[self._names[i]]
        if wanted is None or member.tries >= self._tries:
            return
        if self._states.things[member.state].epoch + 1 != wanted.epoch:
            return
        attempt, record, sent, decided = self._tried(name, member.state, member.record)
        now = member._replace(attempt=attempt, record=record, tries=member.tries + 1)
        yield f"{name} tries", self._with(world, i, now, sent, decided)

    def _learnt(self, world: World, i: int, member: Member) -> Iterator[tuple[str, World]]:
        epoch = self._states.things[member.state].epoch
        for decided in world.decided:
            state = self._states.things[decided]
            if state.epoch > epoch:
                now = member._replace(state=decided, attempt=-1)
                yield f"{self._names[i]} takes epoch {state.epoch} up", self._with(world, i, now)

    # what its machines do

    def _on_question(self, name: str, state: int, record: int, number: int) -> tuple[int, int]:
        """The record afterwards, and the answer."""
        message = self._messages.things[number]
        assert isinstance(message.content, Prepare | Accept)
        found = acceptor.answer(
            name, self._states.things[state], self._records.things[record], message.content
        )
        counts = isinstance(found.answer, Promise | Accepted)  # to an attempt nothing else does
        sent = self._bit(Message(message.sender, name, found.answer)) if counts else 0
        return self._records.of(found.record), sent

    def _on_answer(self, name: str, attempt: int, record: int, number: int) -> tuple[int, int, int, int]:
        before, message = self._attempts.things[attempt], self._messages.things[number]
        assert not isinstance(message.content, Prepare | Accept)
        after = before.on_answer(message.sender, message.content)
        if after.question != before.question:
            return self._ask(name, after, record)
        return self._ended(after), record, 0, self._decided(after)

    def _try(self, name: str, state: int, record: int) -> tuple[int, int, int, int]:
        known, wanted, kept = self._states.things[state], self._wants[name], self._records.things[record]
        assert wanted is not None
        promised = kept.promised if kept.epoch == wanted.epoch else NO_BALLOT
        return self._ask(name, Attempt(known, wanted, Ballot(promised.round + 1, name)), record)

    def _ask(self, name: str, attempt: Attempt, record: int) -> tuple[int, int, int, int]:
        """As kvstore.membership.proposer does: its own acceptor first, then the others."""
        own = acceptor.answer(name, attempt.state, self._records.things[record], attempt.question)
        if not isinstance(own.answer, Promise | Accepted):
            return -1, record, 0, -1
        sent = 0
        for node in self._names if self.asks_removed else [m.node for m in attempt.state.members]:
            if node != name:
                sent |= self._bit(Message(node, name, attempt.question))
        after = attempt.on_answer(name, own.answer)
        return self._ended(after), self._records.of(own.record), sent, self._decided(after)

    def _ended(self, attempt: Attempt) -> int:
        return -1 if attempt.decided else self._attempts.of(attempt)

    def _decided(self, attempt: Attempt) -> int:
        return self._states.of(attempt.decision) if attempt.decided else -1

    def _bit(self, message: Message) -> int:
        return 1 << self._messages.of(message)


def _shown(message: Message) -> str:
    content = message.content
    return f"{type(content).__name__} {getattr(content, 'ballot', '')} of {message.sender}"


RIVALS = [transitions.begin(FIRST, {0: lists}, MEMBERS) for lists in (("a", "b", "d"), ("a", "d", "c"))]
"""What two operators want at once."""


def race(tries: int = 1) -> Decision:
    """Three members, two of which want something else."""
    a, b = RIVALS
    return Decision(
        {"a": (FIRST, Record(), a), "b": (FIRST, Record(), b), "c": (FIRST, Record(), None)}, tries
    )


def after_a_removal(crashes: int = 0) -> Decision:
    """The epoch in which d has taken the place of c is decided: c and b have yet to hear of it.

    a and b want different things next; c, whose disk is that of the epoch before, something that is too late.
    """
    before = transitions.advance(
        transitions.begin(FIRST, dict.fromkeys((0, 1), ("a", "b", "d")), MEMBERS), [0, 1]
    )
    gone = replace(transitions.advance(before, [0, 1]), members=MEMBERS[:2] + MEMBERS[3:])
    ballot = Ballot(1, "a")
    voted = Record(gone.epoch, ballot, Vote(ballot, gone))
    wants = [transitions.begin(gone, {0: lists}) for lists in (("b", "a", "d"), ("d", "b", "a"))]
    late = transitions.advance(before, [0])
    nodes = {
        "a": (gone, voted, wants[0]),
        "b": (before, voted, wants[1]),
        "c": (before, Record(), late),
        "d": (gone, voted, None),
    }
    return Decision(nodes, 1, (gone,), crashes)
