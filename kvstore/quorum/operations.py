"""The table of a coordinator's operations: their numbers, when each is woken, and the memory they hold."""

from __future__ import annotations

from kvstore.quorum.admission import Admission
from kvstore.quorum.guard import Guard
from kvstore.quorum.operation import Operation
from kvstore.quorum.timers import Timers
from kvstore.quorum.write import WriteOperation

_RELIEF_PAUSE = 0.2
"""Seconds between two looks for memory to free, which go through all operations."""


class Operations:
    """All operations that have not finished, by number, the oldest first."""

    __slots__ = (
        "_admission",
        "_alarms",
        "_guard",
        "_last",
        "_relieved_at",
        "_relieved_below",
        "_timers",
        "by_number",
    )

    def __init__(self, first_number: int, admission: Admission, guard: Guard) -> None:
        self._guard = guard
        self._last = first_number
        self._admission = admission
        self._timers = Timers()
        self._alarms = Timers()
        self._relieved_at = 0.0
        self._relieved_below = 0
        self.by_number: dict[int, Operation] = {}

    def all(self) -> tuple[Operation, ...]:
        """Those of this moment, whatever becomes of them meanwhile."""
        return tuple(self.by_number.values())

    def register(self, operation: Operation, now: float) -> int:
        """Give an operation its number and its first wake-up."""
        self._last = number = self._last + 1
        self.by_number[number] = operation
        admission = self._admission
        admission.bytes = held = admission.bytes + operation.size
        if held > admission.most_bytes:
            admission.most_bytes = held
        self._wake_later(operation, number, now)
        return number

    def forget(self, number: int) -> None:
        """The operation has finished."""
        if operation := self.by_number.pop(number, None):
            self._admission.bytes -= operation.size

    def _wake_later(self, operation: Operation, number: int, now: float) -> None:
        wake_at = now + operation.patience
        if now < operation.deadline < wake_at:
            wake_at = operation.deadline
        self._timers.add(wake_at, number)

    def set_alarm(self, when: float, number: int) -> None:
        """Wake an operation once, beside its patience and its deadline."""
        self._alarms.add(when, number)

    def next_deadline(self) -> float:
        """When `wake` next has work, in monotonic seconds."""
        return min(self._timers.next(self.by_number), self._alarms.next(self.by_number))

    def wake(self, now: float) -> None:
        """Wake the operations whose patience, deadline or alarm has passed."""
        operations = self.by_number
        for number in self._alarms.due(now):
            if operation := operations.get(number):
                self._guard.run(operation.on_alarm, now)
        for number in self._timers.due(now):
            if operation := operations.get(number):
                self._guard.run(operation.on_time, now)
                if number in operations:
                    self._wake_later(operation, number, now)

    def relieve(self, now: float) -> int:
        """Free memory that acknowledged writes hold for a slow replica: it gets its hints early.

        Slow is who has not answered from one look to the next. Returns how many writes were freed.
        """
        if now < self._relieved_at + _RELIEF_PAUSE:
            return 0
        old, self._relieved_at, self._relieved_below = self._relieved_below, now, self._last
        freed = 0
        for operation in self.all():
            if operation.number > old:
                break
            if isinstance(operation, WriteOperation) and operation.respond is None:
                self._guard.run(operation.hint_early, now)
                freed += 1
        return freed
