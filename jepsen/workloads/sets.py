"""Workloads `set`, `cart` and `counter`: nothing that was added and acknowledged may be lost."""

from __future__ import annotations

from typing import ClassVar

from jepsen.workloads.base import Call, Done, Thread, Workload, encode, read_first, union
from kvstore.client.asynchronous import Bucket
from kvstore.client.results import Result

_BLIND = 0.25


class Set(Workload):
    """Sets as values. An element is added blindly, as a sibling, or over all that a read has seen.

    `add`: value is the element; `read`: value is the list of all elements.
    """

    name: ClassVar[str] = "set"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        if thread.rng.random() < 0.5:
            return Call("add", self.key_to_write(thread), thread.unique())
        return Call("read", self.key_to_read(thread))

    async def perform(self, bucket: Bucket, thread: Thread, call: Call) -> Done:
        """See Workload."""
        if call.f == "read":
            return read_elements(await bucket.get(call.key))
        if thread.rng.random() < _BLIND:
            await bucket.put(call.key, encode([call.value]), blind=True)
            return Done(extra={"blind": True})
        seen = await read_first(bucket, call.key)
        await bucket.put(call.key, encode([*union(seen), call.value]), context=seen.context)
        return Done()

    async def final(self, bucket: Bucket, key: str) -> Done:
        """See Workload."""
        return read_elements(await bucket.get(key))


class Cart(Set):
    """The shopping cart of the Dynamo paper: items are added and removed by read-resolve-write.

    Siblings are united, so an item that was removed may come back (section 4.4); one that was added and not
    removed may not be lost. `add`, `remove`: value is the item; `read`: value is the list of items.
    """

    name: ClassVar[str] = "cart"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        chance = thread.rng.random()
        key = self.key_to_write(thread)
        if chance < 0.4:
            return Call("add", key, thread.unique())
        if chance < 0.6 and thread.seen.get(key):
            return Call("remove", key, thread.rng.choice(thread.seen[key]))
        return Call("read", self.key_to_read(thread))

    async def perform(self, bucket: Bucket, thread: Thread, call: Call) -> Done:
        """See Workload."""
        result = await (bucket.get(call.key) if call.f == "read" else read_first(bucket, call.key))
        items = union(result)
        thread.seen[call.key] = items
        if call.f == "read":
            return read_elements(result)
        changed = [item for item in items if item != call.value]
        if call.f == "add":
            changed.append(call.value)
        await bucket.put(call.key, encode(changed), context=result.context)
        return Done()


class Counter(Workload):
    """Load that counts: each `add` writes a key of its own, so throughput is as good as it gets.

    The history knows them as elements of one set: what is there in the end must be what was acknowledged,
    and no more than was tried. `look` reads one of the thread's own: `extra["found"]` tells whether it was
    there.
    """

    name: ClassVar[str] = "counter"

    def next(self, thread: Thread) -> Call:
        """See Workload."""
        if thread.seen.get("mine") and thread.rng.random() < 0.4:
            return Call("look", "counter/all", thread.rng.choice(thread.seen["mine"]))
        return Call("add", "counter/all", thread.unique())

    async def perform(self, bucket: Bucket, thread: Thread, call: Call) -> Done:
        """See Workload."""
        key = f"counter/{call.value}"
        if call.f == "look":
            return Done(extra={"found": bool(await bucket.get(key))})
        await bucket.put(key, b"1")
        mine = thread.seen.setdefault("mine", [])
        mine.append(call.value)
        del mine[:-100]
        return Done()

    async def final(self, bucket: Bucket, key: str) -> Done:
        """See Workload."""
        found = [int(name.split(b"/")[1]) async for name in bucket.scan_keys(timeout=30)]
        return Done(sorted(found))


def read_elements(result: Result) -> Done:
    """A read's outcome: all elements."""
    return Done(union(result), {"siblings": len(result.siblings)})
