"""A network that loses, delays, repeats and reorders frames, whose links clog, and that can be split."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvstore.config import KIB, MAX_MESSAGE_BYTES
from kvstore.node.transit import Transit
from kvstore.sim.scheduler import Scheduler
from kvstore.sim.wrong_frames import make_wrong
from kvstore.wire.queue import LIMITS, QueueLimits

Link = tuple[str, str]
"""Sender and receiver: each direction may fail by itself."""

_RESET_SECONDS = 0.001


@dataclass(slots=True)
class Conditions:
    """Of the network: probabilities per frame, delays in seconds. Unequal delays reorder frames.

    `wrong` frames have a value that no node should ever send.
    """

    loss: float = 0.0
    repeat: float = 0.0
    wrong: float = 0.0
    least_delay: float = 0.0002
    most_delay: float = 0.002


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of every stream between two hosts, in bytes."""

    queue: QueueLimits = LIMITS
    """Of what waits at the sender."""
    window: int = 64 * KIB
    """Of what was sent and not read: HTTP/2's flow control holds the sender back."""
    message: int = MAX_MESSAGE_BYTES
    """Of a frame: its receiver ends the stream on which a larger one comes."""


SMALL = StreamLimits(QueueLimits(frame=8 * KIB, queue=48 * KIB, short=2 * KIB), window=4 * KIB)
"""So that the runs reach them."""
SMALL_MESSAGE = 32 * KIB
"""More than any message of a run needs, and less than a queue holds."""
_LARGE_SHARE = 0.25


class Connection:
    """One stream of a sender to a receiver, from its handshake until it breaks."""

    __slots__ = (
        "forgotten",
        "life",
        "lost",
        "on_broken",
        "on_read",
        "receiver",
        "sender",
        "transit",
        "unread",
    )

    def __init__(self, sender: str, receiver: str, life: int, on_read: Callable[[], None]) -> None:
        self.sender = sender
        self.receiver = receiver
        self.life = life
        """Which life of the receiver has taken it: a later one knows nothing of it."""
        self.on_read = on_read
        """Told whenever the receiver has read something."""
        self.on_broken: Callable[[], None] = on_read
        """Told, at the sender, when the receiver has ended the connection."""
        self.transit = Transit()
        """What the receiver knows of how long frames are on their way."""
        self.unread = 0
        """Bytes that were sent and not read yet: flow control bounds them."""
        self.lost = False
        """What is still under way never arrives."""
        self.forgotten = False
        """Something on the way has forgotten it, without a word: what is sent vanishes."""


class SentFrame:
    """A frame on its way, once or several times."""

    __slots__ = ("connection", "frame", "number", "taken")

    def __init__(self, connection: Connection, frame: bytes, number: int) -> None:
        self.connection = connection
        self.frame = frame
        self.number = number
        self.taken = False
        connection.unread += len(frame)

    def read(self) -> None:
        """The receiver has read it, or it was lost in a way that does not hold up what follows."""
        if not self.taken:
            self.taken = True
            self.connection.unread -= len(self.frame)
            self.connection.on_read()


Receive = Callable[[SentFrame], None]
Watch = Callable[[str, str, bytes], None]


