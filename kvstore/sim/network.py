"""A network that loses, delays, repeats and reorders frames, whose links clog, and that can be split."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvstore.sim.scheduler import Scheduler
from kvstore.sim.wrong_frames import make_wrong

Receive = Callable[[str, bytes], None]
Watch = Callable[[str, str, bytes], None]
Link = tuple[str, str]
"""Sender and receiver: each direction may fail by itself."""


@dataclass(slots=True)
class Weather:
    """How bad it is: probabilities per frame, delays in seconds. Unequal delays reorder frames.

    `wrong` frames have a value that no node should ever send.
    """

    loss: float = 0.0
    repeat: float = 0.0
    wrong: float = 0.0
    least_delay: float = 0.0002
    most_delay: float = 0.002


class Network:
    """Carries frames between hosts. `cut` links lose them, clogged ones keep them for later."""

    def __init__(self, scheduler: Scheduler, rng: random.Random) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self._hosts: dict[str, Receive] = {}
        self._clogged: dict[Link, list[bytes]] = {}
        self._sent = 0
        self._newest: dict[Link, int] = {}
        self.weather = Weather()
        self.cut: set[Link] = set()
        self.slow: dict[str, float] = {}
        """How many times as long as usual the frames from and to a host take."""
        self.refusing = False
        """Whether who sends to a host that is down learns that at once, as from an operating system."""
        self.counts: Counter[str] = Counter()
        self.on_broken: Callable[[str, str], None] | None = None
        """Told of the sender and the receiver of a connection that one of them breaks off."""
        self.watch: Watch | None = None
        """Told of every frame that arrives, for transcripts."""

    def attach(self, host: str, receive: Receive) -> None:
        """From now on frames to `host` are given to `receive`."""
        self._hosts[host] = receive

    def detach(self, host: str) -> None:
        """The host is down: frames to it are lost."""
        self._hosts.pop(host, None)

    def break_off(self, sender: str, to: str) -> None:
        """The receiver ends the connection on which `sender` sends to it."""
        if self.on_broken is not None:
            self.on_broken(sender, to)

    def clog(self, sender: str, to: str) -> None:
        """Let nothing through on a link for a while, and lose nothing."""
        self._clogged.setdefault((sender, to), [])

    def unclog(self) -> None:
        """All that has waited on clogged links arrives now, in order."""
        clogged, self._clogged = self._clogged, {}
        for (sender, to), frames in clogged.items():
            for frame in frames:
                self._scheduler.after(0.0, partial(self._deliver, sender, to, frame))

    def send(self, sender: str, to: str, frame: bytes) -> bool:
        """Send a frame; it may arrive once, twice or never. False if there is nobody to send it to."""
        if self.refusing and to not in self._hosts and (sender, to) not in self.cut:
            return False
        self.counts["sent"] += 1
        self._sent += 1
        weather, copies = self.weather, 1
        if weather.wrong and self._rng.random() < weather.wrong:
            self.counts["made wrong"] += 1
            frame = make_wrong(frame, self._rng)
        if weather.loss and self._rng.random() < weather.loss:
            self.counts["lost"] += 1
            return True
        if weather.repeat and self._rng.random() < weather.repeat:
            self.counts["repeated"] += 1
            copies = 2
        for _ in range(copies):
            delay = self._rng.uniform(weather.least_delay, weather.most_delay)
            if self.slow:
                delay *= max(self.slow.get(sender, 1.0), self.slow.get(to, 1.0))
            self._scheduler.after(delay, partial(self._arrive, sender, to, frame, self._sent))
        return True

    def _arrive(self, sender: str, to: str, frame: bytes, number: int) -> None:
        link = sender, to
        if number < self._newest.get(link, 0):
            self.counts["reordered"] += 1
        else:
            self._newest[link] = number
        if link in self._clogged:
            self.counts["clogged"] += 1
            self._clogged[link].append(frame)
        else:
            self._deliver(sender, to, frame)

    def _deliver(self, sender: str, to: str, frame: bytes) -> None:
        receive = self._hosts.get(to)
        if receive is None or (sender, to) in self.cut:
            self.counts["cut off"] += 1
            return
        self._scheduler.record(f"{sender}>{to} {zlib.crc32(frame):08x}")
        if self.watch is not None:
            self.watch(sender, to, frame)
        receive(sender, frame)
