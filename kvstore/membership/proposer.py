"""The proposer of a member: one attempt after the other until something is decided, or time is over.

Its own acceptor answers first, so that what it asks others has a ballot that nobody has used: its rounds go
on beyond what is on its own disk. Outputs come in order, and what follows a Persist waits until that is
durable.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import msgspec

from kvstore.membership import acceptor
from kvstore.membership.acceptor import MAX_LEAP, Record
from kvstore.membership.attempt import Attempt
from kvstore.protocol.cluster_state import ClusterState
from kvstore.protocol.paxos import MAX_ROUND, Accepted, Answer, Ballot, Outbid, Promise, Question

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Persist:
    """Keep this record; all that comes after it waits for that."""

    record: Record


class Send(msgspec.Struct, frozen=True):
    """A message to another member."""

    to: str
    message: Question | Answer


@dataclass(frozen=True, slots=True)
class Decided:
    """The next state is this one, which is not what was proposed unless `mine`."""

    state: ClusterState
    mine: bool


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Time is over: what was proposed may be decided on yet, when somebody finishes it."""


Output = Persist | Send | Decided | GaveUp


class Proposer:
    """A member at one epoch, both roles: a new one is made when the next state is taken up."""

    def __init__(
        self,
        me: str,
        state: ClusterState,
        record: Record,
        rng: random.Random,
        patience: float = 1.0,
    ) -> None:
        """`record` is the one on the disk. `patience`: seconds that an attempt has, at first."""
        self.record = record
        self._me = me
        self._state = state
        self._rng = rng
        self._patience = patience
        self._attempt: Attempt | None = None
        self._value: ClusterState | None = None
        self._highest = record.promised.round if record.epoch == state.epoch + 1 else 0
        self._tries = 0
        self.deadline = NEVER
        self.due = NEVER
        """When `on_timer` is to be called, in seconds of `now`."""

    def propose(self, value: ClusterState, deadline: float, now: float) -> list[Output]:
        """Have `value` decided on as the next state. Exactly one Decided or GaveUp will follow."""
        self._value, self._tries = value, 0
        self.deadline = self.due = deadline
        return self._try(now)

    def on_question(self, sender: str, question: Question) -> list[Output]:
        """Another member asks; raises InvalidRequest for a value that cannot be the next state."""
        record, answer = acceptor.answer(self._me, self._state, self.record, question)
        return [*self._keep(record), Send(sender, answer)]

    def on_answer(self, sender: str, answer: Answer, now: float) -> list[Output]:
        """A member has answered."""
        if self._attempt is None:
            return []
        if isinstance(answer, Outbid):
            self._on_outbid(answer, self._attempt.ballot, now)
            return []
        before = self._attempt.question
        self._attempt = self._attempt.on_answer(sender, answer)
        if self._attempt.decided:
            return self._end(self._attempt.decision)
        if self._attempt.question != before:
            return self._ask(self._attempt.question, now)
        return []

    def _on_outbid(self, answer: Outbid, ballot: Ballot, now: float) -> None:
        """Begin again, beyond what the other has promised.

        But if that is far beyond this ballot, or far behind it, or if the other has lost its memory, the rest
        of the members may be a majority: this attempt goes on, and the next one comes nearer to it.
        """
        promised = answer.promised.round
        if answer.ballot != ballot or answer.promised < ballot or promised > MAX_ROUND:
            return
        self._highest = max(self._highest, min(promised, self.record.promised.round + MAX_LEAP - 1))
        if promised <= ballot.round + MAX_LEAP:
            self._attempt = None
            self._pause(now)

    def on_timer(self, now: float) -> list[Output]:
        """The time `due` has come: give up, or try again with a higher ballot."""
        if now >= self.deadline:
            self._stop()
            return [GaveUp()]
        return self._try(now) if now >= self.due and self._value is not None else []

    def _try(self, now: float) -> list[Output]:
        if self._value is None or self._highest >= MAX_ROUND:
            return []
        self._highest += 1
        self._attempt = Attempt(self._state, self._value, Ballot(self._highest, self._me))
        self._pause(now)
        return self._ask(self._attempt.question, now)

    def _pause(self, now: float) -> None:
        """Longer each time, and not as long as whoever it duels with."""
        longest = self._patience * 2 ** min(self._tries, 5)
        self._tries += 1
        self.due = min(now + longest * (0.5 + self._rng.random() / 2), self.deadline)

    def _ask(self, question: Question, now: float) -> list[Output]:
        """Itself first, then the others."""
        record, own = acceptor.answer(self._me, self._state, self.record, question)
        if not isinstance(own, Promise | Accepted):
            # others have promised more meanwhile, or it lost its memory: it cannot ask what it would refuse
            return self.on_answer(self._me, own, now)
        others = [m.node for m in self._state.members if m.node != self._me]
        asked: list[Output] = [*self._keep(record), *(Send(node, question) for node in others)]
        return [*asked, *self.on_answer(self._me, own, now)]

    def _keep(self, record: Record) -> list[Output]:
        if record == self.record:
            return []
        self.record = record
        self._highest = max(self._highest, min(record.promised.round, MAX_ROUND))
        return [Persist(record)]

    def _end(self, state: ClusterState) -> list[Output]:
        mine = state == self._value
        self._stop()
        return [Decided(state, mine)]

    def _stop(self) -> None:
        self._attempt = self._value = None
        self.deadline = self.due = NEVER
