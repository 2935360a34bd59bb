"""The requests of clients that a host has taken, and who waits for their replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from kvstore.node.node import Node
from kvstore.protocol.client import ClientRequest, Reply
from kvstore.sim.invariants.replies import Replies
from kvstore.sim.machine import Machine
from kvstore.sim.process import Process

Respond = Callable[[Reply | None], None]
"""Takes the reply; None when the connection broke before there was one."""

_RESET_SECONDS = 0.01


class Requests:
    """Those of one host; its length is how many are not answered. `node` gives the one that runs."""

    def __init__(
        self, machine: Machine, process: Process, replies: Replies, node: Callable[[], Node]
    ) -> None:
        self._machine = machine
        self._process = process
        self._replies = replies
        self._node = node
        self._waiting: dict[int, tuple[ClientRequest, float, Respond]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, requests: Sequence[tuple[ClientRequest, Respond]]) -> None:
        """Requests of a client that arrive together; a host that is down refuses the connection."""

        def refuse() -> None:
            for _, respond in requests:
                respond(None)

        self._process.enter(partial(self._hand_over, requests), if_dead=refuse)

    def _hand_over(self, requests: Sequence[tuple[ClientRequest, Respond]]) -> None:
        numbered = []
        for call, respond in requests:
            self._last += 1
            self._waiting[self._last] = call, self._machine.scheduler.now, respond
            numbered.append((self._last, call))
        self._node().on_requests(numbered, self._machine.instant())

    def cancel(self, requests: Sequence[tuple[ClientRequest, Respond]]) -> None:
        """The client of these requests has left."""
        self._process.enter(partial(self._cancel, [respond for _, respond in requests]))

    def _cancel(self, left: Sequence[Respond]) -> None:
        numbers = {number for number, (_, _, respond) in self._waiting.items() if respond in left}
        self._node().on_cancelled(numbers, self._machine.instant())

    def answer(self, number: int, reply: Reply) -> None:
        """The node's reply to a request."""
        call, since, respond = self._waiting.pop(number)
        self._replies.replied(self._machine.name, call, since, reply)
        respond(reply)

    def break_off(self) -> None:
        """The process has died, and with it the connections of its clients."""
        waiting, self._waiting = self._waiting, {}
        for _, _, respond in waiting.values():
            self._machine.scheduler.after(_RESET_SECONDS, partial(respond, None))
