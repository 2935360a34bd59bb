"""Models: what each operation may do to a thing that only one client uses at a time.

States and values are hashable (jepsen.checkers.values.freeze). A `Call` is an operation as a model sees
it: its function, what it was invoked with, and what it returned, UNKNOWN where nobody knows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol


class Inconsistent:
    """The type of INCONSISTENT."""


INCONSISTENT: Final = Inconsistent()
"""Instead of a state: the operation cannot have happened in it."""


class Call(NamedTuple):
    """An operation for a model: its function, argument and result."""

    f: str
    argument: Any
    result: Any


class Model(Protocol):
    """A sequential specification. `initial` is the state before the first operation."""

    initial: Hashable

    def call(self, f: str, argument: Any, result: Any, *, known: bool) -> Call | None:
        """The operation as this model takes it, None if it says nothing (a read nobody heard the end of).

        `known` is false where the operation may have happened or not. Raises ValueError for an
        operation that the model does not have.
        """

    def step(self, state: Any, call: Call) -> Hashable | Inconsistent:
        """The state after `call` in `state`, INCONSISTENT if it cannot happen there."""

    def pure(self, call: Call) -> bool:
        """Whether `call` leaves every state as it is."""

    def leaves(self, call: Call) -> Hashable:
        """A mark for what `call` leaves behind, as `wants` names it."""

    def wants(self, call: Call) -> Iterable[Hashable]:
        """The marks of calls that can make `call` possible, or let it leave another state.

        An operation that may or may not have happened is taken to have happened only just before one that
        wants its mark: elsewhere leaving it out, or taking it later, does as well.
        """

    def leads(self, state: Any, call: Call) -> bool:
        """Whether `call`, a pure one, may happen in `state`, or after calls that do not restart.

        Asked in advance, so that a search that cannot succeed ends early. True where nothing is known, and
        in models some of whose calls that change something cannot happen in every state.
        """

    def restarts(self, call: Call) -> bool:
        """Whether `call` can happen in every state, and leaves the same one after each."""


class Register:
    """A register with read, write and cas; None is no value. A delete is a write of None.

    `cas` has `[old, new]` as its argument and happens only if the value is old.
    """

    def __init__(self, initial: Hashable = None) -> None:
        self.initial = initial

    def call(self, f: str, argument: Any, result: Any, *, known: bool) -> Call | None:
        """See Model."""
        if f in ("read", "get"):
            return Call("read", None, result) if known else None
        if f in ("write", "put"):
            return Call("write", argument, None)
        if f == "delete":
            return Call("write", self.initial, None)
        if f == "cas":
            if not isinstance(argument, tuple) or len(argument) != 2:
                raise ValueError(f"a cas has two values, not {argument!r}")
            return Call("cas", *argument)
        raise ValueError(f"a register has no {f}")

    def step(self, state: Any, call: Call) -> Hashable | Inconsistent:
        """See Model."""
        f, argument, result = call
        if f == "read":
            return state if state == result else INCONSISTENT
        if f == "write":
            return argument  # type: ignore[no-any-return]  # a hashable, by its making
        return result if state == argument else INCONSISTENT

    def pure(self, call: Call) -> bool:
        """See Model."""
        return call.f == "read"

    def leaves(self, call: Call) -> Hashable:
        """See Model: the value."""
        return call.result if call.f == "cas" else call.argument  # type: ignore[no-any-return]  # hashables

    def wants(self, call: Call) -> Iterable[Hashable]:
        """See Model."""
        if call.f == "write":
            return ()
        return (call.argument,) if call.f == "cas" else (call.result,)

    def leads(self, state: Any, call: Call) -> bool:
        """See Model: a register has few states, so nothing is gained by asking in advance."""
        return True

    def restarts(self, call: Call) -> bool:
        """See Model."""
        return call.f == "write"


class AppendRegister:
    """A text with get, put and append, as the labs of MIT 6.824 and the test data of Porcupine have it."""

    initial: Hashable = ""

    def call(self, f: str, argument: Any, result: Any, *, known: bool) -> Call | None:
        """See Model. A get of None is one of the empty text."""
        if f in ("get", "read"):
            return Call("get", None, self._piece(result)) if known else None
        if f in ("put", "write", "append"):
            return Call("append" if f == "append" else "put", self._piece(argument), None)
        raise ValueError(f"a text that can be appended to has no {f}")

    def _piece(self, value: Any) -> Hashable:
        if not isinstance(value, str | None):
            raise ValueError(f"{value!r} is no text")
        return value or ""

    def step(self, state: Any, call: Call) -> Hashable | Inconsistent:
        """See Model."""
        if call.f == "get":
            return state if state == call.result else INCONSISTENT
        return state + call.argument if call.f == "append" else call.argument  # type: ignore[no-any-return]

    def pure(self, call: Call) -> bool:
        """See Model."""
        return call.f == "get"

    def leaves(self, call: Call) -> Hashable:
        """See Model: any call can matter to any later one but a put."""
        return None

    def wants(self, call: Call) -> Iterable[Hashable]:
        """See Model."""
        return () if call.f == "put" else (None,)

    def leads(self, state: Any, call: Call) -> bool:
        """See Model: what is there stays in front until the next put."""
        return call.result.startswith(state)  # type: ignore[no-any-return]  # a text

    def restarts(self, call: Call) -> bool:
        """See Model."""
        return call.f == "put"


class AppendList(AppendRegister):
    """A list with read and append, as Elle's list-append has it: an append adds one element."""

    initial: Hashable = ()

    def call(self, f: str, argument: Any, result: Any, *, known: bool) -> Call | None:
        """See Model. A read of None is one of the empty list."""
        if f == "read":
            return Call("get", None, self._piece(result)) if known else None
        if f == "append":
            return Call("append", (argument,), None)
        raise ValueError(f"a list that can be appended to has no {f}")

    def _piece(self, value: Any) -> Hashable:
        if not isinstance(value, tuple | None):
            raise ValueError(f"{value!r} is no list")
        return value or ()

    def leads(self, state: Any, call: Call) -> bool:
        """See Model."""
        return call.result[: len(state)] == state  # type: ignore[no-any-return]  # tuples


