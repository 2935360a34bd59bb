"""What happens in a cluster, one line per event, for people: virtual time, who, what.

Messages about keys, requests and replies, faults, and what nodes believe of each other; the failure
detector's own messages are left out. Nothing here changes the course of events.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvstore.errors import Corruption, InvalidRequest
from kvstore.protocol.client import ClientRequest, Failed, Found, Reply, Stored, WriteRequest
from kvstore.protocol.peer import (
    Forward,
    ForwardReply,
    RangeDifference,
    RangeItems,
    ReadReply,
    ReadSame,
    ReapCheck,
    Refusal,
    ReplicaRead,
    ReplicaWrite,
    TreeRead,
    WriteAck,
)
from kvstore.protocol.table import PeerMessage
from kvstore.ring import split_data_key
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.requests import Respond
from kvstore.versions import EncodedVersion, InternalKey, decode_version
from kvstore.wire.peer import decode_frame

Write = Callable[[str], None]

_SHOWN = 40


class Transcript:
    """Gives lines to `write` from now on; `beliefs` says whether nodes' opinions of each other are told."""

    def __init__(self, cluster: SimulatedCluster, write: Write, beliefs: bool = True) -> None:
        self._cluster = cluster
        self._write = write
        self._began = cluster.scheduler.now
        self._asked: dict[tuple[str, int], str] = {}
        """What each request between nodes is about: its replies carry only a number."""
        self._comparing: set[tuple[str, str]] = set()
        """Who has found a difference to whom and not asked for trees since: what it sends now are repairs."""
        self._beliefs: dict[tuple[str, str], str] = {}
        cluster.scheduler.listener = partial(self.line, "")
        cluster.network.watch = self._frame
        cluster.watch = self._request
        for name, host in cluster.hosts.items() if beliefs else ():
            host.watch = partial(self._membership, name)
            self._membership(name)

    def line(self, who: str, what: str) -> None:
        """One line, at the time of now."""
        time = self._cluster.scheduler.now - self._began
        self._write(f"{time:9.3f}  {who:<12} {what}".rstrip())

    # clients

    def _request(self, client: str, node: str, call: ClientRequest, respond: Respond) -> Respond:
        self.line(f"{client} > {node}", describe_call(call))

        def replied(reply: Reply | None) -> None:
            self.line(f"{node} > {client}", describe_reply(reply))
            respond(reply)

        return replied

    # nodes

    def _frame(self, sender: str, to: str, frame: bytes) -> None:
        for message in decode_frame(frame):
            try:
                said = self._message(sender, to, message)
            except (InvalidRequest, Corruption):  # made wrong on its way
                said = [f"{type(message).__name__} that is wrong"]
            for what in said:
                self.line(f"{sender} > {to}", what)

    def _message(self, sender: str, to: str, message: PeerMessage) -> list[str]:
        """What a message says; nothing for those that are not about keys."""
        match message:
            case ReplicaWrite():
                self._asked[sender, message.number] = _key(message.key)
                return [
                    f"write {_key(message.key)}: {_version(message.version)}{self._why(sender, to, message)}"
                ]
            case WriteAck(requests):
                return [f"has on its disk: {self._about(to, number)}" for number in requests]
            case ReplicaRead():
                self._asked[sender, message.number] = _key(message.key)
                return [f"read {_key(message.key)}: do you hold the same?"]
            case ReadSame(requests):
                return [f"the same: {self._about(to, number)}" for number in requests]
            case ReadReply(request, version):
                return [f"no: {self._about(to, request)} is {_version(version)}"]
            case Refusal(request, error):
                return [f"refused, {type(error).__name__}: {self._about(to, request)}"]
            case Forward(_, _, call):
                return [f"forward: {describe_call(call)}"]
            case ForwardReply(_, reply):
                return [f"forwarded reply: {describe_reply(reply)}"]
            case RangeItems():
                self._comparing.add((sender, to))
                return [f"partition {message.partition} differs: compare the keys"]
            case RangeDifference(_, versions, wanted):
                return [f"has something new of {len(versions)} keys, lacks something of {len(wanted)}"]
            case TreeRead():
                self._comparing.discard((sender, to))
            case ReapCheck(_, _, candidates, commit) if commit:
                return [f"forget {_key(candidate.key)}" for candidate in candidates]
        return []

    def _why(self, sender: str, to: str, message: ReplicaWrite) -> str:
        if message.hint_for:
            return f" (a hint for {message.hint_for})"
        if not message.background:
            return ""
        return " (a repair)" if (sender, to) in self._comparing else " (a hint that goes home)"

    def _about(self, asker: str, number: int) -> str:
        return self._asked.get((asker, number), "what nobody waits for any more")

    def _membership(self, name: str) -> None:
        """A node's opinion of another has changed."""
        host = self._cluster.hosts[name]
        for member in host.shell.status().members if host.up else ():
            belief = member.status.name.lower()
            before = self._beliefs.get((name, member.node), "alive")
            self._beliefs[name, member.node] = belief
            if belief != before:
                self.line(name, f"{member.node} is {belief}")


def describe_call(call: ClientRequest) -> str:
    """A client's request in a few words."""
    place = f"{call.bucket}/{call.key.decode(errors='replace')}"
    words = f"{type(call).__name__.lower()} {place}"
    if not isinstance(call, WriteRequest):
        return f"{words}{_counts(r=call.r)}"
    if call.stores is None:
        return f"{words}{_counts(w=call.w)}"
    seen = "" if call.context else ", without context"
    return f"{words} = {_value(call.stores)}{_counts(w=call.w)}{seen}"


def describe_reply(reply: Reply | None) -> str:
    """A reply in a few words; None is a connection that broke."""
    match reply:
        case None:
            return "the connection broke"
        case Found(siblings):
            return "found " + (" | ".join(sorted(_value(each.value) for each in siblings)) or "nothing")
        case Stored(_, siblings):
            return "stored" if siblings <= 1 else f"stored, {siblings} siblings"
        case Failed(error):
            return f"{type(error).__name__} ({error.outcome.value}): {error}"


def _counts(**counts: int) -> str:
    return "".join(f", {name}={number}" for name, number in counts.items() if number)


def _key(internal: bytes) -> str:
    _, bucket, key = split_data_key(InternalKey(internal))
    return f"{bucket}/{key.decode(errors='replace')}"


def _version(encoded: bytes) -> str:
    """The siblings by their values: their dots are drawn anew by every start of a node."""
    if not encoded:
        return "nothing"
    siblings = decode_version(EncodedVersion(encoded)).siblings
    return " | ".join(sorted("tombstone" if s.value is None else _value(s.value) for s in siblings))


def _value(value: bytes) -> str:
    text = value.rstrip(b".").decode(errors="replace")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
