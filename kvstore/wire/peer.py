"""Frames between nodes: a batch of messages as bytes and back.

On the hot path, hence the plain loop: messages are sorted into the frame's lists by their type, and
acknowledgements, most of all messages, are packed numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from kvstore.errors import InvalidRequest
from kvstore.gossip import MAX_INCARNATION, Status, Update
from kvstore.gossip.messages import Ack, Nack, Ping, PingRequest, PushPull
from kvstore.node.outbox import PeerMessage
from kvstore.protocol.messages import (
    Candidate,
    Forward,
    ForwardReply,
    KeyOffer,
    NodeHash,
    RangeDifference,
    RangeItems,
    ReadReply,
    ReadSame,
    ReapCheck,
    ReapConfirm,
    Refusal,
    RepairWanted,
    ReplicaRead,
    ReplicaWrite,
    TreeHashes,
    TreeNode,
    TreeRead,
    WriteAck,
)
from kvstore.v1 import peer_pb2 as pb
from kvstore.wire.client import call_from_wire, fill_call, fill_reply, reply_from_wire
from kvstore.wire.errors import error_from_wire, error_to_wire

_STATUS_NUMBERS: dict[Status, pb.Status] = {
    Status.ALIVE: pb.STATUS_ALIVE,
    Status.SUSPECT: pb.STATUS_SUSPECT,
    Status.DEAD: pb.STATUS_DEAD,
}
_STATUSES: dict[int, Status] = {number: status for status, number in _STATUS_NUMBERS.items()}


def encode_frame(messages: Sequence[PeerMessage], sent_ms: int = 0) -> bytes:
    """One frame with all `messages`, sent now by the sender's clock; what order they had is not kept."""
    frame = pb.Frame(sent_ms=sent_ms)
    plain: list[ReplicaWrite] = []
    for message in messages:
        if type(message) is ReplicaWrite and not message.hint_for and not message.replay:
            plain.append(message)
        else:
            _ADD[type(message)](frame, message)
    if plain:
        _add_plain_writes(frame, plain)
    return frame.SerializeToString()


def decode_frame(data: bytes) -> list[PeerMessage]:
    """The messages of a frame, whenever it was sent; raises InvalidRequest when the bytes are none."""
    return decode_timed_frame(data)[1]


def decode_timed_frame(data: bytes) -> tuple[int, list[PeerMessage]]:
    """Inverse of `encode_frame`: when it was sent, and the messages; raises InvalidRequest."""
    try:
        frame = pb.Frame.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("frame", str(error)) from error
    messages: list[PeerMessage] = _plain_writes(frame.plain_writes)
    messages += [
        ReplicaWrite(m.request, m.epoch, m.key, m.version, m.hint_for, m.replay) for m in frame.writes
    ]
    if frame.write_acks:
        messages.append(WriteAck(tuple(frame.write_acks)))
    messages += [ReplicaRead(m.request, m.epoch, m.key, m.digest, m.hint_for, m.ttl_ms) for m in frame.reads]
    messages += map(ReadSame, frame.read_sames)
    messages += [ReadReply(m.request, m.version) for m in frame.read_replies]
    messages += [Refusal(m.request, error_from_wire(m.error)) for m in frame.refusals]
    messages += [Forward(m.request, m.epoch, call_from_wire(m)) for m in frame.forwards]
    messages += [ForwardReply(m.request, reply_from_wire(m)) for m in frame.forward_replies]
    messages += map(_tree_read, frame.tree_reads)
    messages += map(_tree_hashes, frame.tree_hashes)
    messages += [
        RangeItems(m.request, m.epoch, m.partition, m.n, m.leaves, m.after, m.until, m.items)
        for m in frame.range_items
    ]
    messages += map(_range_difference, frame.range_differences)
    messages += [RepairWanted(m.epoch, m.partition, m.n, m.node) for m in frame.repairs_wanted]
    messages += map(_reap_check, frame.reap_checks)
    messages += [ReapConfirm(m.request, tuple(m.positions)) for m in frame.reap_confirms]
    messages += [KeyOffer(tuple(m.keys)) for m in frame.key_offers]
    messages += [Ping(m.sequence, m.target, _updates(m.updates)) for m in frame.pings]
    messages += [PingRequest(m.sequence, m.target, _updates(m.updates)) for m in frame.ping_requests]
    messages += [Ack(m.sequence, _updates(m.updates)) for m in frame.acks]
    messages += [Nack(m.sequence, _updates(m.updates)) for m in frame.nacks]
    messages += [PushPull(_updates(m.updates), m.reply) for m in frame.push_pulls]
    return frame.sent_ms, messages


