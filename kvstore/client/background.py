"""The event loop behind all sync clients of a process, so that calls of many threads travel together."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from kvstore.client.blocked_thread import BlockedThread
from kvstore.client.core.waiter import Waiter
from kvstore.client.environment import check_patches, check_same_process, this_process
from kvstore.client.errors import ClientClosed
from kvstore.from_threads import FromThreads
from kvstore.protocol.client import Success

T = TypeVar("T")


class Background:
    """An event loop in a daemon thread of its own."""

    def __init__(self) -> None:
        self._process = this_process()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kvstore-client", daemon=True)
        self._thread.start()
        self._asked = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _listen(self) -> FromThreads[tuple[Callable[[Waiter], None], BlockedThread]]:
        return FromThreads(_begin)

    def usable(self) -> bool:
        """Whether it belongs to this process: threads do not survive a fork."""
        return self._process == this_process()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result; an interrupt cancels it.

        Raises ClientClosed in another process, and when Python ends.
        """
        try:
            self._check()
        except (ClientClosed, RuntimeError):
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def ask(self, begin: Callable[[Waiter], None]) -> Success:
        """See Runner; an interrupt leaves the request. Raises ClientClosed as `run`."""
        self._check()
        waiter = BlockedThread()
        try:
            self._asked.put((begin, waiter))
            return waiter.answer()
        except BaseException:
            waiter.leave()
            raise

    def _check(self) -> None:
        check_same_process(self._process)
        _check_running()
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError("the sync client was called from a callback on its own event loop")


def _begin(asked: Sequence[tuple[Callable[[Waiter], None], BlockedThread]]) -> None:
    for begin, waiter in asked:
        try:
            begin(waiter)
        except Exception as error:  # noqa: BLE001  (it is the caller's, and not the loop's)
            waiter.set_exception(error)


def _check_running() -> None:
    """Raise ClientClosed when Python is about to end, as in `__del__`: the loop's thread runs no more."""
    if sys.is_finalizing():
        raise ClientClosed("the program is over, and with it the client")


_lock = threading.Lock()
_shared: list[Background] = []


def shared_background() -> Background:
    """The one of this process, started when it is first needed; raises WrongEnvironment."""
    check_patches()
    with _lock:
        if not (_shared and _shared[-1].usable()):
            _shared.append(Background())
        return _shared[-1]


def _in_child() -> None:
    global _lock  # noqa: PLW0603  (another thread may have held it while this one forked)
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_in_child)
