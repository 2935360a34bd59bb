"""Workloads of single values: `register`, `session`, `delete`, `lww`.

`write`: value is the value, unique in the run. `read`: value is the list of all siblings' values, or on keys
with one writer the value. A write or delete replaces what its context has seen: its invocation tells these
values in `extra["seen"]`, none where it is blind.
"""

from __future__ import annotations

from typing import ClassVar

from jepsen.workloads.base import Call, Done, Thread, Workload, encode, read_values, values_of
from kvstore.client.asynchronous import Bucket


class _Values(Workload):
    """Reads and writes: a process writes over what it has read or written; anything else it reads first."""

    def change(self, f: str, key: str, thread: Thread) -> Call:
        """A write or delete of a key, or the read that must precede it."""
        seen = thread.seen.get(key)
        if seen is None or (f == "delete" and not seen):
            return Call("read", key)
        return Call(f, key, None if f == "delete" else thread.unique(), {"seen": seen})

    async def perform(self, bucket: Bucket, thread: Thread, call: Call) -> Done:
        """See Workload."""
        key = call.key
        if call.f == "read":
            result = await bucket.get(key)
            thread.contexts[key], thread.seen[key] = result.context, values_of(result)
            return read_values(result)
        context = b"" if "blind" in call.extra else thread.contexts.pop(key)
        thread.seen.pop(key, None)
        if call.f == "delete":
            await bucket.delete(key, context=context)
            return Done()
        stored = await bucket.put(key, encode(call.value), context=context)
        if stored.context:
            # of this value alone; with siblings there is none, and they have to be read first
            thread.contexts[key], thread.seen[key] = stored.context, [call.value]
        return Done()


class Register(_Values):
    """Registers. On keys `one-...` a single thread writes, ever greater values: these are linearizable.

    A read of them gives the greatest of siblings, of which there are some when a write of unknown outcome
    comes late. On keys `many-...` all threads write, half of them blindly: causal order holds,
    linearizability does not.
    """

    name: ClassVar[str] = "register"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        rng = thread.rng
        write = rng.random() < 0.5
        generation = thread.generation if write else thread.generation_to_read()
        if rng.random() < 0.4:
            key = f"{self.name}/many-{generation}-{rng.randrange(self.keys)}"
            if write and rng.random() < 0.5:
                return Call("write", key, thread.unique(), {"blind": True})
            return self.change("write", key, thread) if write else Call("read", key)
        owner = thread.number < self.keys
        number = thread.number if write and owner else rng.randrange(self.keys)
        key = f"{self.name}/one-{generation}-{number}"
        return self.change("write", key, thread) if write and owner else Call("read", key)

    async def perform(self, bucket: Bucket, thread: Thread, call: Call) -> Done:
        """See Workload."""
        done = await super().perform(bucket, thread, call)
        if call.f == "read" and "/one-" in call.key:
            return greatest(done)
        return done

    async def final(self, bucket: Bucket, key: str) -> Done:
        """See Workload."""
        done = await super().final(bucket, key)
        return greatest(done) if "/one-" in key else done


def greatest(read: Done) -> Done:
    """Of a read's values the greatest."""
    return Done(read.value[-1] if read.value else None, {**read.extra, "siblings": len(read.value)})


class Session(_Values):
    """Each process reads and writes keys that all share: it reads its writes, and never back in time."""

    name: ClassVar[str] = "session"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        if thread.rng.random() < 0.5:
            return self.change("write", self.key_to_write(thread), thread)
        return Call("read", self.key_to_read(thread))


class Delete(_Values):
    """Keys are written, deleted and written again: no value that a delete has seen comes back."""

    name: ClassVar[str] = "delete"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        chance = thread.rng.random()
        if chance < 0.4:
            return self.change("write", self.key_to_write(thread), thread)
        if chance < 0.6:
            return self.change("delete", self.key_to_write(thread), thread)
        return Call("read", self.key_to_read(thread))


class Lww(_Values):
    """Last write wins: of concurrent writes, all blind, all but one are lost; how many is measured."""

    name: ClassVar[str] = "lww"
    settings: ClassVar[str] = "conflict=lww"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        if thread.rng.random() < 0.5:
            return Call("write", self.key_to_write(thread), thread.unique(), {"blind": True})
        return Call("read", self.key_to_read(thread))
