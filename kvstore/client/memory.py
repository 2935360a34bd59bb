"""What a program has read and written of a key, so that its next write replaces just that.

A bucket object remembers it for each thread, and for each task of a loop, by itself: of two that have read
the same value, each before the other wrote, both values are kept. docs/client.md says why.
"""

from __future__ import annotations

import asyncio
import threading
from weakref import ref

from kvstore.contexts import read_context
from kvstore.versions import NO_CONTEXT, SignedContext, UserKey

KEYS = 10_000
"""Keys that a thread or a task remembers of a bucket: those at least that it has used last. At most it is
twice as many."""


class Memory:
    """Of one thread or task, for one bucket object: by key the context of what it has seen last.

    In two generations: when the young one has KEYS keys, it becomes the old one, and what was in that and not
    used since is forgotten. To keep all keys in the order of their use would cost each request several times
    as much.
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[UserKey, SignedContext] = {}
        self._old: dict[UserKey, SignedContext] = {}

    def context(self, key: UserKey) -> SignedContext:
        """What a write is to replace; empty: nothing."""
        return self._young.get(key) or self._old.get(key, NO_CONTEXT)

    def has_read(self, key: UserKey, context: SignedContext) -> None:
        """A read came with this context. It takes the place of its own last write if it covers that."""
        if self._young.get(key) == context:
            return
        known = self.context(key)
        if not known or known == context or _covers(context, known):
            self.has_written(key, context)

    def has_written(self, key: UserKey, context: SignedContext) -> None:
        """A write was answered with this context."""
        if not context:
            self.forget(key)
            return
        young = self._young
        young[key] = context
        if len(young) >= KEYS:
            self._old = young
            self._young = {}

    def forget(self, key: UserKey) -> None:
        """What was known of a key is worth nothing."""
        self._young.pop(key, None)
        self._old.pop(key, None)


class Memories:
    """Those of all threads and tasks that use a bucket object; each ends with its thread or task."""

    def __init__(self) -> None:
        # a WeakKeyDictionary is written in Python, which every request would pay for
        self._of: dict[ref[object], Memory] = {}

    def mine(self) -> Memory:
        """That of the running task, or else of the thread."""
        caller: object
        try:
            caller = asyncio.current_task()
        except RuntimeError:  # no loop runs here
            caller = None
        if caller is None:
            caller = threading.current_thread()
        memory = self._of.get(ref(caller))
        if memory is None:  # nobody else can be adding it
            memory = self._of[ref(caller, self._of.pop)] = Memory()
        return memory


def _covers(context: SignedContext, known: SignedContext) -> bool:
    if not context:
        return False  # the key was never written, says a replica that lacks what is known
    read, before = read_context(context), read_context(known)
    return all(map(read.covers, (*before.context, *before.dots)))
