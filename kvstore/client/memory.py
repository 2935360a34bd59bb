"""What a program has read and written of a key, so that its next write replaces just that.

A bucket object remembers it for each thread, and for each task of a loop, by itself: of two that have read
the same value, each before the other wrote, both values are kept. docs/client.md says why.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

from kvstore.contexts import read_context
from kvstore.versions import NO_CONTEXT, SignedContext, UserKey

KEYS = 10_000
"""Keys that a thread or a task remembers of a bucket; more, and those are forgotten that it has not used for
longest."""


class Memory:
    """Of one thread or task, for one bucket object: by key the context of what it has seen last."""

    __slots__ = ("_contexts",)

    def __init__(self) -> None:
        self._contexts: OrderedDict[UserKey, SignedContext] = OrderedDict()

    def context(self, key: UserKey) -> SignedContext:
        """What a write is to replace; empty: nothing."""
        return self._contexts.get(key, NO_CONTEXT)

    def has_read(self, key: UserKey, context: SignedContext) -> None:
        """A read came with this context. It takes the place of its own last write if it covers that."""
        known = self._contexts.get(key)
        if known is None or known == context or _covers(context, known):
            self._remember(key, context)

    def has_written(self, key: UserKey, context: SignedContext) -> None:
        """A write was answered with this context."""
        self._remember(key, context)

    def forget(self, key: UserKey) -> None:
        """What was known of a key is worth nothing."""
        self._contexts.pop(key, None)

    def _remember(self, key: UserKey, context: SignedContext) -> None:
        if not context:
            self.forget(key)
            return
        contexts = self._contexts
        contexts[key] = context
        contexts.move_to_end(key)
        if len(contexts) > KEYS:
            contexts.popitem(last=False)


class Memories:
    """Those of all threads and tasks that use a bucket object; each ends with its thread or task."""

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[object, Memory] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def mine(self, task: asyncio.Task[Any] | None) -> Memory:
        """That of the running task, if it is known to its caller, or else of that or the thread."""
        caller = _caller() if task is None else task
        memory = self._of.get(caller)
        if memory is None:
            with self._lock:  # another thread may be adding its own
                memory = self._of.setdefault(caller, Memory())
        return memory


def _caller() -> object:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs here
        task = None
    return threading.current_thread() if task is None else task


def _covers(context: SignedContext, known: SignedContext) -> bool:
    if not context:
        return False  # the key was never written, says a replica that lacks what is known
    read, before = read_context(context), read_context(known)
    return all(map(read.covers, (*before.context, *before.dots)))