def _add_plain_writes(frame: pb.Frame, writes: list[ReplicaWrite]) -> None:
    columns = frame.plain_writes
    columns.requests.extend([m.request for m in writes])
    columns.epochs.extend([m.epoch for m in writes])
    columns.keys.extend([m.key for m in writes])
    columns.versions.extend([m.version for m in writes])


def _plain_writes(columns: pb.PlainWrites) -> list[PeerMessage]:
    fields = columns.requests, columns.epochs, columns.keys, columns.versions
    _same_length("plain write", *fields)
    return list(map(ReplicaWrite, *fields))


def _add_write(frame: pb.Frame, m: ReplicaWrite) -> None:
    added = frame.writes.add(request=m.request, epoch=m.epoch, key=m.key, version=m.version)
    if m.hint_for:
        added.hint_for = m.hint_for
    if m.replay:
        added.replay = True


def _add_write_ack(frame: pb.Frame, m: WriteAck) -> None:
    frame.write_acks.extend(m.requests)


def _add_read(frame: pb.Frame, m: ReplicaRead) -> None:
    added = frame.reads.add(request=m.request, epoch=m.epoch, key=m.key, digest=m.digest, ttl_ms=m.ttl_ms)
    if m.hint_for:
        added.hint_for = m.hint_for


def _add_read_same(frame: pb.Frame, m: ReadSame) -> None:
    frame.read_sames.append(m.request)


def _add_read_reply(frame: pb.Frame, m: ReadReply) -> None:
    frame.read_replies.add(request=m.request, version=m.version)


def _add_refusal(frame: pb.Frame, m: Refusal) -> None:
    frame.refusals.add(request=m.request, error=error_to_wire(m.error))


def _add_forward(frame: pb.Frame, m: Forward) -> None:
    fill_call(frame.forwards.add(request=m.request, epoch=m.epoch), m.call)


def _add_forward_reply(frame: pb.Frame, m: ForwardReply) -> None:
    fill_reply(frame.forward_replies.add(request=m.request), m.reply)


def _add_tree_read(frame: pb.Frame, m: TreeRead) -> None:
    partitions, ns, numbers = zip(*m.nodes, strict=True) if m.nodes else ((), (), ())
    frame.tree_reads.add(request=m.request, epoch=m.epoch, partitions=partitions, ns=ns, numbers=numbers)


def _tree_read(m: pb.TreeRead) -> TreeRead:
    _same_length("tree read", m.partitions, m.ns, m.numbers)
    return TreeRead(m.request, m.epoch, tuple(map(TreeNode, m.partitions, m.ns, m.numbers)))


def _add_tree_hashes(frame: pb.Frame, m: TreeHashes) -> None:
    known = [node or NodeHash(0, 0) for node in m.hashes]
    frame.tree_hashes.add(
        request=m.request,
        sums=[node.sum for node in known],
        items=[node.items for node in known],
        unknown=[i for i, node in enumerate(m.hashes) if node is None],
    )


def _tree_hashes(m: pb.TreeHashes) -> TreeHashes:
    _same_length("tree hashes", m.sums, m.items)
    unknown = set(m.unknown)
    known = map(NodeHash, m.sums, m.items)
    return TreeHashes(m.request, tuple(None if i in unknown else node for i, node in enumerate(known)))


def _add_range_items(frame: pb.Frame, m: RangeItems) -> None:
    frame.range_items.add(
        request=m.request,
        epoch=m.epoch,
        partition=m.partition,
        n=m.n,
        leaves=m.leaves,
        after=m.after,
        until=m.until,
        items=m.items,
    )


def _add_range_difference(frame: pb.Frame, m: RangeDifference) -> None:
    frame.range_differences.add(
        request=m.request,
        keys=[key for key, _ in m.versions],
        versions=[version for _, version in m.versions],
        wanted=m.wanted,
        reached=m.reached,
    )


