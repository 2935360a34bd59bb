"""What a node does for other coordinators: it stores and shows versions, its own and those of its hints.

Neither an acknowledgement nor a version leaves before it is on the disk: a later read must see it too.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.errors import KVError
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReadReply, ReadSame, Refusal, ReplicaRead, ReplicaWrite, WriteAck
from kvstore.quorum.guard import Guard
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
        guard: Guard,
    ) -> None:
        self._send = transport.send
        self._local = local
        self._durability = durability
        self._ownership = ownership
        self._guard = guard

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

    def read(self, sender: str, reads: Sequence[ReplicaRead], now: Instant) -> None:
        """Tell of each key of one frame what is stored here, or that it is the same.

        Those that are the same, and on the disk, are told of in one message.
        """
        same: list[int] = []
        for message in reads:
            try:
                version, lsn = self._stored(message)
                if digest(version) != message.digest:
                    answer = ReadReply(message.number, _sendable(version))
                    self._durability.after(lsn, Send(sender, answer), now)
                elif lsn and self._durability.must_wait(lsn):
                    self._durability.after(lsn, Send(sender, ReadSame((message.number,))), now)
                else:
                    same.append(message.number)
            except KVError as error:
                self._send(sender, Refusal(message.number, error))
            except Exception as error:  # noqa: BLE001  (a defect: the other reads have nothing to do with it)
                self._guard.report(error)
        if same:
            self._send(sender, ReadSame(tuple(same)))

    def _stored(self, asked: ReplicaRead) -> tuple[EncodedVersion, int]:
        """What was asked for, and the LSN that must be durable before it may be shown (0: it is)."""
        ownership = self._ownership
        if asked.epoch != ownership.state.epoch:
            ownership.check_epoch(asked.epoch, asked.key)
        if asked.hint_for:
            return self._local.hints.read(asked.hint_for, asked.key), self._durability.last
        replica = self._local.replica
        return replica.read(asked.key), replica.unsynced(asked.key)


def _sendable(version: EncodedVersion) -> EncodedVersion:
    """The version; raises Corruption for one that the asker would refuse."""
    if version:
        check_version(version)
    return version
