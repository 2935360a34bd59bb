"""What a workload is: a generator of operations, and how each is carried out through the public client.

A workload's keys are in a bucket of its own name, and begin with it. Keys come in generations: all threads
use the same few at a time, so that they meet, and later others, so that values stay small; old ones are
still read.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from kvstore.client.asynchronous import Bucket
from kvstore.client.results import Result, Sibling
from kvstore.errors import KVError

_GENERATION_SECONDS = 15.0
_OLD = 0.2
"""How many of the reads are of an older generation's keys."""


class Call(NamedTuple):
    """An operation to be invoked: Jepsen's f, key, value, and what else the history should know."""

    f: str
    key: str
    value: Any = None
    extra: dict[str, Any] = {}  # noqa: RUF012  (nobody changes it)


class Done(NamedTuple):
    """What an operation that was completed brought."""

    value: Any = None
    extra: dict[str, Any] = {}  # noqa: RUF012


class NotSent(Exception):
    """The read before a write failed with this error, so that the write was never sent."""

    def __init__(self, error: KVError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Thread:
    """One of the threads that operate, in turn as different processes: each begins anew after an `info`.

    `number` is its place among `threads`; `elapsed` the seconds since the run began.
    """

    number: int
    threads: int
    rng: random.Random
    elapsed: float = 0.0
    contexts: dict[str, bytes] = field(default_factory=dict)
    """By key: what the process may write over without reading first."""
    seen: dict[str, list[Any]] = field(default_factory=dict)
    """By key: the values that this context has seen."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def unique(self) -> int:
        """A number that no thread gets again, rising within the thread."""
        return next(self._numbers) * self.threads + self.number

    def forget(self) -> None:
        """The next operation is another process's."""
        self.contexts.clear()
        self.seen.clear()

    @property
    def generation(self) -> int:
        """Which keys are in use now."""
        return int(self.elapsed // _GENERATION_SECONDS)

    def generation_to_read(self) -> int:
        """Mostly the one in use, at times an older one."""
        if self.generation and self.rng.random() < _OLD:
            return self.rng.randrange(self.generation)
        return self.generation


class Workload:
    """Base of all workloads. `settings` are those of its bucket, but for the quorum."""

    name: ClassVar[str]
    settings: ClassVar[str] = ""

    def __init__(self, keys: int) -> None:
        """`keys` are in use at a time."""
        self.keys = keys

    def next(self, thread: Thread) -> Call:
        """The next operation of a thread."""
        raise NotImplementedError

    async def perform(self, bucket: Bucket, thread: Thread, call: Call) -> Done:
        """Carry it out; raises KVError, or NotSent."""
        raise NotImplementedError

    async def final(self, bucket: Bucket, key: str) -> Done:
        """Read a key after all faults have ended."""
        return read_values(await bucket.get(key))

    def key(self, generation: int, number: int) -> str:
        """The name of a key."""
        return f"{self.name}/{generation}-{number}"

    def key_to_write(self, thread: Thread) -> str:
        """One of the keys in use."""
        return self.key(thread.generation, thread.rng.randrange(self.keys))

    def key_to_read(self, thread: Thread) -> str:
        """One of the keys in use, or an older one."""
        return self.key(thread.generation_to_read(), thread.rng.randrange(self.keys))


def encode(value: Any) -> bytes:
    """A value as it is stored."""
    return json.dumps(value, separators=(",", ":")).encode()


def decode(sibling: Sibling) -> Any:
    """What was stored."""
    return json.loads(sibling.value)


def values_of(result: Result) -> list[Any]:
    """All values of a key, in order."""
    return sorted(map(decode, result.siblings))


def read_values(result: Result) -> Done:
    """A read's outcome: the list of all values."""
    return Done(values_of(result), {"context": result.context.hex()})


def union(result: Result) -> list[Any]:
    """Of siblings that are lists: all that is in any of them."""
    return sorted({element for sibling in result.siblings for element in decode(sibling)})


async def read_first(bucket: Bucket, key: str) -> Result:
    """The read of a read-resolve-write; raises NotSent, for nothing has been written then."""
    try:
        return await bucket.get(key)
    except KVError as error:
        raise NotSent(error) from error
