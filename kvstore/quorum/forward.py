"""Passing a client's request on to a replica of its key, when this node is none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec

from kvstore.config import QuorumSettings
from kvstore.errors import Corruption, KVError, NodeStopping
from kvstore.protocol.client import Failed, timed_out
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import Forward, ForwardReply
from kvstore.protocol.sizes import content_of
from kvstore.quorum.counters.requests import RequestCounters
from kvstore.quorum.hedging import Hedging
from kvstore.quorum.operation import Moves, Named, Operation, Respond
from kvstore.quorum.ownership import Ownership
from kvstore.quorum.request import Request
from kvstore.quorum.rpc import Answer, Rpc

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

    def is_new(self, sender: str, number: int) -> bool:
        """Whether this request of `sender` comes for the first time, as far back as is remembered."""
        if (sender, number) in self._seen:
            return False
        if len(self._order) == _REMEMBERED:
            self._seen.remove(self._order.popleft())
        self._order.append((sender, number))
        self._seen.add((sender, number))
        return True


class ForwardState(Named):
    """Where a forwarded request is."""

    ASKING = "another coordinator has it"
    FINISHED = "the client has its reply"


class ForwardEvent(Named):
    """What moves a forwarded request."""

    PASSED_ON = "that one cannot do it, or a read may be lost there: the next replica has it"
    REPLIED = "the coordinator has replied"
    GIVEN_UP = "the deadline has passed, the client has left, or the request may be lost"


_S, _E = ForwardState, ForwardEvent


class Forwards:
    """What the forwarded requests of one node have in common."""

    def __init__(
        self,
        rpc: Rpc,
        ownership: Ownership,
        alive: Callable[[str], bool],
        hedging: Hedging,
        counters: RequestCounters,
        settings: QuorumSettings,
    ) -> None:
        self.rpc = rpc
        self.ownership = ownership
        self._alive = alive
        self.patience = settings.write_patience
        self._hedging = hedging
        self._counters = counters

    def pass_on(self, request: Request, respond: Respond) -> bool:
        """Pass a request on to another replica that is alive; False if there is none, or it was passed on."""
        me = self.ownership.name
        others = [node for node in request.placement.coordinators if node != me and self._alive(node)]
        if request.forwarded or not others:
            return False
        self._pass_on(request, others, respond)
        return True

    def _pass_on(self, request: Request, to: Sequence[str], respond: Respond) -> None:
        """The slow ones last."""
        self._counters.forwards += 1
        slow = self._hedging.slow
        live = sorted(to, key=lambda node: node in slow)
        ForwardOperation(self, respond, request, live, request.now).send(request.now)


class ForwardOperation(Operation):
    """One request at another coordinator. A read is passed on again when that one is lost, a write never."""

    __slots__ = ("_common", "left", "node", "request")

    EXPECTS = (ForwardReply,)
    MOVES: ClassVar[Moves] = {
        (_S.ASKING, _E.PASSED_ON): _S.ASKING,
        (_S.ASKING, _E.REPLIED): _S.FINISHED,
        (_S.ASKING, _E.GIVEN_UP): _S.FINISHED,
    }

    def __init__(
        self, common: Forwards, respond: Respond, request: Request, live: Sequence[str], now: Instant
    ) -> None:
        self._common = common
        self.state = _S.ASKING
        size = content_of(request.call)
        self.request = request
        self.left = [*reversed(live)]
        self.node = ""
        patience_ends = now.mono + common.patience
        super().__init__(common.rpc, respond, request.deadline, patience_ends, size, request.client)

    def send(self, now: Instant) -> None:
        """Pass the request on to the next live replica."""
        self.node = self.left.pop()
        # what time is left, not when it ends: the other node's clock is its own
        timeout = max(self.deadline - now.mono, _LEAST_TIME)
        call = msgspec.structs.replace(self.request.call, timeout=timeout)
        epoch, principal = self._common.ownership.state.epoch, self.request.principal
        self._rpc.send(self.node, Forward(self.number, epoch, call, principal.name))

    def _pass_on(self, now: Instant) -> None:
        self.move(_E.PASSED_ON)
        self.send(now)

    def on_cancelled(self, now: Instant) -> None:
        """The other coordinator goes on until its deadline; its reply finds nobody."""
        self._give_up(now)

    def on_answer(self, node: str, answer: Answer, now: Instant) -> None:
        """The coordinator has replied: so does this node, unless another one can do what that could not.

        Who cannot read its own copy has done nothing, nor has who is about to stop.
        """
        assert isinstance(answer, ForwardReply)
        reply = answer.reply
        if node != self.node:
            return
        if self.left and isinstance(reply, Failed) and isinstance(reply.error, Corruption | NodeStopping):
            self._pass_on(now)
        else:
            self.move(_E.REPLIED)
            self._rpc.forget(self)
            self.answer(reply, now)

    def on_refusal(self, node: str, error: KVError, now: Instant) -> None:
        """The other node did not take the request."""
        self.on_answer(node, ForwardReply(self.number, Failed(error)), now)

    def on_gone(self, node: str, now: Instant) -> None:
        """The other coordinator may not have got the request, or its reply may be lost."""
        if node != self.node:
            return
        if self._may_be_repeated():
            self._pass_on(now)
        else:
            self._give_up(now)

    def _may_be_repeated(self) -> bool:
        """A write may have been carried out already."""
        return not self.request.call.writes and bool(self.left)

    def on_time(self, now: Instant) -> None:
        """Patience: a read tries another replica. Deadline: the outcome stays unknown."""
        if now.mono >= self.deadline:
            self._give_up(now)
            return
        if self._may_be_repeated():
            self._pass_on(now)
        self.wake(min(now.mono + self._common.patience, self.deadline))

    def _give_up(self, now: Instant) -> None:
        self.move(_E.GIVEN_UP)
        self._rpc.forget(self)
        self.fail(timed_out(self.request.call, self.request.bucket), now)
