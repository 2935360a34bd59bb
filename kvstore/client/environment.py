"""The process that a client is in: what it has is of no use in one that was forked from it."""

from __future__ import annotations

import _thread
import inspect
import os
import select

from kvstore.client.errors import ClientClosed, WrongEnvironment


class _Process:
    generation = 0
    """How many forks are behind it: as good as its id, which takes a call of the system to ask for."""


def this_process() -> int:
    """What tells this process from those that it was forked from."""
    return _Process.generation


def check_same_process(process: int) -> None:
    """Raise ClientClosed if a client was made in another process than this one: see `this_process`."""
    if process != _Process.generation:
        raise ClientClosed(
            "the client was made before this process was forked: connect after the fork, and close before it"
        )


def check_patches() -> None:
    """Raise WrongEnvironment if threads, but not what they wait by, are patched here, or the reverse."""
    # gevent and eventlet put functions of their own in their place
    if inspect.isbuiltin(_thread.start_new_thread) != inspect.isbuiltin(select.select):
        raise WrongEnvironment(
            "of threads and select, one is patched here (by gevent or eventlet) and the other is not, which "
            "would wait for ever: use patch_all(), or patch_all(thread=False, select=False)"
        )


def _in_child() -> None:
    _Process.generation += 1


os.register_at_fork(after_in_child=_in_child)
