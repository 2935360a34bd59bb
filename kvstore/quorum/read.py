"""Coordinating a read: digests to R-1 replicas, and a reply once R of them durably hold the result.

A stale replica is brought up to date before the reply (blocking read repair): what one read has
shown, every later one sees (BUGS 6).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kvstore.errors import KVError, Overloaded, ReadTimeout, StorageError
from kvstore.quorum.messages import Explain, ReplicaRead, ReplicaWrite
from kvstore.quorum.operation import Operation, Respond, nobody
from kvstore.quorum.placement import Target
from kvstore.versions import digest

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator, Request

Complete = Callable[["Request", bytes, Explain | None, Respond], None]
"""Called with the reconciled version once R replicas hold it."""


class ReadOperation(Operation):
    """One key being read. `answers` are the versions that replicas durably hold."""

    __slots__ = ("answers", "asked", "complete", "left", "local", "repaired", "repairs", "request")

    def __init__(
        self, core: Coordinator, respond: Respond, request: Request, local: bytes | None, complete: Complete
    ) -> None:
        """`local` is None when this node cannot say what it holds: then it does not count as a replica."""
        super().__init__(core, respond, request.deadline, core.settings.read_patience)
        self.request = request
        self.local = local or b""
        self.complete = complete
        self.answers: dict[str, bytes] = {}
        self.repairs: dict[str, bytes] = {}
        self.repaired: set[str] = set()
        self.asked: dict[str, str] = {}
        self.left: list[Target] = []
        for target in reversed(request.placement.targets):
            if target.node == core.name:
                if local is not None:
                    self.asked[target.node] = target.hint_for
            elif request.sloppy or not target.hint_for:
                self.left.append(target)

    def send(self) -> None:
        """Ask as many replicas as are needed beside this node's own copy."""
        for _ in range(self.request.required - len(self.asked)):
            self._ask_next()

    def _ask_next(self) -> bool:
        """Ask one more replica; whether there was one left."""
        if not self.left:
            return False
        target = self.left.pop()
        self.asked[target.node] = target.hint_for
        core = self.core
        message = ReplicaRead(
            self.number, core.state.epoch, self.request.key, digest(self.local), target.hint_for
        )
        core.transport.send(target.node, message)
        return True

    def touches(self) -> bytes:
        """See Operation."""
        return self.request.key

    def on_local_durable(self) -> None:
        """This node's own version may be shown now."""
        self._answered(self.core.name, self.local)

    def on_read_same(self, node: str) -> None:
        """The replica holds what this node held when it asked."""
        self._answered(node, self.local)

    def on_read_reply(self, node: str, version: bytes) -> None:
        """The replica holds something else."""
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
        """Ask one more replica after the patience; give up at the deadline."""
        if now >= self.deadline:
            self._time_out()
        else:
            self._ask_next()

    def _answered(self, node: str, version: bytes) -> None:
        if node in self.asked and node not in self.answers:
            self.answers[node] = version
            self._evaluate()

    def _evaluate(self) -> None:
        """Reply if R replicas hold the result; else repair those that answered something older."""
        if len(self.answers) < self.request.required or self.respond is None:
            return
        result = b""
        for version in self.answers.values():
            result = self.core.replica.combine(self.request.key, result, version)
        stale = [node for node, version in self.answers.items() if version != result]
        for node in stale:
            if self.repairs.get(node) != result:
                self.repairs[node] = result
                self._repair(node, result)
        if len(self.answers) - len(stale) >= self.request.required:
            self._reply(result)

    def _reply(self, result: bytes) -> None:
        self.finish()
        if self.respond is not None:  # a repair here that was durable at once has replied already
            respond, self.respond = self.respond, None
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
        except (StorageError, Overloaded) as error:
            self._lost(core.name, error)
        else:
            core.durability.after(lsn, partial(self.on_repaired, core.name, result))

    def _lost(self, node: str, error: KVError | None) -> None:
        if node not in self.asked:
            return
        self.answers.pop(node, None)
        self.repairs.pop(node, None)
        hint_for = self.asked.pop(node)
        if self._ask_next():
            return
        if len(self.asked) < self.request.required:
            if error is not None:
                self.finish()
                self.fail(error)
            elif node != self.core.name:
                # its connection may come back before the deadline: it stays to be asked again
                self.left.insert(0, Target(node, hint_for))

    def _time_out(self) -> None:
        self.finish()
        self.fail(ReadTimeout(len(self.answers), self.request.required))

    def _explain(self) -> Explain:
        return Explain(
            self.core.name,
            self.core.state.epoch,
            self.request.partition,
            tuple(sorted(self.asked)),
            tuple(sorted(self.answers)),
            repaired=tuple(sorted(self.repaired)),
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
