"""Who takes which message of another node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from kvstore.node.coordinator import Coordinator
from kvstore.node.liveness import Liveness
from kvstore.node.outbox import Outbox
from kvstore.node.parts import Background, Foundation
from kvstore.node.questions import Questions
from kvstore.node.replica_service import ReplicaService
from kvstore.principal import ANYONE, Principal
from kvstore.protocol.client import Reply, aged
from kvstore.protocol.gossip import Ack, Nack, Ping, PingRequest, PushPull
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import (
    Forward,
    ForwardReply,
    KeyOffer,
    ReadSame,
    Refusal,
    RepairWanted,
    ReplicaRead,
    ReplicaWrite,
    WriteAck,
)
from kvstore.protocol.table import ANSWERS, Handler, PeerMessage, expired
from kvstore.quorum.forward import Repeats

_GOSSIP = (Ping, PingRequest, Ack, Nack, PushPull)


class Router:
    """Of one node. A defect in one message is reported, and keeps nobody else's from being handled."""

    def __init__(
        self,
        outbox: Outbox,
        base: Foundation,
        background: Background,
        coordinator: Coordinator,
        replica_service: ReplicaService,
        liveness: Liveness,
        membership: Mapping[type, Handler],
    ) -> None:
        self._outbox = outbox
        self._base = base
        self._coordinator = coordinator
        self._replica_service = replica_service
        self._forwarded = Repeats()
        self._handlers: dict[type, Handler] = {
            Refusal: self._on_refusal,
            RepairWanted: background.anti_entropy.on_repair_wanted,
            KeyOffer: liveness.on_key_offer,
            **{
                question: Questions(question, answering, outbox, base.placements, base.durability).on_question
                for question, answering in background.questions.items()
            },
            **dict.fromkeys(ANSWERS.keys() - {WriteAck, ReadSame}, self._on_answer),
            **dict.fromkeys(_GOSSIP, liveness.on_message),
            **membership,
        }
        """Of all messages but those that `route` looks at itself."""

    def route(self, sender: str, messages: Sequence[PeerMessage], now: Instant, delay: float) -> None:
        """Hand on the messages of one frame that has waited for `delay` seconds: see Node.on_frame.

        Its writes are carried out together, and then its reads: none of a key that was written before finds
        something old, which it would repair.
        """
        base = self._base
        run, handlers = base.guard.run, self._handlers
        writes: list[ReplicaWrite] = []
        reads: list[ReplicaRead] = []
        for message in messages:
            # by identity: to ask a struct whether it is of another class takes four times as long
            if type(message) is ReplicaWrite:
                writes.append(message)
            elif type(message) is WriteAck or type(message) is ReadSame:
                base.rpc.on_answer_to_all(sender, message, now)
            elif delay and expired(message, delay):
                base.counters.expired += 1
            elif type(message) is ReplicaRead:
                reads.append(message)
            elif type(message) is Forward:
                run(self._on_forward, sender, message, now, delay)
            else:
                run(handlers[type(message)], sender, message, now)
        if writes:
            run(self._replica_service.write, sender, writes, now)
        if reads:
            run(self._replica_service.read, sender, reads, now)

    def _on_answer(self, sender: str, message: Any, now: Instant) -> None:
        self._base.rpc.on_answer(sender, message.number, message, now)

    def _on_refusal(self, sender: str, message: Refusal, now: Instant) -> None:
        self._base.rpc.on_refusal(sender, message.number, message.error, now)

    def _on_forward(self, sender: str, message: Forward, now: Instant, delay: float) -> None:
        if self._forwarded.is_new(sender, message.number):
            respond = partial(self._forward_reply, sender, message.number)
            principal = Principal(message.principal) if message.principal else ANYONE
            self._coordinator.begin(principal, aged(message.request, delay), respond, now, forwarded=True)

    def _forward_reply(self, sender: str, number: int, reply: Reply) -> None:
        self._outbox.send(sender, ForwardReply(number, reply))
