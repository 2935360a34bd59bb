"""What a node does for other coordinators: it stores and shows versions, its own and those of its hints.

Neither an acknowledgement nor a version leaves before it is on the disk: a later read must see it too.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.errors import KVError
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReadReply, ReadSame, Refusal, ReplicaRead, ReplicaWrite, WriteAck
from kvstore.quorum.held_outputs import HeldOutputs
from kvstore.quorum.local import LocalCopy
from kvstore.quorum.outputs import Send
from kvstore.quorum.ownership import Ownership
from kvstore.quorum.replica import Changes
from kvstore.quorum.rpc import Transport
from kvstore.versions import EncodedVersion, check_version, digest


class ReplicaService:
    """Of one node."""

    def __init__(
        self,
        transport: Transport,
        local: LocalCopy,
        durability: HeldOutputs,
        ownership: Ownership,
    ) -> None:
        self._send = transport.send
        self._local = local
        self._durability = durability
        self._ownership = ownership

    def write(self, sender: str, writes: Sequence[ReplicaWrite], now: Instant) -> None:
        """Store the versions of one frame in one batch; one ack follows for all, when it is durable."""
        taken: list[int] = []
        changes: Changes = {}
        last_lsn = 0
        epoch, wall, prepare = self._ownership.state.epoch, now.wall, self._local.replica.prepare
        for message in writes:
            try:
                if message.epoch != epoch:
                    self._ownership.check_epoch(message.epoch, message.key)
                if message.hint_for:
                    lsn = self._local.store(message.key, message.version, message.hint_for)
                else:
                    lsn = prepare(message.key, message.version, changes, 0 if message.background else wall)
            except KVError as error:
                self._send(sender, Refusal(message.number, error))
            else:
                taken.append(message.number)
                if lsn > last_lsn:
                    last_lsn = lsn
        if changes:
            try:
                last_lsn = self._local.replica.replace(changes)
            except KVError as error:
                for request in taken:
                    self._send(sender, Refusal(request, error))
                return
        if taken:
            self._durability.after(last_lsn, Send(sender, WriteAck(tuple(taken))), now)

    def read(self, sender: str, message: ReplicaRead, now: Instant) -> None:
        """Tell what is stored here, or that it is the same."""
        replica, ownership = self._local.replica, self._ownership
        try:
            if message.epoch != ownership.state.epoch:
                ownership.check_epoch(message.epoch, message.key)
            if message.hint_for:
                version = self._local.hints.read(message.hint_for, message.key)
                lsn = self._durability.last
            else:
                version = replica.read(message.key)
                lsn = replica.unsynced(message.key)
            answer = _answer(message, version)
        except KVError as error:
            self._send(sender, Refusal(message.number, error))
            return
        self._durability.after(lsn, Send(sender, answer), now)


def _answer(asked: ReplicaRead, version: EncodedVersion) -> ReadSame | ReadReply:
    """What a node that holds `version` says; raises Corruption for one that the asker would refuse."""
    if digest(version) == asked.digest:
        return ReadSame(asked.number)
    if version:
        check_version(version)
    return ReadReply(asked.number, version)
