"""When which operation is to be woken.

Operations of one kind have the same patience, so their times come in order: those are kept in a queue,
in constant time, and only the others in a heap. Most operations have finished long before their time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Container

_Timer = tuple[float, int]


class Timers:
    """Times in monotonic seconds, and the number of the operation to be woken at each."""

    __slots__ = ("_heap", "_queue")

    def __init__(self) -> None:
        self._queue: deque[_Timer] = deque()
        self._heap: list[_Timer] = []

    def add(self, when: float, number: int) -> None:
        """Wake the operation `number` at `when`."""
        queue = self._queue
        if not queue or queue[-1][0] <= when:
            queue.append((when, number))
        else:
            heapq.heappush(self._heap, (when, number))

    def next(self, alive: Container[int]) -> float:
        """The earliest time of an operation that is `alive`; infinite when there is none."""
        queue, heap = self._queue, self._heap
        while queue and queue[0][1] not in alive:
            queue.popleft()
        while heap and heap[0][1] not in alive:
            heapq.heappop(heap)
        firsts = [timers[0][0] for timers in (queue, heap) if timers]
        return min(firsts, default=float("inf"))

    def due(self, now: float) -> list[int]:
        """The operations whose time has come, in order of it; each is told once."""
        queue, heap = self._queue, self._heap
        due: list[_Timer] = []
        while queue and queue[0][0] <= now:
            due.append(queue.popleft())
        while heap and heap[0][0] <= now:
            due.append(heapq.heappop(heap))
        return [number for _, number in sorted(due)]
