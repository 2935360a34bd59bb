"""The streams of one simulated host to the others: what kvstore.server.links and .stream are under gRPC.

Two connections to each peer, one of them for bulk. One that breaks is made anew after a backoff; what was
queued on it is lost, and the node is told, as it is of what was dropped. The receiver's flow control holds
what it does not read back at the sender, whose queue is the real one (kvstore.wire.queue) and bounded.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol

from kvstore.protocol.sizes import size_of
from kvstore.protocol.table import PeerMessage, awaited, is_bulk
from kvstore.sim.network import Connection, Network
from kvstore.sim.process import Later
from kvstore.wire.peer import encode_frame
from kvstore.wire.queue import PeerQueue

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_HANDSHAKE_SECONDS, _HANDSHAKE_STEP = 2.0, 0.1
KEEPALIVE_SECONDS, KEEPALIVE_PATIENCE = 10.0, 5.0
"""How often a connection is tried, and how long it may take to answer: kvstore.server.options."""


class Owner(Protocol):
    """The host at whose node the streams begin."""

    def on_link_open(self, peer: str) -> None:
        """A stream to a peer is connected."""

    def on_link_lost(self, peer: str) -> None:
        """A stream to a peer broke."""

    def on_unsent(self, peer: str, numbers: Sequence[int]) -> None:
        """The questions to a peer with these numbers were dropped."""

    def clock_ms(self) -> int:
        """The host's monotonic clock in milliseconds."""


class Stream:
    """One outgoing stream. `later` runs things in the host unless it dies before."""

    def __init__(
        self, name: str, peer: str, network: Network, owner: Owner, later: Later, rng: random.Random
    ) -> None:
        self._name = name
        self._peer = peer
        self._network = network
        self._owner = owner
        self._later = later
        self._rng = rng
        self._pause = _FIRST_PAUSE
        self._waits = self._left = False
        self._connection: Connection | None = None
        self.is_new = True
        self.queue = PeerQueue(network.limits.queue)
        self.counts: Counter[str] = Counter()

    # connecting

    def connect(self) -> None:
        """Begin a handshake; it may take its time, fail and be tried again."""
        self.is_new = False
        if self._left:
            return
        network = self._network
        seconds = network.way(self._rng, self._name, self._peer)
        seconds += network.way(self._rng, self._peer, self._name)
        self._later(
            min(seconds, _HANDSHAKE_SECONDS), partial(self._shake_hands, _HANDSHAKE_SECONDS - seconds)
        )

    def _shake_hands(self, patience: float) -> None:
        network, peer = self._network, self._peer
        passes, life = network.passes(self._name, peer), network.life(peer)
        if patience >= 0 and passes and life and network.listens(peer):
            self._open(life)
        elif patience < 0 or (passes and not life):  # no answer, or refused at once
            self._connect_later()
        else:
            self._later(_HANDSHAKE_STEP, partial(self._shake_hands, patience - _HANDSHAKE_STEP))

    def _connect_later(self) -> None:
        self._later(self._pause * self._rng.uniform(0.8, 1.2), self.connect)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _open(self, life: int) -> None:
        self._pause = _FIRST_PAUSE
        self.counts["connections"] += 1
        self._connection = connection = Connection(self._name, self._peer, life, self._was_read)
        connection.on_broken = partial(self._later, 0.0, partial(self._broken, connection))
        self.queue.open = True
        self._later(KEEPALIVE_SECONDS, partial(self._keep_alive, connection))
        self._owner.on_link_open(self._peer)

    # being connected

    def send(self, message: PeerMessage, size: int) -> None:
        """Queue a message; who waits for an answer to it is told when it was dropped."""
        queue = self.queue
        if not queue.put(message, size) and len(queue.unsent) == 1:
            self._later(0.0, self._tell)

    def _tell(self) -> None:
        if unsent := self.queue.take_unsent():
            self._owner.on_unsent(self._peer, unsent)

    def write(self) -> None:
        """Write what is queued, as far as the receiver takes it."""
        connection, queue, network = self._connection, self.queue, self._network
        while connection is not None and queue:
            if connection.unread >= network.limits.window:
                if not self._waits:
                    self.counts["waits for a reader"] += 1
                self._waits = True
                return
            frame = encode_frame(queue.take(), self._owner.clock_ms())
            network.send(connection, frame)
        self._waits = False

    def _was_read(self) -> None:
        if self._waits:
            self._later(0.0, self.write)

    def _keep_alive(self, connection: Connection, tried: bool = False) -> None:
        """A keepalive that is not answered in time ends the connection: nobody else would tell."""
        if connection is not self._connection:
            return
        if self._network.answers(connection):
            self._later(KEEPALIVE_SECONDS, partial(self._keep_alive, connection))
        elif tried:
            self.counts["keepalives unanswered"] += 1
            self.break_off()
        else:
            self._later(KEEPALIVE_PATIENCE, partial(self._keep_alive, connection, True))

    # how it ends

    def leave(self) -> None:
        """The peer is a member no more: end the connection, and make none again."""
        self._left = True
        if self._connection is not None:
            self._later(0.0, partial(self._broken, self._connection))

    def forget(self) -> None:
        """The connection becomes half-open: this side believes in it, and nothing arrives."""
        if self._connection is not None:
            self._connection.forgotten = True

    def remember(self) -> None:
        """A half-open connection is noticed at once."""
        if self._connection is not None and self._connection.forgotten:
            self.break_off()

    def break_off(self) -> None:
        """The connection breaks, and with it what waits; what is under way may yet be read, or not."""
        if self._connection is not None:
            self._connection.lost |= self._rng.random() < 0.5
            self._broken(self._connection)

    def _broken(self, connection: Connection) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        self._waits = False
        self.counts["connections broken"] += 1
        self.queue.close()
        self._owner.on_link_lost(self._peer)
        self._connect_later()


