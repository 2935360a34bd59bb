"""Histories of a correct store, simulated: each operation takes effect at one instant, seeded."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jepsen.history import History, Op


@dataclass
class Simulated:
    """Processes that use one thing each per key, one operation at a time, in a random interleaving.

    `info` is the share of operations whose outcome stays unknown, half of which take effect, some of
    them late; `fail` the share that is refused.
    """

    seed: int
    processes: int = 4
    keys: int = 1
    operations: int = 40
    info: float = 0.05
    fail: float = 0.05
    values: int | None = None
    """Values are below this number; without it each is written once."""

    def register(self) -> History:
        """Reads, writes and, where values repeat, cas."""
        state: dict[str, Any] = {}

        def apply(key: str, f: str, value: Any) -> tuple[bool, Any]:
            now = state.get(key)
            if f == "read":
                return True, now
            if f == "cas":
                if now != value[0]:
                    return False, value
                value_now = value[1]
            else:
                value_now = value
            state[key] = value_now
            return True, value

        return self._run(["read", "write", "cas"] if self.values else ["read", "write"], apply)

    def set(self) -> History:
        """Adds and reads of a growing set."""
        state: dict[str, list[Any]] = {}

        def apply(key: str, f: str, value: Any) -> tuple[bool, Any]:
            elements = state.setdefault(key, [])
            if f == "add":
                elements.append(value)
                return True, value
            return True, list(elements)

        return self._run(["read", "add"], apply)

    def _run(self, fs: list[str], apply: Callable[[str, str, Any], tuple[bool, Any]]) -> History:
        rng = random.Random(self.seed)
        ops: list[Op] = []
        late: list[tuple[str, str, Any]] = []
        waiting: dict[int, tuple[Op, Literal["ok", "fail", "info"] | None, Any]] = {}
        started = written = 0

        def emit(process: int, type: Any, f: str, value: Any, key: str) -> Op:
            ops.append(Op(len(ops), len(ops) * 1000, process, type, f, value, key))
            return ops[-1]

        while started < self.operations or waiting:
            if late and rng.random() < 0.05:
                apply(*late.pop())
            process = rng.randrange(self.processes)
            if process not in waiting:
                if started >= self.operations:
                    continue
                started += 1
                f, key = rng.choice(fs), f"k{rng.randrange(self.keys)}"
                written += 1
                value = rng.randrange(self.values) if self.values else written
                if f == "cas" and self.values:
                    value = [value, rng.randrange(self.values)]
                waiting[process] = (
                    emit(process, "invoke", f, None if f == "read" else value, key),
                    None,
                    None,
                )
                continue
            invocation, type, result = waiting[process]
            assert invocation.key is not None
            if type is None:  # now it takes effect, or does not
                fate = rng.random()
                if fate < self.fail:
                    type = "fail"
                elif fate < self.fail + self.info:
                    type = "info"
                    if rng.random() < 0.5:
                        late.append((invocation.key, invocation.f, invocation.value))
                else:
                    done, result = apply(invocation.key, invocation.f, invocation.value)
                    type = "ok" if done else "fail"
                waiting[process] = (invocation, type, result)
                continue
            del waiting[process]
            value = result if type == "ok" else invocation.value
            emit(process, type, invocation.f, value, invocation.key)
        return History(ops)
