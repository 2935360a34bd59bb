"""Correct histories made bad in one known way each: what the checkers must see.

A mutation takes a correct history and gives a bad one, or None where the history has no place for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from jepsen.history import History, Op, Operation

Mutation = Callable[[History, random.Random], History | None]


class Read(NamedTuple):
    """An ok read and what it returned."""

    began: int
    ended: int
    op: Op

    @property
    def value(self) -> Any:
        return self.op.value


def changed(history: History, changes: dict[int, dict[str, Any]]) -> History:
    """The history with fields of some of its operations replaced, by index."""
    return History(
        msgspec.structs.replace(op, **changes[op.index]) if op.index in changes else op for op in history
    )


def appended(history: History, *operations: tuple[int, str, Any, Any, str | None]) -> History:
    """The history and then these operations, one by one: (process, f, argument, result, key)."""
    ops = list(history.ops)
    for process, f, argument, result, key in operations:
        for type, value in (("invoke", argument), ("ok", result)):
            ops.append(Op(len(ops), len(ops) * 1000, process, type, f, value, key))  # type: ignore[arg-type]
    return History(ops)


def reads(history: History, key: str | None = None) -> list[Read]:
    return [
        Read(i.index, c.index, c)
        for i, c in history.operations
        if i.f == "read" and c is not None and c.type == "ok" and (key is None or i.key == key)
    ]


def writes(history: History, type: str = "ok", f: str = "write") -> list[Operation]:
    return [o for o in history.operations if o.invocation.f == f and o.type == type]


def _shuffled(items: list[Any], rng: random.Random) -> list[Any]:
    return rng.sample(items, len(items))


def _stale_pairs(history: History, rng: random.Random) -> Iterator[tuple[Read, Operation, Read]]:
    """A read, a write of another value that began after it, and a read of that which began after that."""
    for late in _shuffled(reads(history), rng):
        for write in writes(history):
            if (
                write.completion is None
                or write.completion.index > late.began
                or write.invocation.value != late.value
            ):
                continue
            for early in reads(history, late.op.key):
                before = early.ended < write.invocation.index and write.invocation.key == late.op.key
                if before and early.value not in (None, late.value):
                    yield early, write, late


# Registers, each value written once.


def stale_read(history: History, rng: random.Random) -> History | None:
    for early, _, late in _stale_pairs(history, rng):
        return changed(history, {late.ended: {"value": early.value}})
    return None


def lost_write(history: History, rng: random.Random) -> History | None:
    """All that read it see what was there before."""
    for early, _, late in _stale_pairs(history, rng):
        of_it = [r for r in reads(history, late.op.key) if r.value == late.value]
        return changed(history, {r.ended: {"value": early.value} for r in of_it})
    return None


def never_written(history: History, rng: random.Random) -> History | None:
    for read in _shuffled(reads(history), rng):
        return changed(history, {read.ended: {"value": 10**9}})
    return None


def read_before_written(history: History, rng: random.Random) -> History | None:
    for write in _shuffled(writes(history), rng):
        for read in reads(history, write.invocation.key):
            if read.ended < write.invocation.index:
                return changed(history, {read.ended: {"value": write.invocation.value}})
    return None


def swapped_results(history: History, rng: random.Random) -> History | None:
    for early, _, late in _stale_pairs(history, rng):
        return changed(history, {late.ended: {"value": early.value}, early.ended: {"value": late.value}})
    return None


def swapped_completions(history: History, rng: random.Random) -> History | None:
    """A write is reported before it is sent, as if a read that waited for it had ended first."""
    for early, write, late in _stale_pairs(history, rng):
        assert write.completion is not None
        return changed(
            history, {early.ended: {"value": write.invocation.value}, late.ended: {"value": early.value}}
        )
    return None


def double_apply(history: History, rng: random.Random) -> History | None:
    """A write that was overwritten, and whose follower has been read, takes effect once more."""
    for early, _, late in _stale_pairs(history, rng):
        key = late.op.key
        return appended(
            history,
            (90, "write", -1, -1, key),
            (91, "read", None, -1, key),
            (91, "read", None, early.value, key),
        )
    return None


def value_forgotten(history: History, rng: random.Random) -> History | None:
    for _, _, late in _stale_pairs(history, rng):
        return changed(history, {late.ended: {"value": None}})
    return None


def refused_but_applied(history: History, rng: random.Random) -> History | None:
    values = {(r.op.key, r.value) for r in reads(history)}
    for write in _shuffled(writes(history), rng):
        if (write.invocation.key, write.invocation.value) in values and write.completion:
            return changed(history, {write.completion.index: {"type": "fail", "error": "refused"}})
    return None


def flickering_read(history: History, _: random.Random) -> History | None:
    """Two values in turn: each is there, gone and there again."""
    key = history.operations[0].invocation.key
    a, b = -1, -2
    return appended(
        history,
        *((90, "write", v, v, key) for v in (a, b)),
        *((91, "read", None, v, key) for v in (b, a, b)),
    )


def cas_without_its_value(history: History, _: random.Random) -> History | None:
    return appended(history, (90, "cas", [10**9, 1], [10**9, 1], "k0"))


def cas_twice_from_one_value(history: History, _: random.Random) -> History | None:
    key = "k0"
    return appended(
        history,
        (90, "write", -1, -1, key),
        (90, "read", None, -1, key),
        (91, "cas", [-1, -2], [-1, -2], key),
        (92, "cas", [-1, -3], [-1, -3], key),
    )


def deleted_register_is_back(history: History, _: random.Random) -> History | None:
    key = history.operations[0].invocation.key
    return appended(
        history,
        (90, "write", -1, -1, key),
        (90, "delete", None, None, key),
        (91, "read", None, None, key),
        (91, "read", None, -1, key),
    )


# Sets.


def _known_and_read(history: History, rng: random.Random) -> Iterator[tuple[Operation, list[Read]]]:
    """An acknowledged add and all reads that began after it ended, two at least."""
    for add in _shuffled(writes(history, f="add"), rng):
        assert add.completion is not None
        after = [r for r in reads(history, add.invocation.key) if r.began > add.completion.index]
        if len(after) > 1:
            yield add, after


def _without(read: Read, value: Any) -> dict[str, Any]:
    return {"value": [v for v in read.value if v != value]}


def lost_element(history: History, rng: random.Random) -> History | None:
    for add, _ in _known_and_read(history, rng):
        value = add.invocation.value
        having = [r for r in reads(history, add.invocation.key) if value in r.value]
        return changed(history, {r.ended: _without(r, value) for r in having})
    return None


def element_lost_after_it_was_read(history: History, rng: random.Random) -> History | None:
    """Also of an add of unknown outcome: who has read it may count on it."""
    for add in [*_shuffled(writes(history, "info", "add"), rng), *_shuffled(writes(history, f="add"), rng)]:
        value = add.invocation.value
        having = [r for r in reads(history, add.invocation.key) if value in r.value]
        later = [r for r in having if r.began > having[0].ended]
        if later:
            first = min(having, key=lambda r: r.ended)
            return changed(history, {r.ended: _without(r, value) for r in having if r.began > first.ended})
    return None


def stale_element(history: History, rng: random.Random) -> History | None:
    for add, after in _known_and_read(history, rng):
        first = min(after, key=lambda r: r.began)
        return changed(history, {first.ended: _without(first, add.invocation.value)})
    return None


def element_twice(history: History, rng: random.Random) -> History | None:
    for read in _shuffled(reads(history), rng):
        if read.value:
            return changed(history, {read.ended: {"value": [*read.value, read.value[0]]}})
    return None


def element_never_added(history: History, rng: random.Random) -> History | None:
    for read in _shuffled(reads(history), rng):
        return changed(history, {read.ended: {"value": [*read.value, 10**9]}})
    return None


def element_before_its_add(history: History, rng: random.Random) -> History | None:
    for add in _shuffled(writes(history, f="add"), rng):
        for read in reads(history, add.invocation.key):
            if read.ended < add.invocation.index:
                return changed(history, {read.ended: {"value": [*read.value, add.invocation.value]}})
    return None


def refused_element_is_read(history: History, rng: random.Random) -> History | None:
    for add in _shuffled(writes(history, "fail", "add"), rng):
        for read in reads(history, add.invocation.key):
            if read.began > add.invocation.index:
                return changed(history, {read.ended: {"value": [*read.value, add.invocation.value]}})
    return None


def reads_that_contradict(history: History, _: random.Random) -> History | None:
    """Two adds, of which one read sees only the one and a later read only the other."""
    key = history.operations[0].invocation.key
    last = max(reads(history, key), key=lambda r: r.ended, default=None)
    base = last.value if last else []
    return appended(
        history,
        (90, "add", -1, -1, key),
        (90, "add", -2, -2, key),
        (91, "read", None, [*base, -1], key),
        (91, "read", None, [*base, -2], key),
    )


# Keys with siblings.


def _replacements(history: History, rng: random.Random) -> Iterator[tuple[Read, Operation, Read]]:
    """A read, an acknowledged write or delete that passed its context, and a read that began after that."""
    contexts: dict[str, Read] = {}
    for read in reads(history):
        contexts.setdefault(read.op.extra["context"], read)
    both = writes(history) + writes(history, f="delete")
    for write in _shuffled(both, rng):
        seen = contexts.get(write.invocation.extra.get("context", ""))
        assert write.completion is not None
        if seen is None or not seen.value or seen.op.key != write.invocation.key:
            continue
        for late in reads(history, write.invocation.key):
            if late.began > write.completion.index and not set(seen.value) & set(late.value):
                yield seen, write, late


def lost_sibling(history: History, rng: random.Random) -> History | None:
    for write in _shuffled(writes(history), rng):
        value = write.invocation.value
        having = [r for r in reads(history, write.invocation.key) if value in r.value]
        contexts = {read.op.extra["context"] for read in having}
        for read in having:
            replaced = any(
                op.type == "invoke" and op.extra.get("context") in contexts for op in history[: read.ended]
            )
            if not replaced and write.completion and read.began > write.completion.index:
                return changed(history, {read.ended: _without(read, value)})
    return None


def replaced_sibling_is_back(history: History, rng: random.Random) -> History | None:
    for seen, _, late in _replacements(history, rng):
        return changed(history, {late.ended: {"value": [*late.value, seen.value[0]]}})
    return None


def deleted_sibling_is_back(history: History, rng: random.Random) -> History | None:
    for seen, write, late in _replacements(history, rng):
        if write.invocation.f == "delete":
            return changed(history, {late.ended: {"value": [*late.value, seen.value[0]]}})
    return None


def sibling_with_its_replacement(history: History, rng: random.Random) -> History | None:
    for seen, write, late in _replacements(history, rng):
        if write.invocation.f == "write" and write.invocation.value in late.value:
            return changed(history, {late.ended: {"value": [*late.value, seen.value[0]]}})
    return None


def sibling_never_written(history: History, rng: random.Random) -> History | None:
    for read in _shuffled(reads(history), rng):
        return changed(history, {read.ended: {"value": [*read.value, 10**9]}})
    return None


def own_write_unread(history: History, _: random.Random) -> History | None:
    key = history.operations[0].invocation.key
    last = max(reads(history, key), key=lambda r: r.ended, default=None)
    return appended(
        history, (90, "write", -1, -1, key), (90, "read", None, list(last.value) if last else [], key)
    )


def read_goes_back(history: History, _: random.Random) -> History | None:
    key = history.operations[0].invocation.key
    return appended(
        history,
        (90, "write", -1, -1, key),
        (91, "read", None, [-1], key),
        (91, "read", None, [], key),
    )


def refused_sibling_is_read(history: History, rng: random.Random) -> History | None:
    for write in _shuffled(writes(history, "fail"), rng):
        for read in reads(history, write.invocation.key):
            if read.began > write.invocation.index:
                return changed(history, {read.ended: {"value": [*read.value, write.invocation.value]}})
    return None


def replaced_for_who_read_it(history: History, _: random.Random) -> History | None:
    """A process sees what was replaced in the eyes of one whose write it has read."""
    a, b, c = -1, -2, -3
    key = "elsewhere"
    ops = list(appended(history, (90, "write", a, a, key), (90, "read", None, [a], key)).ops)
    ops[-1] = msgspec.structs.replace(ops[-1], extra={"context": "aa"})
    ops = list(appended(History(ops), (90, "write", b, b, key), (91, "read", None, [b], key)).ops)
    ops[-4] = msgspec.structs.replace(ops[-4], extra={"context": "aa"})
    ops = list(appended(History(ops), (91, "write", c, c, key), (92, "read", None, [c], key)).ops)
    return appended(History(ops), (92, "read", None, [a], key))


# Sessions on registers.


def session_goes_back(history: History, _: random.Random) -> History | None:
    key = history.operations[0].invocation.key
    return appended(
        history,
        *((90, "write", v, v, key) for v in (-1, -2)),
        *((91, "read", None, v, key) for v in (-1, -2, -1)),
    )


def session_forgets_its_write(history: History, _: random.Random) -> History | None:
    key = history.operations[0].invocation.key
    return appended(history, *((90, "write", v, v, key) for v in (-1, -2)), (90, "read", None, -1, key))
