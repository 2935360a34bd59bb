"""The process of a node: it lives, stands still, and dies; what comes in waits for it or finds it dead."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvstore.sim.scheduler import Action, Scheduler

Later = Callable[[float, Action], None]
"""Does something in so many seconds, after a pause if need be; nothing once its life is over."""


class Process:
    """One process after another on one host; `turn` carries out what happens in it, one action at a time."""

    def __init__(self, name: str, scheduler: Scheduler, turn: Callable[[Action], None]) -> None:
        self._name = name
        self._scheduler = scheduler
        self._turn = turn
        self.alive = False
        self._life = 0
        self._paused_until = 0.0
        self._held: list[Action] = []

    @property
    def listens(self) -> bool:
        """Whether it lives, and does not stand still."""
        return self.alive and self._paused_until <= self._scheduler.now

    def begin(self) -> Later:
        """A new life, without pauses of the one before; returns what lets things happen in it later."""
        self._life += 1
        self.alive = True
        self._paused_until = 0.0
        return partial(self._later, self._life)

    def end(self) -> None:
        """It dies at once; what has waited for it is told so."""
        self._life += 1
        self.alive = False
        self._release()

    def pause(self, seconds: float) -> None:
        """Stand still: what arrives is handled afterwards."""
        self._scheduler.note(f"{self._name} stands still for {seconds:.1f} s")
        self._paused_until = max(self._paused_until, self._scheduler.now + seconds)
        self._scheduler.after(seconds, self._wake)

    def resume(self) -> None:
        """End a pause at once."""
        self._paused_until = self._scheduler.now
        self._wake()

    def _wake(self) -> None:
        if self._paused_until <= self._scheduler.now:
            self._release()

    def _release(self) -> None:
        """Let all happen that had to wait."""
        held, self._held = self._held, []
        for run in held:
            self._scheduler.after(0.0, run)

    def enter(self, action: Action, if_dead: Action | None = None) -> None:
        """Do `action` now or after a pause, unless the process dies before; it may die of it."""
        life = self._life

        def run() -> None:
            if self._life != life or not self.alive:
                if if_dead is not None:
                    if_dead()
            elif self._paused_until > self._scheduler.now:
                self._held.append(run)
            else:
                self._turn(action)

        run()

    def _later(self, life: int, delay: float, action: Action) -> None:
        """See Later."""

        def run() -> None:
            if self._life == life:
                self.enter(action)

        self._scheduler.after(delay, run)
