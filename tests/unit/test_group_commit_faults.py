"""The group commit when each of its steps fails in turn, and when whoever closes it leaves at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kvstore.errors import StorageFailed, StorageFull
from kvstore.frames.turn_ends import TurnEnds
from kvstore.lsm import Engine, Sync
from kvstore.lsm.memory_filesystem import MemoryFileSystem
from kvstore.server.sync_thread import SyncThread
from tests.unit.memory_client import MOST, Play, settled
from tests.unit.stepped_loop import stepped

ERRORS = [StorageFull("no space"), StorageFailed("input/output error"), ZeroDivisionError()]


class Committing:
    """An engine in memory, and what its group commit reported."""

    def __init__(self) -> None:
        self.engine = Engine.open(MemoryFileSystem(), "engine")
        self.durable: list[int] = []
        self.fatal: list[BaseException] = []
        self.commit = SyncThread(self.engine, self.durable.append, self.fatal.append, TurnEnds())
        self._written = 0

    def write(self) -> int:
        """The LSN of a write that waits for its sync."""
        self._written += 1
        lsn = self.engine.write([(b"%d" % self._written, b"v")])
        self.commit.request_sync()
        return lsn

    async def end(self) -> None:
        await self.commit.close()
        assert self.commit._worker._thread is None
        if not self.fatal:
            self.engine.close()


def failing_once(real: Callable[..., Any], at: int, error: Exception) -> Callable[..., Any]:
    """`real`, but for its call numbered `at`, which raises."""
    calls = iter(range(MOST))

    def call(*arguments: Any) -> Any:
        if next(calls) == at:
            raise error
        return real(*arguments)

    return call


@pytest.mark.parametrize("step", ["begin_sync", "submit", "run", "finish_sync"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_fails_ends_the_node_or_delays_and_never_leaves_writes_waiting_in_silence(
    monkeypatch: pytest.MonkeyPatch, play: Play, step: str, error: Exception
) -> None:
    async def scenario() -> None:
        for at in range(4):  # the last has no later write that would ask again
            committing = Committing()
            engine = committing.engine
            with monkeypatch.context() as patch:
                owner: Any = {"submit": committing.commit._worker, "run": Sync}.get(step, engine)
                failing = failing_once(getattr(owner, step), at, error)
                if step == "run":
                    patch.setattr(Sync, "run", lambda sync, failing=failing: failing(sync))
                else:
                    patch.setattr(owner, step, failing)
                last = 0
                for _ in range(4):
                    if not committing.fatal and not engine._segments.full:
                        last = committing.write()
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1.0)
            if step != "finish_sync" and isinstance(error, StorageFull):
                assert not committing.fatal
                assert committing.durable[-1] == last, "it is not tried again when there is space"
            else:
                assert committing.fatal == [error], "the node goes on, and acknowledges nothing any more"
                assert committing.durable == list(range(1, at + 1)), "said to be durable"
            assert committing.durable == sorted(committing.durable)
            await committing.end()

    play(scenario())


async def close(committing: Committing, told: list[int]) -> None:
    told.extend(committing.durable)
    await committing.commit.close()


def test_closing_may_be_left_at_any_step_and_called_again(play: Play) -> None:
    """No sync begins after it, none is told of, and the one that runs is waited for."""

    async def scenario() -> None:
        in_time = True
        for step in range(1, MOST):  # before the first it has not been called yet
            committing = Committing()
            for _ in range(2):
                committing.write()
                await asyncio.sleep(0)
            told: list[int] = []
            task = asyncio.ensure_future(close(committing, told))
            stepped().at_step(step, task.cancel)
            await asyncio.wait([task])
            await committing.commit.close()
            assert not committing.commit._running
            durable = committing.engine.durable_lsn
            committing.write()
            await asyncio.sleep(0.1)
            assert committing.engine.durable_lsn == durable
            assert committing.durable == told
            await committing.end()
            in_time = task.cancelled()
            if not in_time:
                break
        assert not in_time
        assert step >= 2

    play(scenario())


def test_writes_at_any_step_are_durable_in_order_and_none_is_left(play: Play) -> None:
    """A request that comes at whichever step of the sync before it is served by that or the next."""

    async def scenario() -> None:
        for step in range(12):
            committing = Committing()
            committing.write()
            stepped().at_step(step, committing.write)
            await settled(lambda committing=committing: committing.durable[-1:] == [2])  # type: ignore[misc]
            assert committing.durable in ([2], [1, 2])
            await committing.end()

    play(scenario())
