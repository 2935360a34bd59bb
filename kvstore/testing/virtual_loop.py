"""Runs coroutines in virtual time: while all of them wait, the simulated cluster goes on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kvstore.errors import KVError
from kvstore.sim.scheduler import Scheduler

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wait:
    """Awaited, it waits until `done` or until virtual time `deadline`, whichever is first."""

    done: Callable[[], bool]
    deadline: float

    def __await__(self) -> Generator[Wait, None, None]:
        yield self


class VirtualLoop:
    """The event loop of simulated clients, of which only `Wait` can be awaited."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    @property
    def now(self) -> float:
        """Virtual seconds since the cluster was made."""
        return self._scheduler.now

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run one coroutine to its end."""
        result = self.run_all([coroutine])[0]
        if isinstance(result, KVError):
            raise result
        return result

    def run_all(self, coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T | KVError]:
        """Run several at once; what each returned, or the KVError it ended with."""
        results: dict[int, T | KVError] = {}
        waits: dict[int, Wait] = {}
        for number, coroutine in enumerate(coroutines):
            _step(number, coroutine, waits, results)
        while waits:
            for number in self._ready(waits):
                del waits[number]
                _step(number, coroutines[number], waits, results)
        return [results[number] for number in range(len(coroutines))]

    def _ready(self, waits: dict[int, Wait]) -> list[int]:
        """Let time pass until some need not wait any more; which."""
        nearest = min(wait.deadline for wait in waits.values())
        self._scheduler.run_until(nearest, lambda: any(wait.done() for wait in waits.values()))
        return [n for n, wait in waits.items() if wait.done() or wait.deadline <= self.now]


def _step(
    number: int, coroutine: Coroutine[Any, Any, T], waits: dict[int, Wait], results: dict[int, T | KVError]
) -> None:
    try:
        waits[number] = coroutine.send(None)
    except StopIteration as stop:
        results[number] = stop.value
    except KVError as error:
        results[number] = error
