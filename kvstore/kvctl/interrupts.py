"""Ctrl-C and SIGTERM: each ends the command once, with all that is to be tidied up."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ONE_WISH = 1.0
"""Seconds for which what comes belongs to what came before: `timeout` sends two at once, and so do people."""
_AGAIN = 0.005
"""Seconds after which an interrupt that had no effect is repeated."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything is cleaned up as for Ctrl-C."""


class Interrupts:
    """The handler of both. When the process is `ending`, there is nothing left to interrupt: it dies at once.

    `now` is in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.ending = False
        self._putting_off = False
        """Whether it is in `unraisable`, where nothing can be raised."""
        self._now = now
        self._heeded = float("-inf")

    def __call__(self, number: int, _frame: FrameType | None = None) -> None:
        """Raises KeyboardInterrupt, or Terminated, unless the last that did so was just now."""
        if self._putting_off:
            self._repeat(number)
            return
        now = self._now()
        if now - self._heeded < _ONE_WISH:
            return
        self._heeded = now
        if self.ending:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def _repeat(self, number: int) -> None:
        again = threading.Timer(_AGAIN, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    def unraisable(self, what: sys.UnraisableHookArgs) -> None:
        """A `sys.unraisablehook`: nothing is said after an interrupt, and one that ended here comes again.

        What was being made then, such as an event loop, may be too little of itself to be thrown away. What
        is raised where something is thrown away goes no further.
        """
        if issubclass(what.exc_type, KeyboardInterrupt):
            self._putting_off = True
            self._heeded = float("-inf")
            self._repeat(signal.SIGTERM if issubclass(what.exc_type, Terminated) else signal.SIGINT)
            # no signal is handled between this and the end: that happens at calls
            self._putting_off = False
        elif self._heeded == float("-inf"):
            sys.__unraisablehook__(what)


@contextmanager
def interrupts(until_the_end: bool) -> Iterator[Interrupts]:
    """Both are handled so; Ctrl-C only if it is heeded at all, unlike in what nohup started.

    In a process of its own that is so `until_the_end`: a second signal may come when all is done.
    """
    handler = Interrupts()
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, handler)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, handler)
    if until_the_end:
        sys.unraisablehook = handler.unraisable
    try:
        yield handler
    finally:
        handler.ending = True
        for number, earlier in before.items() if not until_the_end else ():
            signal.signal(number, earlier)
