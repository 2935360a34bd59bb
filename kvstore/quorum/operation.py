"""What the operations of a coordinator have in common: a number, a deadline, and what may happen to them.

An operation is a small machine: replicas' answers and the passing of time go in, messages and at
most one reply come out. kvstore.quorum.operations is the table of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvstore.errors import KVError
from kvstore.protocol.messages import Failed, RangeDifference, Reply, TreeHashes

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator

Respond = Callable[[Reply], None]
"""Takes the reply of a request to whoever asked, be it a client or a forwarding node."""


def nobody(reply: Reply) -> None:
    """Where the reply of an operation goes that no client waits for."""


class Operation:
    """Base of all operations; what a kind does not expect, it ignores (the network may repeat anything).

    `size` are the bytes that it holds, `client` is the number of the client's request that waits for its
    outcome (0: none here does).
    """

    __slots__ = ("client", "core", "deadline", "number", "patience", "respond", "size")

    def __init__(
        self,
        core: Coordinator,
        respond: Respond,
        deadline: float,
        patience: float,
        size: int = 0,
        client: int = 0,
    ) -> None:
        self.core = core
        self.deadline = deadline
        self.patience = patience
        self.respond: Respond | None = respond
        self.size = size
        self.client = client
        self.number = core.operations.register(self, core.now)

    def answer(self, reply: Reply) -> None:
        """Reply, once; later calls do nothing."""
        if self.respond is not None:
            respond, self.respond = self.respond, None
            respond(reply)

    def fail(self, error: KVError) -> None:
        """Reply with an error, once."""
        self.answer(Failed(error))

    def finish(self) -> None:
        """Nothing more is expected: leave the coordinator's table."""
        self.core.operations.forget(self.number)

    def on_cancelled(self) -> None:
        """The client has left: do what must be done, but reply to nobody."""

    def on_time(self, now: float) -> None:
        """Patience or the deadline has passed; an operation that goes on is woken again."""
        raise NotImplementedError

    def on_alarm(self, now: float) -> None:
        """A time that the operation has set for itself has come."""

    def on_gone(self, node: str) -> None:
        """`node` is dead or its connection broke: what it was asked may be lost."""

    def on_refusal(self, node: str, error: KVError) -> None:
        """`node` did not do what it was asked."""

    def on_write_ack(self, node: str) -> None:
        """`node` has what it was sent, durably."""

    def on_read_same(self, node: str) -> None:
        """`node` holds the version whose digest was sent."""

    def on_read_reply(self, node: str, version: bytes) -> None:
        """`node` holds `version`."""

    def on_answer(self, node: str, answer: TreeHashes | RangeDifference) -> None:
        """`node` answers a question of an exchange."""

    def on_confirm(self, node: str, positions: Sequence[int]) -> None:
        """`node` confirms that these may be reaped."""

    def touches(self) -> bytes:
        """The internal key that this operation may yet bring to a replica; empty: none."""
        return b""

    def on_forward_reply(self, node: str, reply: Reply) -> None:
        """The coordinator that this request was forwarded to has replied."""


class Errand(Operation):
    """One message to one node, of which no client waits for the outcome: it is answered, or lost."""

    __slots__ = ("node",)

    def __init__(self, core: Coordinator, node: str, timeout: float) -> None:
        super().__init__(core, nobody, core.now + timeout, timeout)
        self.node = node

    def on_refusal(self, node: str, error: KVError) -> None:
        """The node did not do it."""
        self.on_gone(node)

    def on_gone(self, node: str) -> None:
        """The message or its answer may be lost."""
        if node == self.node:
            self._lose()

    def on_time(self, now: float) -> None:
        """The node takes too long."""
        if now >= self.deadline:
            self._lose()

    def _lose(self) -> None:
        self.finish()
        self.on_lost()

    def on_lost(self) -> None:
        """Nothing is known of the outcome; the operation has left the coordinator's table."""
        raise NotImplementedError
