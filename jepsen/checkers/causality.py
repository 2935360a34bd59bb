"""What the writes of one key saw, as the checkers of causality, sessions and deletes need it.

Every value is written once, so it names its write, and a set of values is a mask: an int with the bit of
each. The *past* of a write is every value it saw, and what the writes of those saw, and so on: it has
replaced all of them. A value is *accounted for* by what a read returned if it is there, or in the past of a
value that is, or in that of a delete which may have happened.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from jepsen.checkers.values import DELETES, READS, WRITES, freeze, seen_values
from jepsen.history import Op, Operation


@dataclass(slots=True)
class Write:
    """A write of `value`, or a delete (`bit` 0). `seen` and `past` are masks."""

    operation: Operation
    value: Hashable
    bit: int
    seen: int
    past: int = 0

    @property
    def may_exist(self) -> bool:
        """Whether it was or may be applied."""
        return self.operation.type != "fail"


class Causality:
    """The writes of one key. `problems`, each with the index of an Op, are why nothing is sure of it."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.problems: list[tuple[int, str]] = []
        self.writes: dict[int, Write] = {}
        """By the index of the invocation."""
        self._by_value: dict[Hashable, Write] = {}
        self._by_bit: dict[int, Write] = {}
        self._contexts: dict[str, int] = {}
        self._deletes: list[tuple[int, int]] = []
        """For the index of each delete that may exist its past and that of all before it."""
        for op, operation in events(operations):
            if op is operation.invocation:
                if op.f in WRITES or op.f in DELETES:
                    self._add(operation)
            elif op.type == "ok" and op.extra.get("context"):
                self._learn(op, operation)

    def _add(self, operation: Operation) -> None:
        invocation = operation.invocation
        value = None if invocation.f in DELETES else freeze(invocation.value)
        bit = 0 if invocation.f in DELETES else 1 << len(self._by_bit)
        write = Write(operation, value, bit, self._seen(invocation))
        write.past = write.seen | self.past_of(write.seen)
        if bit:
            if value in self._by_value:
                self.problems.append((invocation.index, f"{value!r} is written twice"))
            self._by_value[value] = self._by_bit[bit] = write
        elif write.may_exist:
            before = self._deletes[-1][1] if self._deletes else 0
            self._deletes.append((invocation.index, before | write.past))
        self.writes[invocation.index] = write

    def _learn(self, op: Op, operation: Operation) -> None:
        """A context that was handed out, and what it covers."""
        if op.f in READS:
            covered = self.mask(seen_values(op.value))
        else:
            write = self.writes[operation.invocation.index]
            covered = write.bit | write.seen
        context = op.extra["context"]
        self._contexts[context] = self._contexts.get(context, 0) | covered

    def _seen(self, invocation: Op) -> int:
        if "seen" in invocation.extra:
            return self.mask(map(freeze, invocation.extra["seen"]))
        context = invocation.extra.get("context")
        if context and context not in self._contexts:
            self.problems.append((invocation.index, f"context {context} was never handed out"))
        return self._contexts.get(context, 0) if context else 0

    def write_of(self, value: Hashable) -> Write | None:
        """The write of `value`."""
        return self._by_value.get(value)

    def mask(self, values: Iterable[Hashable]) -> int:
        """The bits of those values that have been written."""
        mask = 0
        for value in values:
            write = self._by_value.get(value)
            if write is not None:
                mask |= write.bit
        return mask

    def values(self, mask: int) -> list[Any]:
        """The values of a mask, in the order in which they were written."""
        return [self._by_bit[bit].value for bit in _bits(mask)]

    def past_of(self, mask: int) -> int:
        """All values that the writes of those values have replaced."""
        past = 0
        for bit in _bits(mask):
            past |= self._by_bit[bit].past
        return past

    def deleted(self, before: int) -> int:
        """The past of all deletes that may have happened and were invoked before that index."""
        place = bisect_left(self._deletes, before, key=itemgetter(0))
        return self._deletes[place - 1][1] if place else 0

    def accounted(self, returned: int, before: int) -> int:
        """What is accounted for by a read that returned the values of that mask, and ended at that index."""
        return returned | self.past_of(returned) | self.deleted(before)


def events(operations: Iterable[Operation]) -> Iterator[tuple[Op, Operation]]:
    """Invocations and completions in the order in which they happened, each with its operation."""
    both: dict[int, tuple[Op, Operation]] = {}
    for operation in operations:
        for op in operation:
            if op is not None:
                both[op.index] = (op, operation)
    return (both[index] for index in sorted(both))


def _bits(mask: int) -> Iterator[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit
