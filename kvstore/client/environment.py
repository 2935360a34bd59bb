"""Where gRPC cannot work, so that a client says so at once instead of waiting for ever.

gRPC has threads and locks of its own, which no fork copies; its poller needs a real thread; and a call is of
the event loop that it was begun on.
"""

from __future__ import annotations

import _thread
import gc
import inspect
import os
import select
import time
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

import grpc

from kvstore.client.errors import ClientClosed, WrongEnvironment

_open: WeakSet[grpc.aio.Channel] = WeakSet()
_closed: WeakSet[grpc.aio.Channel] = WeakSet()
"""Those that are still referred to: gRPC's threads end with the last of them."""

_GRPC_THREADS = {"event_engine", "grpc_global_tim", "lifeguard"}
"""What Linux calls those that a fork must not find."""
_THREADS_END = 1.0
"""Seconds that they are given for it."""


class _Process:
    inherited = False
    """Whether it was forked from one in which gRPC was at work: so are its children, for ever."""
    generation = 0
    """How many forks are behind it: as good as its id, which takes a call of the system to ask for."""


def check_process() -> None:
    """Raise WrongEnvironment if gRPC cannot work in this process."""
    if _Process.inherited:
        raise WrongEnvironment(
            "this process was forked while a kvstore client was connected, which gRPC does not survive: "
            "close clients before the fork, connect in the child only, or start processes by spawn"
        )
    # gevent and eventlet put functions of their own in their place; patched sockets do no harm
    if not (inspect.isbuiltin(_thread.start_new_thread) and inspect.isbuiltin(select.select)):
        raise WrongEnvironment(
            "threads or select are patched here (by gevent or eventlet), and gRPC needs the real ones: "
            "patch_all(thread=False, select=False), or use kvstore in a process that is not patched"
        )


def this_process() -> int:
    """What tells this process from those that it was forked from."""
    return _Process.generation


def check_same_process(process: int) -> None:
    """Raise ClientClosed if a client was made in another process than this one: see `this_process`."""
    if process != _Process.generation:
        raise ClientClosed(
            "the client was made before this process was forked: connect after the fork, and close before it"
        )


def opened(channel: grpc.aio.Channel) -> None:
    """A channel is there from now on."""
    _open.add(channel)


def closed(channel: grpc.aio.Channel) -> None:
    """A channel was closed."""
    _open.discard(channel)
    _closed.add(channel)


def _before_fork() -> None:
    if _closed and not _open:
        gc.collect()  # circles of references keep them, and so gRPC's threads
        until = time.monotonic() + _THREADS_END
        while time.monotonic() < until and _grpc_is_at_work():
            time.sleep(0.001)


def _grpc_is_at_work() -> bool:
    """Whether one of its threads is still there: they end a moment after the last channel."""
    for name in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it has ended meanwhile
            if name.read_text().strip() in _GRPC_THREADS:
                return True
    return False


def _in_child() -> None:
    _Process.generation += 1
    _Process.inherited = _Process.inherited or bool(_open or _closed)


os.register_at_fork(before=_before_fork, after_in_child=_in_child)