class Network:
    """Carries frames between hosts. `cut` links lose them, clogged ones keep them for later."""

    def __init__(self, scheduler: Scheduler, rng: random.Random) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self._hosts: dict[str, tuple[Receive, Callable[[], bool]]] = {}
        self._lives: Counter[str] = Counter()
        self._clogged: dict[Link, list[SentFrame]] = {}
        self._sent = 0
        self._newest: dict[Link, int] = {}
        self.conditions = Conditions()
        self.cut: set[Link] = set()
        self.slow: dict[str, float] = {}
        """How many times as long as usual the frames from and to a host take."""
        self.limits = StreamLimits()
        """Those of streams that hosts open when they start; of messages at once."""
        self.largest = 0
        """Bytes of the largest frame so far."""
        self.counts: Counter[str] = Counter()
        self.watch: Watch | None = None
        """Told of every frame that arrives, for transcripts."""

    def attach(self, host: str, receive: Receive, runs: Callable[[], bool]) -> None:
        """From now on frames to `host` are given to `receive`; `runs` tells whether its process does."""
        self._lives[host] += 1
        self._hosts[host] = receive, runs

    def detach(self, host: str) -> None:
        """The host is down: frames to it are lost."""
        self._hosts.pop(host, None)

    def life(self, host: str) -> int:
        """How often a host has been attached; 0 while it is down."""
        return self._lives[host] if host in self._hosts else 0

    def listens(self, host: str) -> bool:
        """Whether the process of a host runs, and so answers handshakes and keepalives."""
        return host in self._hosts and self._hosts[host][1]()

    def passes(self, a: str, b: str) -> bool:
        """Whether packets come through between two hosts, both ways, as a connection needs it."""
        ways = {(a, b), (b, a)}
        return not (ways & self.cut or ways & self._clogged.keys())

    def answers(self, connection: Connection) -> bool:
        """Whether the other end of a connection is there and its answers come through."""
        return (
            not (connection.forgotten or connection.lost)
            and self.life(connection.receiver) == connection.life
            and self.listens(connection.receiver)
            and self.passes(connection.sender, connection.receiver)
        )

    def way(self, rng: random.Random, sender: str, to: str) -> float:
        """How long something takes from one host to another now, in seconds."""
        delay = rng.uniform(self.conditions.least_delay, self.conditions.most_delay)
        return delay * max(self.slow.get(sender, 1.0), self.slow.get(to, 1.0)) if self.slow else delay

    def end(self, connection: Connection) -> None:
        """The receiver ends a connection; the sender learns of it, if anything comes through to it."""
        connection.lost = True
        if (connection.receiver, connection.sender) not in self.cut:
            self._scheduler.after(_RESET_SECONDS, connection.on_broken)

    def clog(self, sender: str, to: str) -> None:
        """Let nothing through on a link for a while, and lose nothing."""
        self._clogged.setdefault((sender, to), [])

    def unclog(self) -> None:
        """All that has waited on clogged links arrives now, in order."""
        clogged, self._clogged = self._clogged, {}
        for sent_frames in clogged.values():
            for sent_frame in sent_frames:
                self._scheduler.after(0.0, partial(self._deliver, sent_frame))

    def send(self, connection: Connection, frame: bytes) -> None:
        """Send a frame; it may arrive once, twice or never."""
        self.counts["sent"] += 1
        self.largest = max(self.largest, len(frame))
        self._sent += 1
        conditions, copies = self.conditions, 1
        too_large = len(frame) > self.limits.message
        if len(frame) > _LARGE_SHARE * self.limits.message:
            self.counts["of a quarter of their limit or more"] += 1
        if conditions.wrong and self._rng.random() < conditions.wrong:
            self.counts["made wrong"] += 1
            frame = make_wrong(frame, self._rng)
        sent_frame = SentFrame(connection, frame, self._sent)
        if too_large:
            # RESOURCE_EXHAUSTED, which ends the stream
            self.counts["too large"] += 1
            self._scheduler.note(f"{connection.sender} has sent {connection.receiver} {len(frame)} bytes")
            self.end(connection)
            return
        if conditions.loss and self._rng.random() < conditions.loss:
            self.counts["lost"] += 1
            sent_frame.read()
            return
        if conditions.repeat and self._rng.random() < conditions.repeat:
            self.counts["repeated"] += 1
            copies = 2
        for _ in range(copies):
            delay = self.way(self._rng, connection.sender, connection.receiver)
            self._scheduler.after(delay, partial(self._arrive, sent_frame))

    def _arrive(self, sent_frame: SentFrame) -> None:
        link = sent_frame.connection.sender, sent_frame.connection.receiver
        if sent_frame.number < self._newest.get(link, 0):
            self.counts["reordered"] += 1
        else:
            self._newest[link] = sent_frame.number
        if link in self._clogged:
            self.counts["clogged"] += 1
            self._clogged[link].append(sent_frame)
        else:
            self._deliver(sent_frame)

    def _deliver(self, sent_frame: SentFrame) -> None:
        connection = sent_frame.connection
        sender, to = connection.sender, connection.receiver
        if to not in self._hosts or (sender, to) in self.cut:
            self.counts["cut off"] += 1
        elif connection.lost:
            self.counts["lost with their connection"] += 1
            self.end(connection)
        elif connection.forgotten:
            self.counts["sent into a half-open connection"] += 1
        elif self._lives[to] != connection.life:
            self.counts["refused by a later life"] += 1
            self.end(connection)
        else:
            self._scheduler.record(f"{sender}>{to} {zlib.crc32(sent_frame.frame):08x}")
            if self.watch is not None:
                self.watch(sender, to, sent_frame.frame)
            self._hosts[to][0](sent_frame)
