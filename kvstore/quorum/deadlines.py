"""Deadlines: one queue of the times at which operations, flows and machines of a node are woken.

Operations of one kind have the same patience, so most times come in order: those are kept in a queue, in
constant time, and only the others in a heap. Most operations have finished long before their time; what is
not to be woken any more is passed over, and costs nothing before.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

from kvstore.protocol.instant import Instant
from kvstore.quorum.guard import Guard

NEVER = float("inf")
_REST = 1.0
"""Seconds for which a timer is not woken after a defect: else it could be due again at once, for ever."""

_Entry = tuple[float, int]


class Sleeper:
    """What can be woken: under its `number`, at `wake_at` (monotonic seconds; infinite: not at all)."""

    __slots__ = ("number", "wake_at")

    number: int
    wake_at: float

    def on_time(self, now: Instant) -> object:
        """The time has come: `wake_at` is infinite now, until it is set again."""
        raise NotImplementedError


class Deadlines:
    """The times of all sleepers of one node, by their numbers; those of timers are negative."""

    __slots__ = ("_guard", "_heap", "_last_timer", "_queue", "sleepers")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._queue: deque[_Entry] = deque()
        self._heap: list[_Entry] = []
        self._last_timer = 0
        self.sleepers: dict[int, Sleeper] = {}

    def timer(self, act: Callable[[Instant], object]) -> Timer:
        """A timer that does `act` when its time has come."""
        self._last_timer -= 1
        timer = Timer(self, self._last_timer, act)
        self.sleepers[timer.number] = timer
        return timer

    def wake(self, sleeper: Sleeper, when: float) -> None:
        """Wake it at `when`, and not at the time that was set before."""
        sleeper.wake_at = when
        if when == NEVER:
            return
        queue = self._queue
        if not queue or queue[-1][0] <= when:
            queue.append((when, sleeper.number))
        else:
            heapq.heappush(self._heap, (when, sleeper.number))

    def next(self) -> float:
        """When `on_time` next has work, in monotonic seconds; infinite when there is none."""
        queue, heap = self._queue, self._heap
        while queue and not self._is_due(queue[0]):
            queue.popleft()
        while heap and not self._is_due(heap[0]):
            heapq.heappop(heap)
        first = queue[0][0] if queue else NEVER
        return heap[0][0] if heap and heap[0][0] < first else first

    def _is_due(self, entry: _Entry) -> bool:
        """Whether it still means what it says."""
        sleeper = self.sleepers.get(entry[1])
        return sleeper is not None and sleeper.wake_at == entry[0]

    def on_time(self, now: Instant) -> None:
        """Wake all whose time has come, in order of it; each is told once."""
        queue, heap = self._queue, self._heap
        past: list[_Entry] = []
        while queue and queue[0][0] <= now.mono:
            past.append(queue.popleft())
        while heap and heap[0][0] <= now.mono:
            past.append(heapq.heappop(heap))
        # one for each sleeper: else one that sets itself a time that is past, as it did before, is told twice
        for entry in sorted(set(filter(self._is_due, past))):
            if self._is_due(entry):
                sleeper = self.sleepers[entry[1]]
                sleeper.wake_at = NEVER
                went_well = self._guard.run(sleeper.on_time, now)
                if not went_well and sleeper.wake_at == NEVER and entry[1] in self.sleepers:
                    self.wake(sleeper, now.mono + _REST)


class Timer(Sleeper):
    """Wakes one machine at times of its own choice."""

    __slots__ = ("_act", "_deadlines")

    def __init__(self, deadlines: Deadlines, number: int, act: Callable[[Instant], object]) -> None:
        self.number = number
        self.wake_at = NEVER
        self._deadlines = deadlines
        self._act = act

    def set(self, when: float) -> None:
        """Wake it at `when` (monotonic seconds; infinite: never), and not at the time that was set before."""
        if when != self.wake_at:
            self._deadlines.wake(self, when)

    def set_by(self, when: float) -> None:
        """Wake it at `when`, unless it is woken before."""
        if when < self.wake_at:
            self.set(when)

    def remove(self) -> None:
        """It is not needed any more."""
        self.wake_at = NEVER
        del self._deadlines.sleepers[self.number]

    def on_time(self, now: Instant) -> None:
        """See Sleeper."""
        self._act(now)
