"""Passing a client's request on to a replica of its key, when this node is none."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from kvstore.errors import Corruption, KVError, ReadTimeout, WriteTimeout
from kvstore.protocol.messages import Failed, Forward, Get, Put, Reply
from kvstore.quorum.operation import Operation, Respond

if TYPE_CHECKING:
    from kvstore.quorum.coordinator import Coordinator
    from kvstore.quorum.request import Request

_REMEMBERED = 65536
_LEAST_TIME = 0.001
"""On the wire 0 means the default."""


class Repeats:
    """Tells a forwarded request that the network repeats from a new one.

    Carried out twice, a put would leave two siblings; or it would be refused at first and applied
    later, when the client has been told that it was not.
    """

    __slots__ = ("_order", "_seen")

    def __init__(self) -> None:
        self._order: deque[tuple[str, int]] = deque()
        self._seen: set[tuple[str, int]] = set()

    def is_new(self, sender: str, request: int) -> bool:
        """Whether `request` comes from `sender` for the first time, as far back as is remembered."""
        if (sender, request) in self._seen:
            return False
        if len(self._order) == _REMEMBERED:
            self._seen.remove(self._order.popleft())
        self._order.append((sender, request))
        self._seen.add((sender, request))
        return True


class ForwardOperation(Operation):
    """One request at another coordinator. A read is passed on again when that one is lost, a write never."""

    __slots__ = ("left", "node", "request")

    def __init__(self, core: Coordinator, respond: Respond, request: Request, live: list[str]) -> None:
        call = request.call
        size = len(call.value) if isinstance(call, Put) else 0
        patience = core.settings.write_patience
        super().__init__(core, respond, request.deadline, patience, size, request.client)
        self.request = request
        self.left = live[::-1]
        self.node = ""

    def send(self) -> None:
        """Pass the request on to the next live replica."""
        self.node = self.left.pop()
        core, call = self.core, self.request.call
        # what time is left, not when it ends: the other node's clock is its own
        call = msgspec.structs.replace(call, timeout=max(self.deadline - core.now, _LEAST_TIME))
        core.transport.send(self.node, Forward(self.number, core.state.epoch, call))

    def on_cancelled(self) -> None:
        """The other coordinator goes on until its deadline; its reply finds nobody."""
        self._time_out()

    def on_forward_reply(self, node: str, reply: Reply) -> None:
        """The coordinator has replied: so does this node, unless another one can do what that could not.

        Who cannot read its own copy has done nothing.
        """
        if node != self.node:
            return
        if self.left and isinstance(reply, Failed) and isinstance(reply.error, Corruption):
            self.send()
        else:
            self.finish()
            self.answer(reply)

    def on_refusal(self, node: str, error: KVError) -> None:
        """The other node did not take the request."""
        self.on_forward_reply(node, Failed(error))

    def on_gone(self, node: str) -> None:
        """The other coordinator may not have got the request, or its reply may be lost."""
        if node != self.node:
            return
        if isinstance(self.request.call, Get) and self.left:
            self.send()
        else:
            self._time_out()

    def on_time(self, now: float) -> None:
        """Patience: a read tries another replica. Deadline: the outcome stays unknown."""
        if now >= self.deadline:
            self._time_out()
        elif isinstance(self.request.call, Get) and self.left:
            self.send()

    def _time_out(self) -> None:
        self.finish()
        request = self.request
        self.fail(ReadTimeout(0, request.r) if isinstance(request.call, Get) else WriteTimeout(0, request.w))
