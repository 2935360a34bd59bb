"""Workloads of single values: `register`, `session`, `delete`, `lww`.

`write`: value is the value, unique in the run. `read`: value is the value, None if there is none; of several siblings
it is the greatest, and `extra["siblings"]` has all. `extra["seen"]` of a write or delete has the values that its context
has seen, which it replaces. Contexts are in `extra["context"]`.
"""

from __future__ import annotations

from typing import ClassVar

from jepsen.workloads.base import Call, Done, Thread, Workload, encode, read_first, read_values, values_of
from kvstore.client.asynchronous import Bucket
from kvstore.client.results import Result


class _Values(Workload):
    async def perform(self, bucket: Bucket, thread: Thread, call: Call) -> Done:
        """See Workload."""
        if call.f == "read":
            return self.read(thread, call.key, await bucket.get(call.key))
        return await self.write(bucket, thread, call)

    def read(self, thread: Thread, key: str, result: Result) -> Done:
        """Remember what was read."""
        thread.contexts[key] = result.context
        thread.seen[key] = values_of(result)
        return read_values(result)

    async def write(self, bucket: Bucket, thread: Thread, call: Call) -> Done:
        """Write over what the process has seen; what it has not, it reads first."""
        context = await self.context(bucket, thread, call.key)
        seen = thread.seen.pop(call.key, [])
        if call.f == "delete":
            stored = await bucket.delete(call.key, context=context)
        else:
            stored = await bucket.put(call.key, encode(call.value), context=context)
            # without siblings the reply's context is that of this value; else there is something to be read
            if stored.context:
                thread.contexts[call.key] = stored.context
                thread.seen[call.key] = [call.value]
        return Done(extra={"seen": seen, "context": stored.context.hex()})

    async def context(self, bucket: Bucket, thread: Thread, key: str) -> bytes:
        """What to write over."""
        if not thread.contexts.get(key):
            self.read(thread, key, await read_first(bucket, key))
        return thread.contexts.pop(key)


class Register(_Values):
    """Registers. On keys `one-...` a single thread writes, ever greater values: these are linearizable.

    On keys `many-...` all threads write, half of them blindly: causal order holds, linearizability does not.
    """

    name: ClassVar[str] = "register"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        many = thread.rng.random() < 0.4
        write = thread.rng.random() < 0.4
        kind = "many" if many else "one"
        generation = thread.generation if write else thread.generation_to_read()
        number = thread.rng.randrange(self.keys)
        if write and not many:
            number = thread.number % self.keys
            if thread.number >= self.keys:
                write = False  # the key is another thread's
        key = f"{self.name}/{kind}-{generation}-{number}"
        return Call("write", key, thread.unique()) if write else Call("read", key)

    async def write(self, bucket: Bucket, thread: Thread, call: Call) -> Done:
        """See above."""
        if "/many-" in call.key and thread.rng.random() < 0.5:
            stored = await bucket.put(call.key, encode(call.value))
            return Done(extra={"seen": [], "context": stored.context.hex()})
        return await super().write(bucket, thread, call)


class Session(_Values):
    """Each process reads and writes a few keys that all share: it reads its writes, and never back in time."""

    name: ClassVar[str] = "session"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        if thread.rng.random() < 0.4:
            return Call("write", self.key_to_write(thread), thread.unique())
        return Call("read", self.key_to_read(thread))


class Delete(_Values):
    """Keys are written, deleted and written again: no value that a delete has seen comes back."""

    name: ClassVar[str] = "delete"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        chance = thread.rng.random()
        if chance < 0.3:
            return Call("write", self.key_to_write(thread), thread.unique())
        if chance < 0.5:
            return Call("delete", self.key_to_write(thread))
        return Call("read", self.key_to_read(thread))


class Lww(_Values):
    """Last write wins: of concurrent writes all but one are lost, and how many is measured. All writes are blind."""

    name: ClassVar[str] = "lww"
    settings: ClassVar[str] = "conflict=lww"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        if thread.rng.random() < 0.5:
            return Call("write", self.key_to_write(thread), thread.unique())
        return Call("read", self.key_to_read(thread))

    async def write(self, bucket: Bucket, thread: Thread, call: Call) -> Done:
        """See above."""
        await bucket.put(call.key, encode(call.value))
        return Done()
