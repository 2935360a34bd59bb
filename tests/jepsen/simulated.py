"""Histories of a correct store, simulated: each operation takes effect at one instant, seeded."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import Any, Protocol

from jepsen.history import History, Op
from kvstore.contexts import encode_seen
from kvstore.versions import EMPTY, CausalContext, Dot, Sibling, Version, write


class Store(Protocol):
    """One thing per key, used by one operation at a time."""

    fs: tuple[str, ...]

    def apply(self, op: Op, argument: Any) -> tuple[bool, Any]:
        """Carry out `op`: whether it happened, and what it returns."""


@dataclass
class RegisterStore:
    fs: tuple[str, ...] = ("read", "write")
    state: dict[str | None, Any] = field(default_factory=dict)

    def apply(self, op: Op, argument: Any) -> tuple[bool, Any]:
        now = self.state.get(op.key)
        if op.f == "read":
            return True, now
        if op.f == "cas" and now != argument[0]:
            return False, argument
        self.state[op.key] = argument[1] if op.f == "cas" else argument
        return True, argument


@dataclass
class SetStore:
    fs: tuple[str, ...] = ("read", "add")
    state: dict[str | None, list[Any]] = field(default_factory=dict)

    def apply(self, op: Op, argument: Any) -> tuple[bool, Any]:
        elements = self.state.setdefault(op.key, [])
        if op.f == "read":
            return True, list(elements)
        elements.append(argument)
        return True, argument


@dataclass
class TextStore:
    """Texts that grow until they are put anew, as Porcupine's key-value store has them."""

    fs: tuple[str, ...] = ("read",) * 9 + ("append",) * 9 + ("put",) * 2
    state: dict[str | None, str] = field(default_factory=dict)

    def apply(self, op: Op, argument: Any) -> tuple[bool, Any]:
        now = self.state.get(op.key, "")
        if op.f == "read":
            return True, now
        self.state[op.key] = now + argument if op.f == "append" else argument
        return True, argument


@dataclass
class SiblingStore:
    """Keys as kvstore has them. The argument of a write is what it saw and its value."""

    fs: tuple[str, ...] = ("read", "read", "write", "write", "delete")
    state: dict[str | None, Version] = field(default_factory=dict)
    dots: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def apply(self, op: Op, argument: Any) -> tuple[bool, Any]:
        version = self.state.get(op.key, EMPTY)
        if op.f == "read":
            return True, version
        seen, value = argument
        value = None if op.f == "delete" else str(value).encode()
        self.state[op.key] = write(version, seen, Sibling(Dot("a", next(self.dots)), value))
        return True, op.value


@dataclass
class _Waiting:
    op: Op
    argument: Any
    type: str | None = None
    result: Any = None


@dataclass
class Simulated:
    """Processes that use a store, one operation at a time each, in a random interleaving.

    `info` is the share of operations whose outcome stays unknown, half of which take effect, some of
    them late; `fail` the share that is refused. Where `values` is 0 each value is written once, otherwise
    they are below that number, and there is cas.
    """

    seed: int
    processes: int = 4
    keys: int = 1
    operations: int = 40
    info: float = 0.05
    fail: float = 0.05
    values: int = 0

    def register(self) -> History:
        return self._run(RegisterStore(("read", "write", "cas") if self.values else ("read", "write")))

    def set(self) -> History:
        return self._run(SetStore())

    def text(self) -> History:
        return self._run(TextStore())

    def siblings(self) -> History:
        return self._run(SiblingStore())

    def _run(self, store: Store) -> History:
        self._rng = rng = random.Random(self.seed)
        self._ops: list[Op] = []
        self._store = store
        self._late: list[tuple[Op, Any]] = []
        self._passed: dict[tuple[Any, str | None], CausalContext] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._written = itertools.count(1)
        started = 0
        while started < self.operations or self._waiting:
            if self._late and rng.random() < 0.05:
                store.apply(*self._late.pop())
            process = rng.randrange(self.processes)
            waiting = self._waiting.get(process)
            if waiting is None:
                if started < self.operations:
                    started += 1
                    self._waiting[process] = self._invoke(process)
            elif waiting.type is None:
                self._take_effect(waiting)
            else:
                self._complete(self._waiting.pop(process))
        return History(self._ops)

    def _emit(self, process: int, type: Any, f: str, value: Any, key: str | None, extra: Any = None) -> Op:
        place = len(self._ops)
        self._ops.append(Op(place, place * 1000, process, type, f, value, key, None, None, extra or {}))
        return self._ops[-1]

    def _invoke(self, process: int) -> _Waiting:
        rng = self._rng
        f, key = rng.choice(self._store.fs), f"k{rng.randrange(self.keys)}"
        value: Any = rng.randrange(self.values) if self.values else next(self._written)
        if f == "cas":
            value = [value, rng.randrange(self.values)]
        value = None if f in ("read", "delete") else value
        if isinstance(self._store, TextStore) and value is not None:
            value = f"{value} "
        if not isinstance(self._store, SiblingStore) or f == "read":
            return _Waiting(self._emit(process, "invoke", f, value, key), value)
        seen = self._passed.get((process, key), ()) if f == "delete" or rng.random() < 0.5 else ()
        extra = {"context": encode_seen(seen, 0).hex()} if seen else {}
        return _Waiting(self._emit(process, "invoke", f, value, key, extra), (seen, value))

    def _take_effect(self, waiting: _Waiting) -> None:
        fate = self._rng.random()
        if fate < self.fail:
            waiting.type = "fail"
        elif fate < self.fail + self.info:
            waiting.type = "info"
            if self._rng.random() < 0.5:
                self._late.append((waiting.op, waiting.argument))
        else:
            done, waiting.result = self._store.apply(waiting.op, waiting.argument)
            waiting.type = "ok" if done else "fail"

    def _complete(self, waiting: _Waiting) -> None:
        op = waiting.op
        value, extra = waiting.result if waiting.type == "ok" else op.value, {}
        if isinstance(value, Version):
            assert isinstance(op.process, int)
            self._passed[op.process, op.key] = value.context
            extra = {"context": encode_seen(value.context, 0).hex()}
            value = [int(sibling.value or b"") for sibling in value.visible(0)]
        self._emit(op.process, waiting.type, op.f, value, op.key, extra)  # type: ignore[arg-type]
