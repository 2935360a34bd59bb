"""Coordinating a read: digests to R-1 replicas, and a reply once R of them durably hold the result.

A stale replica is brought up to date before the reply (blocking read repair): what one read has
shown, every later one sees (BUGS 6). A late replica gets a hedge (kvstore.quorum.hedging). A read of a
session says what the answer must have seen: if R replicas do not know it, all are asked (docs/reads.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kvstore.errors import (
    Corruption,
    KVError,
    Overloaded,
    ReadTimeout,
    StaleRead,
    StorageError,
    VersionTooLarge,
)
from kvstore.protocol.messages import Explain, Get, ReplicaRead, ReplicaWrite
from kvstore.quorum.operation import Operation, Respond, nobody
from kvstore.quorum.placement import Target
from kvstore.versions import CausalContext, decode_version, digest, join

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator
    from kvstore.quorum.request import Request

Complete = Callable[["Request", bytes, Explain | None, Respond], None]
"""Called with the reconciled version once R replicas hold it."""


class ReadOperation(Operation):
    """One key being read. `answers` are the versions that replicas durably hold.

    It outlives its reply until those that were asked have answered: how long they took is worth knowing.
    """

    __slots__ = (
        "again",
        "answers",
        "asked",
        "asked_at",
        "asked_later",
        "complete",
        "hedged",
        "left",
        "local",
        "repaired",
        "repairs",
        "request",
        "seen",
        "wide",
    )

    def __init__(
        self,
        core: Coordinator,
        respond: Respond,
        request: Request,
        local: bytes | None,
        complete: Complete,
        seen: CausalContext = (),
    ) -> None:
        """`local` is None when this node cannot say what it holds: then it does not count as a replica.

        The answer must have `seen` this, whatever R is.
        """
        self.request = request
        self.local = local or b""
        self.complete = complete
        self.asked_at = core.now
        self.asked_later: dict[str, float] = {}
        self.hedged: tuple[str, ...] = ()
        self.seen = seen
        self.wide = False
        self.answers: dict[str, bytes] = {}
        self.repairs: dict[str, bytes] = {}
        self.repaired: set[str] = set()
        self.asked: dict[str, str] = {}
        self.left: list[Target] = []
        self.again: tuple[Target, ...] = ()
        for target in reversed(request.placement.targets):
            if target.node == core.name:
                if local is not None:
                    self.asked[target.node] = target.hint_for
            elif request.sloppy or not target.hint_for:
                self.left.append(target)
        slow = core.hedging.slow
        if slow:
            self.left.sort(key=lambda target: target.node not in slow)
        super().__init__(
            core, respond, request.deadline, self._patience(core), len(self.local), request.client
        )

    def _patience(self, core: Coordinator) -> float:
        """Seconds until the slowest of those that are asked first is late."""
        needed = self.request.r - len(self.asked)
        first = self.left[-needed:] if needed > 0 else ()
        return max((core.hedging.delay(target.node) for target in first), default=core.settings.read_patience)

    def send(self) -> None:
        """Ask as many replicas as are needed beside this node's own copy."""
        core = self.core
        for _ in range(self.request.r - len(self.asked)):
            self._ask_next()
        if core.hedging.slow and self.left:
            last = self.left[0]  # the slow ones are
            if last.node in core.hedging.slow and core.hedging.may_try(last.node, core.now):
                core.counters.read_trials += 1
                self._ask(self.left.pop(0))

    def _ask_next(self) -> bool:
        """Ask one more replica; whether there was one left, and time."""
        if not self.left or self.core.now >= self.deadline:
            return False
        self._ask(self.left.pop())
        return True

    def _ask(self, target: Target) -> None:
        core = self.core
        self.asked[target.node] = target.hint_for
        if core.now != self.asked_at:
            self.asked_later[target.node] = core.now
        ttl_ms = int((self.deadline - core.now) * 1000) + 1
        message = ReplicaRead(
            self.number, core.state.epoch, self.request.key, digest(self.local), target.hint_for, ttl_ms
        )
        core.transport.send(target.node, message)

    def touches(self) -> bytes:
        """See Operation."""
        return self.request.key if self.respond is not None else b""

    def on_cancelled(self) -> None:
        """Nobody wants to know."""
        self.finish()
        self.fail(ReadTimeout(len(self.answers), self.request.r))

    def on_local_durable(self) -> None:
        """This node's own version may be shown now."""
        self._answered(self.core.name, self.local)

    def on_read_same(self, node: str) -> None:
        """The replica holds what this node held when it asked."""
        self._answered(node, self.local)

    def on_read_reply(self, node: str, version: bytes) -> None:
        """The replica holds something else."""
        self.size += len(version)
        self.core.admission.bytes += len(version)
        self._answered(node, version)

    def on_repaired(self, node: str, version: bytes) -> None:
        """The repair with `version` is durable at a stale replica."""
        if self.repairs.get(node) == version:
            del self.repairs[node]
            self.repaired.add(node)
            self.core.counters.read_repairs += 1
            self.answers[node] = version
            self._evaluate()

    def on_refusal(self, node: str, error: KVError) -> None:
        """A replica cannot answer or be repaired: ask another, or fail if none is left."""
        self._lost(node, error)

    def on_gone(self, node: str) -> None:
        """What `node` was asked, or its answer, may be lost."""
        if node not in self.answers or node in self.repairs:
            self._lost(node, None)

    def on_time(self, now: float) -> None:
        """A replica is late: hedge. After the patience ask one more in any case; give up at the deadline."""
        if now >= self.deadline:
            self._time_out()
        elif self.respond is None:
            self.patience = float("inf")  # the deadline alone is left
        else:
            # not before: as long as there is no connection, each question would come back at once
            self.left[:0], self.again = self.again, ()
            self._hedge()
            while len(self.asked) < self.request.r and self._ask_next():
                pass

    def _hedge(self) -> None:
        core, longest = self.core, self.core.settings.read_patience
        late = self._awaited()
        for node in late:
            core.hedging.late(node)
        can_wait, self.patience = self.patience < longest, longest
        if not self.left or (can_wait and not late):
            return
        if not can_wait:
            core.hedging.overdraw()
        elif not core.hedging.take():
            core.counters.hedges_refused += 1
            return
        core.counters.hedges += 1
        self.hedged += (self.left[-1].node,)
        self._ask_next()

    def _awaited(self) -> list[str]:
        """The other replicas that were asked and have not answered."""
        return [node for node in self.asked if node not in self.answers and node != self.core.name]

    def _took(self, node: str) -> None:
        """`node` has answered, or never will: that it took so long is worth knowing."""
        core = self.core
        core.hedging.answered(node, core.now - self.asked_later.get(node, self.asked_at))

    def _answered(self, node: str, version: bytes) -> None:
        if node in self.asked and node not in self.answers:
            self.answers[node] = version
            if node != self.core.name:
                self._took(node)
            if self.respond is None:
                self._finish_if_all_answered()
            else:
                self._evaluate()

    def _finish_if_all_answered(self) -> None:
        if not self._awaited():
            self.finish()

    def _evaluate(self) -> None:
        """Reply if R replicas hold the result; else repair those that answered something older."""
        if len(self.answers) < self.request.r or self.respond is None:
            return
        result = b""
        try:
            for version in self.answers.values():
                result = self.core.replica.combine(self.request.key, result, version)
        except Corruption:
            self._drop_unreadable()
            return
        if len(result) > self.core.replica.largest:
            # no replica can take it: it is shown all the same, so that it can be resolved or deleted
            self._reply(result)
            return
        stale = [node for node, version in self.answers.items() if version != result]
        for node in stale:
            if self.repairs.get(node) != result:
                self.repairs[node] = result
                self._repair(node, result)
        if len(self.answers) - len(stale) >= self.request.r:
            if self.seen and not self._has_seen(result):
                self._ask_all()
            else:
                self._reply(result)

    def _drop_unreadable(self) -> None:
        """A version that cannot be decoded is no answer. It is stored here: those of peers are checked."""
        for node, version in list(self.answers.items()):
            try:
                if version:
                    decode_version(version)
            except Corruption as error:
                self._lost(node, error)

    def _has_seen(self, result: bytes) -> bool:
        """Whether a session may be shown this: it covers all that the session has seen of the key."""
        if not result:
            # a key that had no value and is known nowhere now was reaped
            call = self.request.call
            return isinstance(call, Get) and call.seen_empty
        known = decode_version(result).context
        return join(known, self.seen) == known

    def _ask_all(self) -> None:
        """R replicas have not seen what the session has: ask all others, and fail if none of them has."""
        if not self.wide:
            self.wide = True
            self.core.counters.wide_reads += 1
        while self._ask_next():
            pass
        if len(self.answers) == len(self.asked):
            self.finish()
            self.fail(StaleRead(len(self.answers)))

    def _reply(self, result: bytes) -> None:
        if self.respond is None:  # a repair here that was durable at once has replied already
            return
        respond, self.respond = self.respond, None
        if len(self.answers) == len(self.asked):
            self.finish()
        else:
            self._finish_if_all_answered()
            self.core.counters.hedges_won += any(node in self.answers for node in self.hedged)
        explain = self._explain() if self.request.call.explain else None
        self.complete(self.request, result, explain, respond)

    def _repair(self, node: str, result: bytes) -> None:
        if node == self.core.name:
            self._repair_here(result)
        else:
            RepairOperation(self, node, result)

    def _repair_here(self, result: bytes) -> None:
        core = self.core
        try:
            lsn = core.store(self.request.key, result, self.asked[core.name])
        except (StorageError, Overloaded, VersionTooLarge) as error:
            self._lost(core.name, error)
        else:
            core.durability.after(lsn, partial(self.on_repaired, core.name, result))

    def _lost(self, node: str, error: KVError | None) -> None:
        if node not in self.asked:
            return
        self.answers.pop(node, None)
        self.repairs.pop(node, None)
        hint_for = self.asked.pop(node)
        if self.respond is None:
            self._finish_if_all_answered()
            return
        if error is None and node != self.core.name:
            # its connection may come back before the deadline
            self.again += (Target(node, hint_for),)
        if self._ask_next():
            return
        if self.wide:
            self._evaluate()
        if error is not None and len(self.asked) < self.request.r:
            self.finish()
            self.fail(error)

    def _time_out(self) -> None:
        self.finish()
        for node in self._awaited():
            self._took(node)
        answered = len(self.answers)
        self.fail(StaleRead(answered) if self.wide else ReadTimeout(answered, self.request.r))

    def _explain(self) -> Explain:
        return Explain(
            self.core.name,
            self.core.state.epoch,
            self.request.partition,
            tuple(sorted(self.asked)),
            tuple(sorted(self.answers)),
            repaired=tuple(sorted(self.repaired)),
            hedged=self.hedged,
        )


class RepairOperation(Operation):
    """One version on its way to one stale replica; its own number, so that an ack means just this version."""

    __slots__ = ("node", "read", "version")

    def __init__(self, read: ReadOperation, node: str, version: bytes) -> None:
        core, request = read.core, read.request
        super().__init__(core, nobody, read.deadline, core.settings.write_patience)
        self.read = read
        self.node = node
        self.version = version
        message = ReplicaWrite(self.number, core.state.epoch, request.key, version, read.asked[node])
        core.transport.send(node, message)

    def touches(self) -> bytes:
        """See Operation."""
        return self.read.request.key

    def on_write_ack(self, node: str) -> None:
        """The replica holds the version durably."""
        if node == self.node:
            self.finish()
            self.read.on_repaired(node, self.version)

    def on_refusal(self, node: str, error: KVError) -> None:
        """The replica cannot be repaired."""
        if node == self.node:
            self.finish()
            self.read.on_refusal(node, error)

    def on_gone(self, node: str) -> None:
        """The repair may be lost; the read hears of it by itself."""
        if node == self.node:
            self.finish()

    def on_time(self, now: float) -> None:
        """The read has its own deadline."""
        if now >= self.deadline:
            self.finish()
