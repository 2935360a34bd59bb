"""Coordinating a read: digests to R-1 replicas, and a reply once R of them durably hold the result.

A stale replica is brought up to date before the reply (kvstore.quorum.read_repair): what one read has shown,
every later one sees (BUGS 6). A late replica gets a hedge (kvstore.quorum.hedging). A read of a session says
what the answer must have seen: if R replicas do not know it, all are asked (docs/reads.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from kvstore.config import QuorumSettings
from kvstore.errors import (
    Corruption,
    KVError,
    Overloaded,
    ReadTimeout,
    StaleRead,
    StaleRing,
    StorageError,
    VersionTooLarge,
)
from kvstore.protocol.client import Explain
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReadReply, ReadSame, ReplicaRead
from kvstore.quorum.counters.reads import ReadCounters
from kvstore.quorum.deadlines import NEVER
from kvstore.quorum.hedging import Hedging
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.operation import Moves, Named, Operation, Respond
from kvstore.quorum.outputs import ACK, SAME, Own
from kvstore.quorum.placement import Placements, Target
from kvstore.quorum.read_repair import Repair
from kvstore.quorum.read_result import compared, has_seen, unreadable
from kvstore.quorum.request import Request
from kvstore.quorum.rpc import Answer, Rpc
from kvstore.quorum.votes import NOBODY
from kvstore.versions import NO_KEY, NO_VERSION, CausalContext, EncodedVersion, InternalKey, digest

Complete = Callable[[Request, EncodedVersion, Explain | None, Respond, Instant], None]
"""Called with the reconciled version once R replicas hold it."""


class ReadState(Named):
    """Where a read is."""

    ASKING = "fewer than R replicas have answered"
    REPAIRING = "R have answered, and the result is on its way to those that lack it"
    ASKING_ALL = "R replicas have not seen what the session has: all others are asked"
    REPLIED = "the client has its reply; how long the others take is worth knowing"
    FINISHED = "all that were asked have answered, or the client has its error"


class ReadEvent(Named):
    """What moves a read."""

    DIFFERENT = "R have answered, and not all of them hold the result"
    TOO_FEW = "one that had answered is lost: there are fewer than R"
    HELD = "R replicas durably hold the result"
    UNSEEN = "the session has seen more than that"
    FAILED = "no reply is possible, or nobody wants one"
    ANSWERED = "nobody who was asked has yet to answer"


_ASKING, _REPAIRING, _ASKING_ALL, _REPLIED, _FINISHED = ReadState
_DIFFERENT, _TOO_FEW, _HELD, _UNSEEN, _FAILED, _ANSWERED = ReadEvent
"""Python 3.11 takes ten times as long to find a member in its Enum, and every read needs some."""
_NONE: Mapping[str, Any] = {}
"""What a read seldom needs of its own: whoever has something to add makes another one."""


class Reads:
    """What the reads of one node have in common."""

    def __init__(
        self,
        rpc: Rpc,
        local: LocalCopy,
        placements: Placements,
        durability: HeldOutputs,
        hedging: Hedging,
        counters: ReadCounters,
        settings: QuorumSettings,
    ) -> None:
        self.name = placements.name
        self.rpc = rpc
        self.local = local
        self.placements = placements
        self.durability = durability
        self.hedging = hedging
        self.counters = counters
        self.settings = settings
        self._alone: tuple[str, ...] = (placements.name,)

    def read(
        self,
        request: Request,
        local: EncodedVersion | None,
        respond: Respond,
        complete: Complete,
        seen: CausalContext = (),
    ) -> None:
        """Read from R replicas. `local` is what this node holds; None when it cannot say, and does not count.

        The answer must have `seen` this, whatever R is.
        """
        now, hedging = request.now, self.hedging
        hedging.earn()
        placement = request.placement
        # nor does a node count that is none of the replicas that are read
        counting = placement.read_sloppy if request.sloppy else placement.read_strict
        counts = local is not None and self.name in counting
        asked = self._alone if counts else ()
        left = placement.to_read if request.sloppy else placement.to_read_strictly
        if hedging.slow:
            left = tuple(sorted(left, key=lambda target: target.node in hedging.slow))
        needed = request.r - len(asked)
        first, left = left[:needed], left[needed:]
        patience = self._patience(first)
        if hedging.slow and left and self._tries(left[-1], now):
            first, left = (*first, left[-1]), left[:-1]
        operation = ReadOperation(
            self, respond, request, local or NO_VERSION, complete, seen, asked, left, patience
        )
        for target in first:
            operation.ask(target, now)
        if counts:
            unsynced = self.local.replica.unsynced(request.key)
            if unsynced and self.durability.must_wait(unsynced):
                self.durability.after(unsynced, Own(operation.number, SAME), now)
            else:
                operation.on_own(now)

    def _patience(self, first: Sequence[Target]) -> float:
        """Seconds until the slowest of those that are asked first is late."""
        longest = 0.0
        for target in first:
            delay = self.hedging.delay(target.node)
            if delay > longest:
                longest = delay
        return longest or self.settings.read_patience

    def _tries(self, last: Target, now: Instant) -> bool:
        """Whether to ask a slow replica as well, which now and then tells when it is slow no more."""
        tries = last.node in self.hedging.slow and self.hedging.may_try(last.node, now.mono)
        self.counters.read_trials += tries
        return tries


class ReadOperation(Operation):
    """One key being read. `answers` are the versions that replicas durably hold.

    It outlives its reply until those that were asked have answered: how long they took is worth knowing.
    """

    __slots__ = (
        "_again",
        "_asked_later",
        "_common",
        "_complete",
        "_hedged",
        "_left",
        "_patience",
        "_repaired",
        "_repairs",
        "_seen",
        "answers",
        "asked",
        "local",
        "request",
    )

    EXPECTS = (ReadSame, ReadReply)
    MOVES: ClassVar[Moves] = {
        (_ASKING, _DIFFERENT): _REPAIRING,
        (_ASKING, _HELD): _REPLIED,
        (_ASKING, _UNSEEN): _ASKING_ALL,
        (_ASKING, _FAILED): _FINISHED,
        (_REPAIRING, _DIFFERENT): _REPAIRING,
        (_REPAIRING, _TOO_FEW): _ASKING,
        (_REPAIRING, _HELD): _REPLIED,
        (_REPAIRING, _UNSEEN): _ASKING_ALL,
        (_REPAIRING, _FAILED): _FINISHED,
        (_ASKING_ALL, _HELD): _REPLIED,
        (_ASKING_ALL, _FAILED): _FINISHED,
        (_REPLIED, _ANSWERED): _FINISHED,
    }

    def __init__(
        self,
        common: Reads,
        respond: Respond,
        request: Request,
        local: EncodedVersion,
        complete: Complete,
        seen: CausalContext,
        asked: tuple[str, ...],
        left: tuple[Target, ...],
        patience: float,
    ) -> None:
        """`asked` is this node if what it holds counts; of those that are `left` the first is asked next."""
        self._common = common
        self.state = _ASKING
        self.request = request
        self.local = local
        self._complete = complete
        self._seen = seen
        self.asked = asked
        self.answers: dict[str, EncodedVersion] = {}
        self._left = left
        self._again: tuple[Target, ...] = ()
        self._asked_later: Mapping[str, float] = _NONE
        self._hedged: tuple[str, ...] = ()
        self._repairs: Mapping[str, EncodedVersion] = _NONE
        self._repaired = NOBODY
        self._patience = patience
        patience_ends = request.now.mono + patience
        super().__init__(common.rpc, respond, request.deadline, patience_ends, len(local), request.client)

    # asking replicas

    def _ask_next(self, now: Instant) -> bool:
        """Ask one more replica; whether there was one left, and time."""
        left = self._left
        if not left or now.mono >= self.deadline:
            return False
        self._left = left[1:]
        self.ask(left[0], now)
        return True

    def ask(self, target: Target, now: Instant) -> None:
        """Ask one replica what it holds."""
        self.asked += (target.node,)
        if now.mono != self.request.now.mono:
            self._asked_later = {**self._asked_later, target.node: now.mono}
        ttl_ms = int((self.deadline - now.mono) * 1000) + 1
        epoch = self.request.placement.epoch
        message = ReplicaRead(
            self.number, epoch, self.request.key, digest(self.local), target.hint_for, ttl_ms
        )
        self._rpc.send(target.node, message)

    def _hint_for(self, node: str) -> str:
        placement = self.request.placement
        return placement.remote.get(node, placement.stands_in_for)

    @property
    def _waited_for(self) -> bool:
        """Whether somebody waits for the reply: the state is neither REPLIED nor FINISHED."""
        return self._respond is not None

    def touches(self) -> InternalKey:
        """See Waiting."""
        return self.request.key if self._waited_for else NO_KEY

    # inputs

    def on_own(self, now: Instant) -> None:
        """What this node holds counts as its answer: it is on the disk."""
        self.answers[self._common.name] = self.local
        if self.request.r == 1:
            self._evaluate(now)

    def on_answer(self, node: str, answer: Answer, now: Instant) -> None:
        """The replica holds what this node held when it asked, or something else; both durably."""
        answers = self.answers
        if node not in self.asked or node in answers:
            return
        if type(answer) is ReadReply:
            self._rpc.hold(self, len(answer.version))
            answers[node] = answer.version
        else:
            answers[node] = self.local
        if node != self._common.name:
            self._took(node, now)
        if self._respond is None:
            if not self._awaited():
                self._finish()
        elif len(answers) >= self.request.r:
            self._evaluate(now)

    def on_repaired(self, node: str, version: EncodedVersion, was_stale: bool, now: Instant) -> None:
        """`version` is durable at a replica that was stale, or that got it by a write after its answer."""
        if self._repairs.get(node) == version:
            self._repairs = _without(self._repairs, node)
            if was_stale:
                self._repaired |= {node}
                self._common.counters.read_repairs += 1
            self.answers[node] = version
            self._evaluate(now)

    def on_refusal(self, node: str, error: KVError, now: Instant) -> None:
        """A replica cannot answer or be repaired: ask another, or fail if none is left."""
        self._lost(node, error, now)

    def on_gone(self, node: str, now: Instant) -> None:
        """What `node` was asked, or its answer, may be lost."""
        if node not in self.answers or node in self._repairs:
            self._lost(node, None, now)

    def on_cancelled(self, now: Instant) -> None:
        """Nobody wants to know."""
        if self._waited_for:
            self._fail(ReadTimeout(len(self.answers), self.request.r), now)
        else:
            self._finish()

    def on_time(self, now: Instant) -> None:
        """A replica is late: hedge. After the patience ask one more in any case; give up at the deadline."""
        if now.mono >= self.deadline:
            self._time_out(now)
            return
        if not self._waited_for:
            self._patience = NEVER  # the deadline alone is left
        else:
            # not before: as long as there is no connection, each question would come back at once
            self._left, self._again = self._left + self._again, ()
            self._hedge(now)
            while len(self.asked) < self.request.r and self._ask_next(now):
                pass
        self.wake(min(now.mono + self._patience, self.deadline))

    def _hedge(self, now: Instant) -> None:
        common, longest = self._common, self._common.settings.read_patience
        late = self._awaited()
        for node in late:
            common.hedging.late(node)
        can_wait, self._patience = self._patience < longest, longest
        if not self._left or (can_wait and not late):
            return
        if not can_wait:
            common.hedging.overdraw()
        elif not common.hedging.take():
            common.counters.hedges_refused += 1
            return
        common.counters.hedges += 1
        self._hedged += (self._left[0].node,)
        self._ask_next(now)

    def _awaited(self) -> list[str]:
        """The other replicas that were asked and have not answered."""
        name = self._common.name
        return [node for node in self.asked if node not in self.answers and node != name]

    def _took(self, node: str, now: Instant) -> None:
        """`node` has answered, or never will: that it took so long is worth knowing."""
        asked_at = self.request.now.mono
        if self._asked_later:
            asked_at = self._asked_later.get(node, asked_at)
        self._common.hedging.answered(node, now.mono - asked_at)

    def _lost(self, node: str, error: KVError | None, now: Instant) -> None:
        if node not in self.asked or self.state is _FINISHED:
            return  # a repair may be refused when the read has ended
        self.answers.pop(node, None)
        self._repairs = _without(self._repairs, node)
        self.asked = tuple(other for other in self.asked if other != node)
        if not self._waited_for:
            if not self._awaited():
                self._finish()
            return
        if self.state is _REPAIRING and not self.request.is_read_by(self.answers.keys()):
            self.move(_TOO_FEW)
        if error is None and node != self._common.name:
            # its connection may come back before the deadline
            self._again += (Target(node, self._hint_for(node)),)
        if self._ask_next(now):
            return
        if self.state is _ASKING_ALL:
            self._evaluate(now)
        if error is not None and len(self.asked) < self.request.r and self._waited_for:
            self._fail(error, now)

    # evaluating the answers

    def _evaluate(self, now: Instant) -> None:
        """Reply if R replicas hold the result; else repair those that answered something older."""
        answers = self.answers
        if self._respond is None or not self.request.is_read_by(answers.keys()):
            return
        replica = self._common.local.replica
        try:
            result, stale = compared(replica, self.request.key, answers)
            unseen = bool(self._seen) and not has_seen(self.request.call, self._seen, result)
        except Corruption:
            # no answer: it is stored here, as those of peers are checked
            for node, error in unreadable(answers):
                self._lost(node, error, now)
            return
        if len(result) > replica.largest:
            # no replica can take it: it is shown all the same, so that it can be resolved or deleted
            self._reply(result, now)
            return
        held = not stale or self.request.is_read_by(answers.keys() - stale)
        if stale:
            self._repair_all(stale, result, now)
        if held and self._waited_for:
            if unseen:
                self._ask_all(now)
            else:
                self._reply(result, now)

    def _repair_all(self, stale: Sequence[str], result: EncodedVersion, now: Instant) -> None:
        if self.state is not _ASKING_ALL:
            self.move(_DIFFERENT)
        for node in stale:
            if self._repairs.get(node) != result:
                self._repairs = {**self._repairs, node: result}
                self._repair(node, result, now)

    def _ask_all(self, now: Instant) -> None:
        """R replicas have not seen what the session has: ask all others, and fail if none of them has."""
        if self.state is not _ASKING_ALL:
            self.move(_UNSEEN)
            self._common.counters.wide_reads += 1
        while self._ask_next(now):
            pass
        if len(self.answers) == len(self.asked):
            self._fail(StaleRead(len(self.answers)), now)

    def _repair(self, node: str, result: EncodedVersion, now: Instant) -> None:
        placements = self._common.placements
        repair = Repair(self._rpc, self, node, result)
        if node != placements.name:
            repair.send(self.request.placement.epoch, self._hint_for(node))
            return
        before = self._common.local.replica.last_lsn
        try:
            placements.check_epoch(self.request.placement.epoch, self.request.key)
            lsn = self._common.local.store(self.request.key, result, self._hint_for(node))
        except (StorageError, Overloaded, StaleRing, VersionTooLarge) as error:
            self._rpc.forget(repair)
            self._lost(node, error, now)
        else:
            repair.was_stale = self._common.local.replica.last_lsn != before
            self._common.durability.after(lsn, Own(repair.number, ACK), now)

    # the end

    def _reply(self, result: EncodedVersion, now: Instant) -> None:
        self.move(_HELD)
        respond, self._respond = self._respond, None
        assert respond is not None
        if len(self.answers) == len(self.asked):  # nearly always
            self._finish()
        else:
            self._common.counters.hedges_won += any(node in self.answers for node in self._hedged)
            if not self._awaited():
                self._finish()
        explain = None
        if self.request.call.explain:
            explain = Explain(
                self._common.name,
                self._common.placements.state.epoch,
                self.request.partition,
                tuple(sorted(self.asked)),
                tuple(sorted(self.answers)),
                repaired=tuple(sorted(self._repaired)),
                hedged=self._hedged,
            )
        self._complete(self.request, result, explain, respond, now)

    def _finish(self) -> None:
        self.move(_ANSWERED)
        self._rpc.forget(self)

    def _fail(self, error: KVError, now: Instant) -> None:
        self.move(_FAILED)
        self._rpc.forget(self)
        self.fail(error, now)

    def _time_out(self, now: Instant) -> None:
        for node in self._awaited():
            self._took(node, now)
        answered = len(self.answers)
        if not self._waited_for:
            self._finish()
        elif self.state is _ASKING_ALL:
            self._fail(StaleRead(answered), now)
        else:
            self._fail(ReadTimeout(answered, self.request.r), now)


def _without(repairs: Mapping[str, EncodedVersion], node: str) -> Mapping[str, EncodedVersion]:
    return {other: version for other, version in repairs.items() if other != node} if repairs else repairs
