"""An event loop whose time passes only while nothing can run, and that stops at each of its steps on request.

What would wait for ever ends the test at once, and so does whatever the tasks leave behind.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

_MOST_STEPS = 200_000
"""Of one run: a loop that turns without ever waiting ends."""


class Stuck(BaseException):
    """Nothing can run and no timer is set. Not an Exception: the product must not handle it."""


class _Selector(selectors.DefaultSelector):
    """Waits by moving the loop's clock."""

    loop: SteppedLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise Stuck("nothing can run any more and no timer is set")
        self.loop.now += timeout
        return super().select(0)


class SteppedLoop(asyncio.SelectorEventLoop):
    """`problems` are what the loop would have logged, such as exceptions that nobody retrieved."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 1000.0
        self.steps = 0
        self.problems: list[dict[str, Any]] = []
        self._at: dict[int, Callable[[], object]] = {}
        super().__init__(selector)
        self.set_exception_handler(lambda _, problem: self.problems.append(problem))

    def time(self) -> float:
        return self.now

    def at_step(self, steps: int, act: Callable[[], object]) -> None:
        """Call `act` before the loop's next step but `steps`."""
        self._at[self.steps + steps + 1] = act

    def _run_once(self) -> None:
        self.steps += 1
        assert self.steps < _MOST_STEPS, "it goes on without ever waiting"
        if act := self._at.pop(self.steps, None):
            act()
        super()._run_once()  # type: ignore[misc]  # asyncio's own, which its stubs leave out

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """In the loop's own thread, two steps later: what runs meanwhile is the same in every run."""
        future = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001  (it is the caller's)
                future.set_exception(error)

        self.call_soon(self.call_soon, run)
        return future


class SteppedWorker:
    """In place of the thread of syncs: they run on the loop's own, two steps later, and end in a third."""

    def __init__(self, ended: Callable[[Any, BaseException | None], None]) -> None:
        self._ended = ended
        self._thread = None

    def submit(self, sync: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._run, sync)

    def _run(self, sync: Any) -> None:
        error: BaseException | None = None
        try:
            sync.run()
        except Exception as raised:  # noqa: BLE001  (it is the group commit's)
            error = raised
        asyncio.get_running_loop().call_soon(self._ended, sync, error)

    def shutdown(self) -> None:
        pass


def stepped() -> SteppedLoop:
    """The loop of the present run."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    return loop


@contextmanager
def nothing_left() -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Gives what runs a scenario on a loop of its own; it must end its tasks and retrieve all exceptions."""
    problems: list[dict[str, Any]] = []

    def play(scenario: Coroutine[Any, Any, None]) -> None:
        loop = SteppedLoop()
        loop.problems = problems
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_whole(scenario))
        assert not problems, problems

    gc.freeze()  # what was there before need not be looked at
    try:
        yield play
        gc.collect()
    finally:
        gc.unfreeze()
    assert not problems, problems


async def _whole(scenario: Coroutine[Any, Any, None]) -> None:
    await scenario
    for _ in range(20):  # those that were cancelled a moment ago
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left
