"""What the operations of a coordinator have in common: a reply, a deadline, and named states.

An operation is a small machine: replicas' answers and the passing of time go in, messages and at most one
reply come out. What state follows on which event is a table of each kind (`MOVES`), drawn in
docs/request-states.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ClassVar

from kvstore.errors import KVError
from kvstore.protocol.client import Failed, Reply
from kvstore.protocol.instant import Instant
from kvstore.quorum.rpc import Rpc, Waiting


class Named(Enum):
    """The states and the events of a kind of operation: names that are compared and looked up often.

    There is one object for each, so its identity is its hash; that of Enum is made of the name each time.
    """

    __hash__ = object.__hash__


Respond = Callable[[Reply, Instant], None]
"""Takes the reply of a request to whoever asked, be it a client or a forwarding node."""

Moves = Mapping[tuple[Enum, Enum], Enum]
"""By state and event the state that follows; what is not in it cannot happen."""


class Operation(Waiting):
    """Base of all operations. `answer` replies once; later calls do nothing."""

    __slots__ = ("_respond", "_rpc", "deadline", "state")

    MOVES: ClassVar[Moves]
    state: Any
    """Of the kind's own enum."""

    def __init__(
        self,
        rpc: Rpc,
        respond: Respond,
        deadline: float,
        patience_ends: float,
        size: int = 0,
        client: int = 0,
    ) -> None:
        self._rpc = rpc
        self._respond: Respond | None = respond
        self.deadline = deadline
        self.size = size
        self.client = client
        rpc.register(self, min(patience_ends, deadline))

    def move(self, event: Enum) -> None:
        """Go on to the state that follows on an event."""
        self.state = self.MOVES[self.state, event]

    def answer(self, reply: Reply, now: Instant) -> None:
        """Reply, once."""
        if self._respond is not None:
            respond, self._respond = self._respond, None
            respond(reply, now)

    def fail(self, error: KVError, now: Instant) -> None:
        """Reply with an error, once."""
        self.answer(Failed(error), now)

    def wake(self, when: float) -> None:
        """Be woken at `when`, and not at the time that was set before."""
        self._rpc.wake(self, when)
