"""A network that loses, delays, repeats and reorders frames, and that can be split."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvstore.sim.scheduler import Scheduler

Receive = Callable[[str, bytes], None]


@dataclass(slots=True)
class Weather:
    """How bad it is: probabilities per frame, delays in seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    least_delay: float = 0.0002
    most_delay: float = 0.002


class Network:
    """Carries frames between hosts. `cut` holds the ordered pairs that cannot talk."""

    def __init__(self, scheduler: Scheduler, rng: random.Random) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self._hosts: dict[str, Receive] = {}
        self.weather = Weather()
        self.cut: set[tuple[str, str]] = set()
        self.counts: Counter[str] = Counter()

    def attach(self, host: str, receive: Receive) -> None:
        """From now on frames to `host` are given to `receive`."""
        self._hosts[host] = receive

    def detach(self, host: str) -> None:
        """The host is down: frames to it are lost."""
        self._hosts.pop(host, None)

    def send(self, sender: str, to: str, frame: bytes) -> None:
        """Send a frame; it may arrive once, twice or never."""
        self.counts["frames"] += 1
        copies = 1
        if self._rng.random() < self.weather.loss:
            self.counts["lost"] += 1
            copies = 0
        elif self._rng.random() < self.weather.repeat:
            self.counts["repeated"] += 1
            copies = 2
        for _ in range(copies):
            delay = self._rng.uniform(self.weather.least_delay, self.weather.most_delay)
            self._scheduler.after(delay, partial(self._arrive, sender, to, frame))

    def _arrive(self, sender: str, to: str, frame: bytes) -> None:
        receive = self._hosts.get(to)
        if receive is None or (sender, to) in self.cut:
            self.counts["cut off"] += 1
            return
        self._scheduler.record(f"{sender}>{to} {zlib.crc32(frame):08x}")
        receive(sender, frame)