class Links:
    """All streams of one life of a host."""

    def __init__(
        self,
        name: str,
        peers: Sequence[str],
        network: Network,
        owner: Owner,
        later: Later,
        rng: random.Random,
    ) -> None:
        self._later = later
        self._owner = owner
        self._make = partial(_streams, name, network=network, owner=owner, later=later, rng=rng)
        self._streams = {peer: self._make(peer) for peer in peers}
        self._unwritten: dict[Stream, None] = {}

    def open(self) -> None:
        """Begin to connect to all peers."""
        for stream in self.all():
            stream.connect()

    def on_state(self, peers: Iterable[str]) -> None:
        """These are the peers now."""
        present = self._streams
        self._streams = {p: present.pop(p) if p in present else self._make(p) for p in peers}
        for stream in (stream for pair in present.values() for stream in pair):
            stream.leave()
        for stream in self.all():
            if stream.is_new:
                stream.connect()

    def send(self, to: str, message: PeerMessage) -> None:
        """See Outbox: all messages of one turn leave together."""
        streams = self._streams.get(to)
        if streams is None:  # a member no more
            number = awaited(message)
            if number is not None:
                self._later(0.0, partial(self._owner.on_unsent, to, [number]))
            return
        size = size_of(message)
        stream = streams[is_bulk(message, size)]
        if not self._unwritten:
            self._later(0.0, self._write)
        self._unwritten[stream] = None
        stream.send(message, size)

    def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        for stream in unwritten:
            stream.write()

    def streams(self, *peers: str) -> list[Stream]:
        """Those to some peers."""
        return [stream for peer in peers for stream in self._streams[peer]]

    def all(self) -> list[Stream]:
        """Those to all peers."""
        return self.streams(*self._streams)

    def break_off(self, peer: str) -> None:
        """Both connections to a peer break."""
        for stream in self.streams(peer):
            stream.break_off()

    def counts(self) -> Counter[str]:
        """What all streams have met."""
        total = sum((stream.counts for stream in self.all()), Counter[str]())
        total["messages dropped"] += sum(stream.queue.dropped for stream in self.all())
        return total

    def most_queued_bytes(self) -> int:
        """The most that has waited on any stream."""
        return max((stream.queue.most_bytes for stream in self.all()), default=0)


def _streams(
    name: str, peer: str, network: Network, owner: Owner, later: Later, rng: random.Random
) -> tuple[Stream, Stream]:
    """Those to one peer: for what is urgent, and for bulk."""
    one, other = (Stream(name, peer, network, owner, later, rng) for _ in range(2))
    return one, other
