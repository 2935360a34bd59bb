"""A node as one of those who decide on the next cluster state: acceptor, and proposer for its operators.

The machines are those of kvstore.membership; here they get the disk, the time and the other members. Whatever
follows on a record waits until that is on the disk, also where acknowledgements of writes do not wait.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias, get_args

from kvstore.errors import (
    ChangeLost,
    ChangeUnknown,
    Corruption,
    InvalidRequest,
    KVError,
    Overloaded,
    StorageFull,
)
from kvstore.membership import stored_record
from kvstore.membership.acceptor import Record
from kvstore.membership.follow import check_next
from kvstore.membership.proposer import NEVER, Decided, GaveUp, Output, Persist, Proposer, Send
from kvstore.node.adoption import Adoption
from kvstore.node.parts import Foundation
from kvstore.node.spread import Spread
from kvstore.protocol.instant import Instant
from kvstore.protocol.paxos import NEVER_AGAIN, Answer, OtherEpoch, Question
from kvstore.protocol.table import Handler
from kvstore.quorum import outputs
from kvstore.ring import ClusterState
from kvstore.ring.check import MAX_EPOCH

Change: TypeAlias = Callable[[ClusterState], ClusterState]
"""Makes the next state of the present one; raises InvalidRequest."""
Respond: TypeAlias = Callable[[ClusterState | KVError], None]


class Decisions:
    """Of one node, which makes one change at a time."""

    def __init__(
        self,
        kept: Callable[[], Record],
        base: Foundation,
        adoption: Adoption,
        spread: Spread,
        rng: random.Random,
    ) -> None:
        """`kept` is the record on the disk; it raises Corruption for one that cannot be read."""
        self._kept = kept
        self._replica = base.local.replica
        self._placements = base.placements
        self._durability = base.durability
        self._counters = base.counters
        self._adoption = adoption
        self._spread = spread
        self._rng = rng
        self._timer = base.deadlines.timer(self._on_time)
        self._proposer = self._from_disk()
        self.handlers: dict[type, Handler] = {
            **dict.fromkeys(get_args(Question), self.on_question),
            **dict.fromkeys(get_args(Answer), self.on_answer),
        }
        """Who takes which message of another member."""
        self._wanted: ClusterState | None = None
        self._respond: Respond | None = None
        self._until = NEVER
        """When `respond` hears at the latest: what is decided on may have to wait for the disk."""

    def _from_disk(self) -> Proposer:
        try:
            record = self._kept()
        except Corruption:
            record = Record(MAX_EPOCH + 1, NEVER_AGAIN)  # it may have promised anything: it answers nobody
        return Proposer(self._placements.name, self._placements.state, record, self._rng)

    def propose(self, change: Change, respond: Respond, timeout: float, now: Instant) -> None:
        """Have a change of the present state decided on, and taken up here.

        `respond` gets the new state, ChangeLost when another change was decided on, ChangeUnknown when
        `timeout` seconds have not been enough, InvalidRequest for a change that cannot be made.
        """
        state = self._placements.state
        try:
            if self._respond is not None:
                raise Overloaded(timeout, "another change is being decided on through this node")
            wanted = change(state)
            check_next(state, wanted)
        except KVError as error:
            respond(error)
            return
        self._wanted, self._respond, self._until = wanted, respond, now.mono + timeout
        self._carry_out(self._proposer.propose(wanted, self._until, now.mono), now)

    def on_question(self, sender: str, question: Question, now: Instant) -> None:
        """Another member asks; what it cannot ask is not answered, and counted."""
        if question.epoch > self._adoption.newest.epoch + 1:
            self._spread.want(sender, now)
        try:
            if question.ballot.node != sender:
                raise InvalidRequest("ballot", f"is one of {question.ballot.node!r}")
            found = self._proposer.on_question(sender, question)
        except InvalidRequest:
            self._counters.frames_refused += 1
        else:
            self._carry_out(found, now)

    def on_answer(self, sender: str, answer: Answer, now: Instant) -> None:
        """Another member has answered."""
        if isinstance(answer, OtherEpoch) and answer.at > self._adoption.newest.epoch:
            self._spread.want(sender, now)
        self._carry_out(self._proposer.on_answer(sender, answer, now.mono), now)

    def on_state(self) -> None:
        """This node has taken up a newer state: so one has been decided on, by whomever."""
        state = self._placements.state
        self._proposer = Proposer(self._placements.name, state, self._proposer.record, self._rng)
        self._timer.set(NEVER)
        if (wanted := self._wanted) is None:
            return
        if state == wanted:
            self._spread.tell(self._placements.others)
            self._end(state)
        elif state.epoch == wanted.epoch:
            self._end(ChangeLost(state.epoch))
        else:
            self._end(ChangeUnknown(wanted.epoch))

    def _on_time(self, now: Instant) -> None:
        self._carry_out(self._proposer.on_timer(now.mono), now)
        if self._wanted is not None and now.mono >= self._until:
            self._end(ChangeUnknown(self._wanted.epoch))

    def _carry_out(self, found: Sequence[Output], now: Instant) -> None:
        lsn = 0
        for output in found:
            match output:
                case Persist(record):
                    try:
                        lsn = self._replica.write([stored_record.entry(record)])
                    except (StorageFull, Overloaded):
                        self._begin_again(now)
                        return
                case Send(to, message):
                    self._durability.after_sync(lsn, outputs.Send(to, message), now)
                case Decided(state):
                    self._adoption.on_state(state, now)
                case GaveUp():
                    assert self._wanted is not None
                    self._end(ChangeUnknown(self._wanted.epoch))
        self._timer.set(min(self._proposer.due, self._until))

    def _begin_again(self, now: Instant) -> None:
        """The disk takes no record: nothing is said that was to follow on it, and it is as if not asked."""
        self._proposer = self._from_disk()
        if self._wanted is not None:
            self._end(StorageFull("the disk is full: the change cannot be proposed by this node"))
        self._timer.set(NEVER)

    def _end(self, outcome: ClusterState | KVError) -> None:
        respond, self._respond, self._wanted, self._until = self._respond, None, None, NEVER
        assert respond is not None
        respond(outcome)
