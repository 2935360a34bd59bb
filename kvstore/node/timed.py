"""The machines of a node that are woken at times of their own choice."""

from __future__ import annotations

from typing import Protocol

from kvstore.quorum.guard import Guard

_REST = 1.0
"""Seconds that a machine is left alone after a defect: its next time may be past, and be so for ever."""


class Machine(Protocol):
    """What is woken; times are monotonic seconds."""

    def next_deadline(self) -> float:
        """When `on_timer` next has work."""

    def on_timer(self, now: float) -> object:
        """Do what is due; harmless at any time."""


class Timed:
    """Wakes one machine, and gives it a rest after a defect."""

    __slots__ = ("_guard", "_machine", "_rests_until")

    def __init__(self, machine: Machine, guard: Guard) -> None:
        self._machine = machine
        self._guard = guard
        self._rests_until = 0.0

    def next_deadline(self) -> float:
        """When `on_timer` next has work."""
        due = self._machine.next_deadline()
        return max(self._rests_until, due)

    def on_timer(self, now: float) -> None:
        """Wake it, unless it rests."""
        if now >= self._rests_until and not self._guard.run(self._machine.on_timer, now):
            self._rests_until = now + _REST
