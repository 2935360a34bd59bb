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
            old, new = argument
            return Call("cas", old, new)
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


class AppendRegister:
    """A text with get, put and append, as the labs of MIT 6.824 and the test data of Porcupine have it."""

    initial: Hashable = ""

    def call(self, f: str, argument: Any, result: Any, *, known: bool) -> Call | None:
        """See Model."""
        if f in ("get", "read"):
            return Call("get", None, result) if known else None
        if f in ("put", "write", "append"):
            return Call("append" if f == "append" else "put", argument, None)
        raise ValueError(f"a text that can be appended to has no {f}")

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


class GrowSet:
    """A set with add and read; read returns all elements, each once."""

    initial: Hashable = frozenset()

    def call(self, f: str, argument: Any, result: Any, *, known: bool) -> Call | None:
        """See Model."""
        if f == "read":
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


def _elements(result: Iterable[Hashable] | None) -> frozenset[Hashable] | None:
    """What a read returned as a set, None (which no state equals) if it has an element twice."""
    elements: Sequence[Hashable] = tuple(result or ())
    unique = frozenset(elements)
    return unique if len(unique) == len(elements) else None
