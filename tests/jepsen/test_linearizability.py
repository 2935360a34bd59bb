"""The search for linearizations, against one that tries every order."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from jepsen.checkers.linearizability import Linearizability, search
from jepsen.checkers.models import INCONSISTENT, AppendRegister, GrowSet, Model, Register
from jepsen.checkers.values import freeze
from jepsen.history import History, Op, Operation
from tests.conftest import Exercised
from tests.jepsen.simulated import Simulated


def brute_force(model: Model, operations: list[Operation]) -> bool:
    """Whether any order of the operations, with or without each unknown one, is linearizable."""
    calls = []
    for operation in operations:
        invocation, completion = operation
        ok = operation.type == "ok"
        result = freeze(completion.value) if completion is not None and ok else None
        call = model.call(invocation.f, freeze(invocation.value), result, known=ok)
        if operation.type != "fail" and call is not None:
            end = completion.index if completion is not None and ok else 1 << 30
            calls.append((call, invocation.index, end, ok))

    def possible(left: frozenset[int], state: Any) -> bool:
        if not any(calls[i][3] for i in left):
            return True
        for i in left:
            call, began, _, _ = calls[i]
            if any(calls[j][2] < began for j in left if j != i):
                continue
            after = model.step(state, call)
            if after is not INCONSISTENT and possible(left - {i}, after):
                return True
        return False

    return possible(frozenset(range(len(calls))), model.initial)


def small_history(rng: random.Random, kind: str) -> History:
    """Any few operations with any results, most of them linearizable only with luck."""
    ops: list[Op] = []
    waiting: dict[int, Op] = {}
    left = rng.randint(2, 9)
    outcomes = rng.choice([["ok"], ["ok", "ok", "info", "fail"], ["ok", "info"]])
    written = 0
    while left or waiting:
        process = rng.randrange(4)
        if process in waiting:
            invocation = waiting.pop(process)
            type = rng.choice(outcomes) if invocation.f not in ("read", "get") else "ok"
            value = invocation.value
            if invocation.f in ("read", "get") and type == "ok":
                value = _any_result(rng, kind, written)
            ops.append(Op(len(ops), len(ops), process, type, invocation.f, value))  # type: ignore[arg-type]
        elif left:
            left -= 1
            f = rng.choice({"set": ["read", "add"], "append": ["get", "put", "append"]}.get(kind, _REGISTER))
            written += 1
            small = rng.randint(0, 2) if kind != "append" else rng.choice("ab")
            argument = [small, rng.randint(0, 2)] if f == "cas" else small
            op = Op(len(ops), len(ops), process, "invoke", f, None if f in ("read", "get") else argument)
            ops.append(op)
            waiting[process] = op
    return History(ops)


_REGISTER = ["read", "write", "cas", "delete"]
_MODELS: dict[str, Model] = {"register": Register(), "set": GrowSet(), "append": AppendRegister()}


def _any_result(rng: random.Random, kind: str, written: int) -> Any:
    if kind == "set":
        return rng.sample(range(3), rng.randint(0, min(3, written)))
    if kind == "append":
        return "".join(rng.choice("ab") for _ in range(rng.randint(0, 3)))
    return rng.choice([None, 0, 1, 2])


@pytest.mark.parametrize("kind", sorted(_MODELS))
def test_it_agrees_with_trying_every_order(kind: str, exercised: Exercised) -> None:
    rng = random.Random(f"brute force {kind}")
    verdicts = {True: 0, False: 0}
    for number in range(3000):
        history = small_history(rng, kind)
        expected = brute_force(_MODELS[kind], list(history.operations))
        assert search(_MODELS[kind], history.operations, lambda: False).valid is expected, (
            number,
            history.ops,
        )
        verdicts[expected] += 1
    assert min(verdicts.values()) > 300
    exercised("histories on which the search and brute force agree", 3000)


@pytest.mark.parametrize("values", [0, 5])
def test_ten_thousand_operations_are_decided_in_time(values: int) -> None:
    simulated = Simulated(1, processes=10, keys=10, operations=10_000, values=values)
    began = time.process_time()
    result = Linearizability(Register()).check(simulated.register())
    assert result.valid is True, result.line()
    assert result.counts["operations"] == 10_000
    assert time.process_time() - began < 60


def test_out_of_time_is_unknown_and_no_pass() -> None:
    ticks = iter(range(1_000_000))
    history = Simulated(3, processes=10, operations=5_000).register()
    result = Linearizability(Register(), seconds=2, clock=lambda: next(ticks)).check(history)
    assert result.valid == "unknown"
    assert result.counts["undecided keys"] == 1


def test_the_offending_operation_is_named() -> None:
    history = History(
        [
            Op(0, 0, 0, "invoke", "write", 1, "x"),
            Op(1, 1, 0, "ok", "write", 1, "x"),
            Op(2, 2, 1, "invoke", "read", None, "x"),
            Op(3, 3, 0, "invoke", "write", 4, "x"),
            Op(4, 4, 1, "ok", "read", 3, "x"),
            Op(5, 5, 0, "ok", "write", 4, "x"),
            Op(6, 6, 2, "invoke", "read", None, "x"),
            Op(7, 7, 2, "ok", "read", 4, "x"),
        ]
    )
    result = Linearizability(Register()).check(history)
    assert result.valid is False
    assert [(o.index, o.reason) for o in result.offences] == [
        (4, "read of x by process 1 = 3 cannot be linearized: the state could only have been 1 or 4")
    ]
