"""Runs a coroutine in virtual time: while it waits, the simulated cluster goes on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from kvstore.client.core.waiter import Waiter
from kvstore.protocol.client import Success
from kvstore.sim.client import Pending
from kvstore.sim.scheduler import Scheduler

T = TypeVar("T")

_FOR_EVER = float("inf")


@dataclass(frozen=True, slots=True)
class Wait:
    """Awaited, it waits until `done`."""

    done: Callable[[], bool]

    def __await__(self) -> Generator[Wait, None, None]:
        yield self


class VirtualLoop:
    """The event loop of a simulated client, of which only `Wait` can be awaited."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    @property
    def now(self) -> float:
        """Virtual seconds since the cluster was made."""
        return self._scheduler.now

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        while True:
            try:
                wait = coroutine.send(None)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            if not wait.done():
                self._scheduler.run_until(_FOR_EVER, wait.done)

    def ask(self, begin: Callable[[Waiter], None]) -> Success:
        """See Runner."""
        pending = Pending()
        begin(pending)
        if not pending.done():
            self._scheduler.run_until(_FOR_EVER, pending.done)
        return pending.result()
