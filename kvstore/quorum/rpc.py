"""What this node has asked others, and what waits for their answers.

Whoever asks has a number, which its questions carry and their answers bring back. Numbers begin at random
when a node starts, so that answers to questions from before a restart match none. What is not expected is
dropped: the network may repeat anything, and an answer may come when nobody waits for it any more.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import ClassVar, Protocol, TypeAlias

from kvstore.errors import KVError
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import QuorumMessage, ReadSame, WriteAck
from kvstore.protocol.table import PeerMessage
from kvstore.quorum.admission import Admission
from kvstore.quorum.deadlines import Deadlines, Sleeper
from kvstore.quorum.guard import Guard
from kvstore.versions import NO_KEY, InternalKey

Answer: TypeAlias = QuorumMessage
"""What a question is answered with, if it is not refused: which is for which, the table of messages says."""


class Transport(Protocol):
    """Where messages to other nodes go."""

    def send(self, to: str, message: PeerMessage) -> None:
        """Send, best effort."""


class Waiting(Sleeper):
    """What waits for answers: an operation, or a question of a flow.

    `size` are the bytes that it holds, `client` is the number of the client's request that waits for its
    outcome (0: none here does).
    """

    __slots__ = ("client", "size")

    size: int
    client: int
    EXPECTS: ClassVar[tuple[type, ...]] = ()
    """The answers that mean anything to it."""

    def on_answer(self, node: str, answer: Answer, now: Instant) -> None:
        """`node` has done what it was asked, or says what it holds; this node itself is one of them."""

    def on_refusal(self, node: str, error: KVError, now: Instant) -> None:
        """`node` did not do what it was asked."""

    def on_gone(self, node: str, now: Instant) -> None:
        """`node` is dead or its connection broke: what it was asked may be lost."""

    def on_cancelled(self, now: Instant) -> None:
        """The client has left: do what must be done, but reply to nobody."""

    def touches(self) -> InternalKey:
        """The internal key that this may yet bring to a replica; empty: none."""
        return NO_KEY


class Rpc:
    """The table of one node. `waiting` holds by number, the oldest first, what has not finished."""

    def __init__(
        self,
        first_number: int,
        transport: Transport,
        deadlines: Deadlines,
        admission: Admission,
        guard: Guard,
    ) -> None:
        self.send = transport.send
        self.waiting: dict[int, Waiting] = {}
        self.last_number = first_number
        self._deadlines = deadlines
        self._sleepers = deadlines.sleepers
        self._admission = admission
        self._guard = guard

    def all(self) -> tuple[Waiting, ...]:
        """Those of this moment, whatever becomes of them meanwhile."""
        return tuple(self.waiting.values())

    def register(self, waiting: Waiting, wake_at: float) -> None:
        """Give it its number, and wake it at that time (monotonic seconds)."""
        self.last_number = waiting.number = number = self.last_number + 1
        self.waiting[number] = self._sleepers[number] = waiting
        self._deadlines.wake(waiting, wake_at)
        if waiting.size:
            self._admission.hold(waiting.size)

    def wake(self, waiting: Waiting, when: float) -> None:
        """Wake it at `when`, and not at the time that was set before."""
        self._deadlines.wake(waiting, when)

    def hold(self, waiting: Waiting, size: int) -> None:
        """It holds so many bytes more."""
        waiting.size += size
        self._admission.hold(size)

    def forget(self, waiting: Waiting) -> None:
        """It has finished: nothing that comes for it means anything."""
        if self.waiting.pop(waiting.number, None) is not None:
            del self._sleepers[waiting.number]
            self._admission.bytes -= waiting.size

    # what comes in

    def on_answer(self, node: str, number: int, answer: Answer, now: Instant) -> None:
        """An answer of a node, which may be this one."""
        waiting = self.waiting.get(number)
        if waiting is not None and isinstance(answer, waiting.EXPECTS):
            waiting.on_answer(node, answer, now)

    def on_answer_to_all(self, node: str, answer: WriteAck | ReadSame, now: Instant) -> None:
        """An answer of a node to many questions: a defect in what one has asked does not keep the others."""
        table, kind = self.waiting, type(answer)
        for number in answer.numbers:
            waiting = table.get(number)
            if waiting is not None and kind in waiting.EXPECTS:
                try:
                    waiting.on_answer(node, answer, now)
                except Exception as error:  # noqa: BLE001  (as in Guard.run, a call of which each would cost)
                    self._guard.report(error)

    def on_refusal(self, node: str, number: int, error: KVError, now: Instant) -> None:
        """`node` did not do what it was asked under this number."""
        if waiting := self.waiting.get(number):
            waiting.on_refusal(node, error, now)

    def on_gone(self, node: str, now: Instant) -> None:
        """`node` is dead or its connection broke: what was sent to it may be lost."""
        for waiting in self.all():
            self._guard.run(waiting.on_gone, node, now)

    def on_unsent(self, node: str, numbers: Iterable[int], now: Instant) -> None:
        """What these had for `node` was not sent: it is too far behind, or not connected."""
        for number in numbers:
            if waiting := self.waiting.get(number):
                self._guard.run(waiting.on_gone, node, now)

    def cancel(self, clients: Container[int], now: Instant) -> int:
        """The clients of these requests have left; returns for how many something was under way."""
        left = [waiting for waiting in self.waiting.values() if waiting.client in clients]
        for waiting in left:
            self._guard.run(waiting.on_cancelled, now)
        return len(left)

    # what others must know of it

    def keys_under_way(self) -> set[InternalKey]:
        """The keys that something may yet be brought to a replica of."""
        return {waiting.touches() for waiting in self.waiting.values()}
