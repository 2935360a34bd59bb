"""Questions of other nodes that one call answers: the answer is sent, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kvstore.errors import KVError
from kvstore.node.outbox import Outbox
from kvstore.protocol.fields import Kind, fields_of, is_record
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import Refusal
from kvstore.quorum.background.answering import Answering
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.outputs import Send
from kvstore.quorum.ownership import Ownership
from kvstore.versions import InternalKey

_Partitions = Callable[[Any, Ownership], Iterator[int]]


class Questions:
    """Of one type, put to one node."""

    def __init__(
        self,
        question: type,
        answering: Answering,
        outbox: Outbox,
        ownership: Ownership,
        held_outputs: HeldOutputs,
    ) -> None:
        self._answering = answering
        self._outbox = outbox
        self._ownership = ownership
        self._held_outputs = held_outputs
        self._partitions = partitions_of(question)

    def on_question(self, sender: str, message: Any, now: Instant) -> None:
        """Answer one; it is refused when a partition that it is about has other replicas now."""
        ownership, held_outputs = self._ownership, self._held_outputs
        try:
            ownership.check_epoch_of(message.epoch, self._partitions(message, ownership))
            answered = self._answering.answer(sender, message, now)
        except KVError as error:
            self._outbox.send(sender, Refusal(message.number, error))
            return
        lsn = held_outputs.last if self._answering.durable else 0
        held_outputs.after(lsn, Send(sender, answered), now)


def partitions_of(record: type) -> _Partitions:
    """What tells the partitions that messages of a type are about, by the kinds of their fields.

    Raises TypeError for a type that names neither partitions nor keys.
    """
    for field in fields_of(record):
        read = _BY_KIND.get(field.kind)
        if read is None and len(field.types) == 1 and is_record(field.type):
            read = partitions_of(field.type)
        if read is not None:
            return _of_field(field.name, read, field.many)
    raise TypeError(f"{record.__name__} does not say which partitions it is about")


def _of_field(name: str, read: _Partitions, many: bool) -> _Partitions:
    def partitions(message: Any, ownership: Ownership) -> Iterator[int]:
        value = getattr(message, name)
        for item in value if many else (value,):
            yield from read(item, ownership)

    return partitions


def _itself(partition: int, _ownership: Ownership) -> Iterator[int]:
    yield partition


def _of_key(key: InternalKey, ownership: Ownership) -> Iterator[int]:
    yield ownership.partition(key)


_BY_KIND: dict[Kind | None, _Partitions] = {Kind.PARTITION: _itself, Kind.INTERNAL_KEY: _of_key}
