"""The coordinator: admits clients' requests, chooses who carries them out, and counts their replies.

The way of a put: `begin` -> Puts.put -> Writes.write; at the end of the turn, with all others of it,
Writes.carry_out (read here, mint a dot, append here) -> WriteOperation (send, count acknowledgements) ->
reply. Of a get: `begin` -> Gets.get -> ReadOperation (digests, repair) -> reply.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial

from kvstore.config import Limits, QuorumSettings
from kvstore.errors import Corruption, KVError, NodeStopping, StaleRing
from kvstore.principal import Principal
from kvstore.protocol.client import ClientRequest, Failed, Reply
from kvstore.protocol.instant import Instant
from kvstore.quorum.admission import Admission
from kvstore.quorum.counters import Counters
from kvstore.quorum.forward import Forwards
from kvstore.quorum.guard import Guard, told
from kvstore.quorum.operation import Respond
from kvstore.quorum.placement import Placements
from kvstore.quorum.relief import Relief
from kvstore.quorum.request import Operations, Request, admit, check_available
from kvstore.quorum.rpc import Rpc

_STOPPING = Failed(NodeStopping())


class Coordinator:
    """One node's part in all requests that it coordinates."""

    def __init__(
        self,
        operations: Operations,
        carry_out_writes: Callable[[Instant], None],
        forwards: Forwards,
        placements: Placements,
        admission: Admission,
        rpc: Rpc,
        counters: Counters,
        guard: Guard,
        settings: QuorumSettings,
        limits: Limits,
    ) -> None:
        self._operations = operations
        self.end_turn = carry_out_writes
        """Called at the end of each turn of the node: the writes of it are carried out together."""
        self._forwards = forwards
        self._placements = placements
        self._admission = admission
        self._relief = Relief(rpc, guard)
        self._rpc = rpc
        self._counters = counters
        self._guard = guard
        self._settings = settings
        self._limits = limits
        self._replies = 0
        self.stopping = False
        """Whether requests are refused from now on; those under way go on."""

    def begin(
        self,
        principal: Principal,
        call: ClientRequest,
        respond: Callable[[Reply], None],
        now: Instant,
        client: int = 0,
        forwarded: bool = False,
    ) -> None:
        """Take a client's request; exactly one reply goes to `respond`, now or later.

        `client` is the request's number with whoever runs this node, for `cancel`.
        """
        admission, counters = self._admission, self._counters
        setattr(counters, call.counter, getattr(counters, call.counter) + 1)
        if self.stopping:
            counters.errors += 1
            respond(_STOPPING)
            return
        if admission.bytes >= admission.strained_bytes:
            counters.hinted_early += self._relief.relieve(now)
        if refusal := admission.take(call.timeout or self._settings.default_timeout, now.mono):
            respond(refusal)
            return
        answered = partial(self._answered, respond, now.mono)
        replies = self._replies
        try:
            request = admit(
                principal, call, self._placements, self._limits, self._settings, now, client, forwarded
            )
            self._start(request, answered)
        except KVError as error:
            answered(Failed(error), now)
        except Exception as error:  # noqa: BLE001  (a defect: nobody else's request may suffer from it)
            if self._replies == replies:
                answered(Failed(told(error)), now)
            self._guard.report(error)

    def cancel(self, clients: Container[int], now: Instant) -> None:
        """The clients of these numbers have left: no more is done for their requests than must be."""
        self._counters.cancelled += self._rpc.cancel(clients, now)

    def _answered(self, respond: Callable[[Reply], None], since: float, reply: Reply, now: Instant) -> None:
        admission = self._admission
        self._replies += 1
        admission.unanswered -= 1
        if type(reply) is Failed:
            self._counters.errors += 1
        else:
            admission.worked(now.mono - since)
        respond(reply)

    def _start(self, request: Request, respond: Respond) -> None:
        placement = request.placement
        if not placement.coordinates:
            if request.forwarded and not placement.here:
                raise StaleRing(self._placements.state.epoch)
            if self._forwards.pass_on(request, respond):
                return
        check_available(request)
        try:
            self._carry_out(request, respond)
        except Corruption:
            if not self._forwards.pass_on(request, respond):
                raise

    def _carry_out(self, request: Request, respond: Respond) -> None:
        self._operations[type(request.call)](request, request.call, respond)
