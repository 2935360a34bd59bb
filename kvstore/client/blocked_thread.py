"""A thread that waits for the reply to one request."""

from __future__ import annotations

import threading

from kvstore.protocol.client import Success


class BlockedThread:
    """See Waiter, whose calls come from the loop's thread; `answer` and `leave` are the waiting one's.

    A lock is all that it takes: a future of concurrent.futures costs ten times as much.
    """

    __slots__ = ("_answered", "_done", "_error", "_result")

    def __init__(self) -> None:
        self._answered = threading.Lock()
        self._answered.acquire()
        self._done = False
        self._result: Success | None = None
        self._error: Exception | None = None

    def done(self) -> bool:
        """See Waiter."""
        return self._done

    def set_result(self, result: Success, /) -> None:
        """See Waiter."""
        self._result = result
        self._done = True
        self._answered.release()

    def set_exception(self, exception: Exception, /) -> None:
        """See Waiter."""
        self._error = exception
        self._done = True
        self._answered.release()

    def answer(self) -> Success:
        """Wait for the reply; raises the error in its place, or what interrupts it."""
        self._answered.acquire()
        error, self._error = self._error, None
        if error is None:
            assert self._result is not None
            return self._result
        try:
            raise error
        finally:
            del error  # which knows this frame: both would wait for the collector

    def leave(self) -> None:
        """Nobody waits any more."""
        self._done = True
