"""The entry point of a node for front ends: requests of clients come in here, whatever their protocol.

gRPC's services are the first (kvstore.server.client_service). Nothing below this knows of connections or
protocols, and nothing above it of nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Protocol, TypeVar

import msgspec

from kvstore.errors import Overloaded
from kvstore.principal import Principal
from kvstore.protocol.client import ClientRequest, Failed, Reply
from kvstore.protocol.scan import Scan

R = TypeVar("R", bound=ClientRequest | Scan)

Respond = Callable[[Reply], None]
"""Takes the reply to one request, once, and perhaps before whoever hands the request in goes on."""

_LONGEST = 3600.0
_REPLY_SHARE = 0.1
_REPLY_SECONDS = 0.1
_TOO_LATE = Overloaded(0.1, "the time of the request was over when it arrived")
EXPIRED = Failed(Overloaded(0.1, "the request waited too long on its way to the node"))
"""The reply to a request that is not `in_time`."""


class Requests(Protocol):
    """The node that carries requests out; each is answered through `Executor.reply`."""

    def hand_in(self, requests: Iterable[tuple[int, ClientRequest]], principal: Principal) -> None:
        """Requests that have arrived together, under their numbers."""

    def give_up(self, numbers: Container[int]) -> None:
        """Nobody waits for the requests with these numbers any more."""

    def expired(self) -> None:
        """A request came too late to be handed in."""


class Executor:
    """Hands requests to one node, and its replies to whoever asked; belongs to the loop's thread."""

    def __init__(self, node: Requests) -> None:
        self._loop = asyncio.get_running_loop()
        self._node = node
        self._waiting: dict[int, tuple[object, Respond]] = {}
        self._given_up: set[int] = set()
        self._last = 0

    async def execute(self, principal: Principal, request: ClientRequest, deadline: float) -> Reply:
        """Carry out one request for `principal`, and return its reply, which may be Failed.

        `deadline` is in seconds of the loop's clock, infinite for none. A caller that is cancelled has left:
        what need not be done for it is not.
        """
        left = deadline - self._loop.time()
        if left <= 0:
            self.expired()
            return Failed(_TOO_LATE)
        future: asyncio.Future[Reply] = self._loop.create_future()

        def respond(reply: Reply) -> None:
            if not future.done():  # cancelled a moment ago
                future.set_result(reply)

        number = self._number(future, respond)
        self._node.hand_in([(number, within(request, left))], principal)
        try:
            return await future
        finally:
            self._forget([number])

    def begin(
        self, client: object, principal: Principal, requests: Sequence[tuple[ClientRequest, Respond]]
    ) -> None:
        """Carry out requests that have arrived together; `client` is whoever may `leave` before a reply."""
        number = self._number
        self._node.hand_in(((number(client, respond), request) for request, respond in requests), principal)

    def _number(self, client: object, respond: Respond) -> int:
        self._last = number = self._last + 1
        self._waiting[number] = client, respond
        return number

    def leave(self, client: object) -> None:
        """The client has gone: late replies are dropped, and what need not be done is not."""
        self._forget([number for number, (each, _) in self._waiting.items() if each is client])

    def _forget(self, numbers: Iterable[int]) -> None:
        left = [number for number in numbers if self._waiting.pop(number, None) is not None]
        if left:
            if not self._given_up:
                self._loop.call_soon(self._give_up)  # the others that leave in this turn as well
            self._given_up.update(left)

    def _give_up(self) -> None:
        given_up, self._given_up = self._given_up, set()
        self._node.give_up(given_up)

    def expired(self) -> None:
        """A request came too late to be handed in."""
        self._node.expired()

    def reply(self, number: int, reply: Reply) -> None:
        """The node has answered a request."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting[1](reply)

    @property
    def idle(self) -> bool:
        """Whether nobody waits for a reply."""
        return not self._waiting


def in_time(request: ClientRequest, waited: float) -> bool:
    """Whether a request has more time than the seconds that it has waited."""
    return not request.timeout or request.timeout > waited


def within(request: R, left: float) -> R:
    """The request with a little less time than its call has left, so that the reply arrives in time."""
    most = max(0.001, min(left - min(_REPLY_SHARE * left, _REPLY_SECONDS), _LONGEST))
    if left == float("inf") or 0 < request.timeout <= most:
        return request
    return msgspec.structs.replace(request, timeout=most)
