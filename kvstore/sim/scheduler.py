"""Virtual time: a heap of things to do, and a hash of all that was done."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable

Action = Callable[[], None]

# wall time at virtual time 0, in milliseconds since 1970
EPOCH_MS = 1_700_000_000_000


class Scheduler:
    """Runs actions in order of their time; actions of one time in the order they were added."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._sequence = 0
        self._heap: list[tuple[float, int, Action]] = []
        self._trace = hashlib.blake2b(digest_size=16)
        self.listener: Callable[[str], None] | None = None
        """Told of what is worth a line in a transcript."""

    def after(self, delay: float, action: Action) -> None:
        """Do `action` in `delay` virtual seconds."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay, self._sequence, action))

    def record(self, what: str) -> None:
        """Add to the trace: everything that could differ between two runs of one seed."""
        self._trace.update(f"{self.now:.6f} {what}\n".encode())

    def note(self, what: str) -> None:
        """As `record`, and tell the listener."""
        self.record(what)
        if self.listener is not None:
            self.listener(what)

    @property
    def trace(self) -> str:
        """The hash of the trace so far."""
        return self._trace.hexdigest()

    def run_until(self, end: float, stop: Callable[[], bool] | None = None) -> bool:
        """Go on until virtual time `end`, or until `stop` says so; whether it did."""
        while self._heap and self._heap[0][0] <= end:
            if stop is not None and stop():
                return True
            self.now, _, action = heapq.heappop(self._heap)
            self.events += 1
            action()
        self.now = max(self.now, end)
        return stop is not None and stop()


class Clock:
    """The monotonic clock of one host: it begins anywhere, and runs `rate` times as quick as time does."""

    def __init__(self, scheduler: Scheduler, origin: float = 0.0) -> None:
        self._scheduler = scheduler
        self._shown = origin
        self._since = scheduler.now
        self.rate = 1.0

    def now(self) -> float:
        """What it shows, in seconds."""
        return self._shown + (self._scheduler.now - self._since) * self.rate

    def run_at(self, rate: float) -> None:
        """Run so quick from now on."""
        self._shown, self._since = self.now(), self._scheduler.now
        self.rate = rate

    def until(self, when: float) -> float:
        """How long it takes until it shows `when`, in true seconds."""
        return max(0.0, when - self.now()) / self.rate
