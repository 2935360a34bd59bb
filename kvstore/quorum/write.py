"""Coordinating a write: the new version to all replicas, a reply after W durable acks, hints for the rest.

The coordinator's own copy must be durable before it replies, whatever W is: it made the dot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kvstore.errors import KVError, Overloaded, StorageError, VersionTooLarge, WriteTimeout
from kvstore.protocol.messages import Explain, ReplicaWrite, Stored
from kvstore.quorum.operation import Operation, Respond

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator
    from kvstore.quorum.request import Request


class WriteOperation(Operation):
    """One version on its way to its replicas. It outlives its reply until every target has it or a hint."""

    __slots__ = (
        "acked",
        "again",
        "awaiting",
        "fallbacks",
        "hinted",
        "local",
        "lost",
        "owes",
        "patience_ends",
        "request",
        "result",
        "version",
    )

    def __init__(
        self, core: Coordinator, respond: Respond, request: Request, version: bytes, result: Stored
    ) -> None:
        patience = core.settings.write_patience
        super().__init__(core, respond, request.deadline, patience, len(version), request.client)
        self.request = request
        self.version = version
        self.result = result
        self.local = False
        self.owes = False
        self.again: tuple[tuple[float, str, str], ...] = ()
        self.patience_ends = core.now + self.patience
        self.acked: set[str] = set()
        self.lost: tuple[str, ...] = ()
        self.hinted = request.placement.unplaced
        self.awaiting = request.placement.remote.copy()
        self.fallbacks: tuple[str, ...] = ()

    def send(self) -> None:
        """Ask every remote target; the local batch has been appended and waits for its sync."""
        for node, hint_for in self.awaiting.items():
            self._ask(node, hint_for)

    def _ask(self, node: str, hint_for: str) -> None:
        core = self.core
        core.transport.send(
            node, ReplicaWrite(self.number, core.state.epoch, self.request.key, self.version, hint_for)
        )

    def touches(self) -> bytes:
        """See Operation."""
        return self.request.key

    def on_cancelled(self) -> None:
        """The version is here and on its way: it still goes to all replicas."""
        self._owe()

    def _owe(self) -> None:
        """Nobody waits any more, but the replicas have the work before them: it counts until W are through.

        Else the more of it was late, the more would be taken on.
        """
        if self.respond is not None:
            self._time_out()
            self.owes = True
            self.core.admission.unanswered += 1

    def _settle(self) -> None:
        self.owes = False
        self.core.admission.unanswered -= 1

    def finish(self) -> None:
        """See Operation."""
        super().finish()
        if self.owes:
            self._settle()

    def hint_early(self, now: float) -> None:
        """End the patience with the slow replicas: the memory is wanted."""
        self.patience_ends = now
        self.on_time(now)

    def on_local_durable(self) -> None:
        """The coordinator's own copy is on the disk."""
        self.local = True
        self.on_write_ack(self.core.name)

    def on_write_ack(self, node: str) -> None:
        """A replica, or a fallback for one, has the version durably; a late ack counts too."""
        self.awaiting.pop(node, None)
        if self._counts(node):
            self.acked.add(node)
        self._advance()

    def on_refusal(self, node: str, error: KVError) -> None:
        """A replica could not store it: keep a hint, and give up when W cannot be reached.

        One that is only overloaded is asked again in the time it wants, if the client has that much.
        """
        hint_for = self.awaiting.get(node, self.request.placement.remote.get(node))
        if isinstance(error, Overloaded) and self.respond is not None and hint_for is not None:
            when = self.core.now + error.retry_after
            if when < self.deadline:
                self.again = (*self.again, (when, node, hint_for))
                self.core.operations.set_alarm(when, self.number)
                return
        self.on_gone(node)

    def on_gone(self, node: str) -> None:
        """What was sent to `node` may be lost: keep a hint."""
        if node in self.awaiting:
            self.lost += (node,)
            self._substitute(node)
            self._advance()

    def on_time(self, now: float) -> None:
        """The client gets its error at the deadline, slow replicas a hint after the patience.

        Not earlier for a client that has little time: hints are work, and under overload all are late.
        """
        late = now >= self.deadline
        if late:
            self._owe()
        if now < self.patience_ends:
            return
        for node in tuple(self.awaiting):
            self._substitute(node)
        if late:
            for node in tuple(self.awaiting):  # fallbacks asked just now: no time is left for them
                self._hint_here(self.awaiting.pop(node))
            self.finish()
        else:
            self._advance()

    def on_alarm(self, now: float) -> None:
        """Ask those once more who were overloaded."""
        due = [each for each in self.again if each[0] <= now]
        self.again = tuple(each for each in self.again if each[0] > now)
        for _, node, hint_for in due:
            self._ask(node, hint_for)

    def _substitute(self, node: str) -> None:
        """Give up waiting for `node`: ask a live fallback to keep the hint, else keep it here."""
        target = self.awaiting.pop(node) or node
        for fallback in self.core.live_fallbacks(self.request.partition, self.request.n):
            if fallback not in self._asked():
                self.fallbacks += (fallback,)
                self.awaiting[fallback] = target
                self._ask(fallback, target)
                return
        self._hint_here(target)

    def _hint_here(self, target: str) -> None:
        # what cannot be kept is counted as dropped: the write itself does not depend on it
        try:
            self.core.store(self.request.key, self.version, hint_for=target)
        except (StorageError, Overloaded, VersionTooLarge):
            self.core.hints.lost(target, self.request.key, self.version)
        else:
            self.hinted += (target,)

    def _counts(self, node: str) -> bool:
        return self.request.sloppy or node in self.request.placement.primaries

    def _advance(self) -> None:
        if self.respond is not None:
            if self.local and len(self.acked) >= self.request.w:
                self.answer(self._stored())
            elif self.lost and not self._reachable():
                self._time_out()
        elif self.owes and self.local and len(self.acked) >= self.request.w:
            self._settle()
            self.core.admission.worked(self.core.now - self.request.now.mono)
        if not self.awaiting and self.local and self.respond is None:
            self.finish()

    def _reachable(self) -> bool:
        """Whether W acks can still come: from those that are not known to be lost."""
        possible = sum(1 for node in self._asked() if node not in self.lost and self._counts(node))
        return possible >= self.request.w

    def _asked(self) -> set[str]:
        return {self.core.name, *self.request.placement.remote, *self.fallbacks}

    def _time_out(self) -> None:
        self.fail(WriteTimeout(len(self.acked), self.request.w))

    def _stored(self) -> Stored:
        if not self.request.call.explain:
            return self.result
        asked = tuple(sorted(self._asked()))
        waiting = tuple(target for target in self.awaiting.values() if target)
        hinted = tuple(sorted({*self.hinted, *waiting}))
        explain = Explain(
            self.core.name,
            self.core.state.epoch,
            self.request.partition,
            asked,
            tuple(sorted(self.acked)),
            hinted=hinted,
        )
        return msgspec.structs.replace(self.result, explain=explain)