class Transactions:
    """Any number of registers and lists, used by transactions: `(("append", key, 1), ("r", key, (1,)))`.

    Strict serializability is linearizability of all of them together. The state is the set of pairs of a key
    and its value; a key without one is the empty list, which is also what a read of None has seen.
    """

    initial: Hashable = frozenset()

    def call(self, f: str, argument: Any, result: Any, *, known: bool) -> Call | None:
        """See Model."""
        steps = result if known else argument
        if f != "txn" or not isinstance(steps, tuple):
            raise ValueError(f"{f} of {steps!r} is no transaction")
        for step in steps:
            if not isinstance(step, tuple) or (*step[:1], len(step)) not in _STEPS:
                raise ValueError(f"a transaction has no {step!r}")
        reads = all(step[0] == "r" for step in steps)
        return None if reads and not known else Call("reads" if reads else "txn", steps, known)

    def step(self, state: Any, call: Call) -> Hashable | Inconsistent:
        """See Model. What a transaction reads is known if its result is true."""
        values = dict(state)
        for f, key, *rest in call.argument:
            now, value = values.get(key, ()), rest[0] if rest else None
            if f == "w":
                values[key] = () if value is None else value
            elif f == "append":
                values[key] = (*_list(now), value)
            elif call.result and now != (() if value is None else value):
                return INCONSISTENT
        return frozenset(values.items())

    def pure(self, call: Call) -> bool:
        """See Model."""
        return call.f == "reads"

    def leaves(self, call: Call) -> Hashable:
        """See Model: any transaction can matter to any later one."""
        return None

    def wants(self, call: Call) -> Iterable[Hashable]:
        """See Model: also a transaction that only writes leaves what it does not write."""
        return (None,)

    def leads(self, state: Any, call: Call) -> bool:
        """See Model: transactions that read do not happen in every state."""
        return True

    def restarts(self, call: Call) -> bool:
        """See Model."""
        return False


def _list(value: Hashable) -> tuple[Hashable, ...]:
    if not isinstance(value, tuple):
        raise ValueError(f"{value!r} is no list that can be appended to")
    return value


_STEPS = {("r", 2), ("r", 3), ("w", 3), ("append", 3)}


class GrowSet:
    """A set with add and read; read returns all elements, each once."""

    initial: Hashable = frozenset()

    def call(self, f: str, argument: Any, result: Any, *, known: bool) -> Call | None:
        """See Model."""
        if f == "read":
            if not isinstance(result, tuple | frozenset | None):
                raise ValueError(f"{result!r} is no set")
            return Call("read", None, _elements(result)) if known else None
        if f == "add":
            return Call("add", argument, None)
        raise ValueError(f"a set has no {f}")

    def step(self, state: Any, call: Call) -> Hashable | Inconsistent:
        """See Model."""
        if call.f == "add":
            return state | {call.argument}  # type: ignore[no-any-return]  # a frozenset
        return state if state == call.result else INCONSISTENT

    def pure(self, call: Call) -> bool:
        """See Model."""
        return call.f == "read"

    def leaves(self, call: Call) -> Hashable:
        """See Model: the element."""
        return call.argument  # type: ignore[no-any-return]  # a hashable, by its making

    def wants(self, call: Call) -> Iterable[Hashable]:
        """See Model."""
        return () if call.f == "add" else call.result or ()

    def leads(self, state: Any, call: Call) -> bool:
        """See Model: what is there stays there."""
        return call.result is not None and state <= call.result

    def restarts(self, call: Call) -> bool:
        """See Model."""
        return False


def _elements(result: Iterable[Hashable] | None) -> frozenset[Hashable] | None:
    """What a read returned as a set, None (which no state equals) if it has an element twice."""
    elements: Sequence[Hashable] = tuple(result or ())
    unique = frozenset(elements)
    return unique if len(unique) == len(elements) else None