def _range_difference(m: pb.RangeDifference) -> RangeDifference:
    _same_length("range difference", m.keys, m.versions)
    versions = tuple(zip(m.keys, m.versions, strict=True))
    return RangeDifference(m.request, versions, tuple(m.wanted), m.reached)


def _add_repair_wanted(frame: pb.Frame, m: RepairWanted) -> None:
    frame.repairs_wanted.add(epoch=m.epoch, partition=m.partition, n=m.n, node=m.node)


def _add_reap_check(frame: pb.Frame, m: ReapCheck) -> None:
    frame.reap_checks.add(
        request=m.request,
        epoch=m.epoch,
        keys=[candidate.key for candidate in m.candidates],
        digests=[candidate.digest for candidate in m.candidates],
        commit=m.commit,
    )


def _reap_check(m: pb.ReapCheck) -> ReapCheck:
    _same_length("reap check", m.keys, m.digests)
    return ReapCheck(m.request, m.epoch, tuple(map(Candidate, m.keys, m.digests)), m.commit)


def _add_reap_confirm(frame: pb.Frame, m: ReapConfirm) -> None:
    frame.reap_confirms.add(request=m.request, positions=m.positions)


def _add_key_offer(frame: pb.Frame, m: KeyOffer) -> None:
    frame.key_offers.add(keys=m.keys)


def _same_length(what: str, *columns: Sequence[object]) -> None:
    if len({len(column) for column in columns}) != 1:
        raise InvalidRequest("frame", f"the columns of a {what} are incomplete")


def _add_ping(frame: pb.Frame, m: Ping) -> None:
    frame.pings.add(sequence=m.sequence, target=m.target, updates=_members(m.updates))


def _add_ping_request(frame: pb.Frame, m: PingRequest) -> None:
    frame.ping_requests.add(sequence=m.sequence, target=m.target, updates=_members(m.updates))


def _add_ack(frame: pb.Frame, m: Ack) -> None:
    frame.acks.add(sequence=m.sequence, updates=_members(m.updates))


def _add_nack(frame: pb.Frame, m: Nack) -> None:
    frame.nacks.add(sequence=m.sequence, updates=_members(m.updates))


def _add_push_pull(frame: pb.Frame, m: PushPull) -> None:
    frame.push_pulls.add(updates=_members(m.updates), reply=m.reply)


def _members(updates: Sequence[Update]) -> list[pb.MemberUpdate]:
    return [
        pb.MemberUpdate(node=u.node, status=status_to_wire(u.status), incarnation=u.incarnation)
        for u in updates
    ]


def _updates(members: Iterable[pb.MemberUpdate]) -> tuple[Update, ...]:
    try:
        # saturating, and not refused: one mad claim must not cost the frame, or the link, of who passes it on
        return tuple(
            Update(m.node, _STATUSES[m.status], min(m.incarnation, MAX_INCARNATION)) for m in members
        )
    except KeyError as error:
        raise InvalidRequest("frame", f"{error} is no status of a member") from error


def status_to_wire(status: Status) -> pb.Status:
    """A member's status as the protocol numbers it."""
    return _STATUS_NUMBERS[status]


_ADD: dict[type, Callable[[pb.Frame, Any], None]] = {
    ReplicaWrite: _add_write,
    WriteAck: _add_write_ack,
    ReplicaRead: _add_read,
    ReadSame: _add_read_same,
    ReadReply: _add_read_reply,
    Refusal: _add_refusal,
    Forward: _add_forward,
    ForwardReply: _add_forward_reply,
    TreeRead: _add_tree_read,
    TreeHashes: _add_tree_hashes,
    RangeItems: _add_range_items,
    RangeDifference: _add_range_difference,
    RepairWanted: _add_repair_wanted,
    ReapCheck: _add_reap_check,
    ReapConfirm: _add_reap_confirm,
    KeyOffer: _add_key_offer,
    Ping: _add_ping,
    PingRequest: _add_ping_request,
    Ack: _add_ack,
    Nack: _add_nack,
    PushPull: _add_push_pull,
}
