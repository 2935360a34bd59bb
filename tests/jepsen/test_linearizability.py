"""The search for linearizations, against one that tries every order."""

from __future__ import annotations

import random
import time
from typing import Any

import msgspec
import pytest

from jepsen.checkers.linearizability import Linearizability, search
from jepsen.checkers.models import (
    INCONSISTENT,
    AppendList,
    AppendRegister,
    GrowSet,
    Model,
    Register,
    Transactions,
)
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
            elif invocation.f == "txn" and type == "ok":
                value = [_seen(rng, *step) for step in value]
            ops.append(Op(len(ops), len(ops), process, type, invocation.f, value))  # type: ignore[arg-type]
        elif left:
            left -= 1
            f = rng.choice(_FUNCTIONS[kind])
            written += 1
            small = rng.randint(0, 2) if kind != "append" else rng.choice("ab")
            argument: Any = [small, rng.randint(0, 2)] if f == "cas" else small
            if f == "txn":
                argument = [_step(rng) for _ in range(rng.randint(1, 2))]
            op = Op(len(ops), len(ops), process, "invoke", f, None if f in ("read", "get") else argument)
            ops.append(op)
            waiting[process] = op
    return History(ops)


_FUNCTIONS = {
    "register": ["read", "write", "cas", "delete"],
    "set": ["read", "add"],
    "append": ["get", "put", "append"],
    "list": ["read", "append"],
    "transactions": ["txn"],
}
_MODELS: dict[str, Model] = {
    "register": Register(),
    "set": GrowSet(),
    "append": AppendRegister(),
    "list": AppendList(),
    "transactions": Transactions(),
}
_HISTORIES = {"list": 1000, "transactions": 1000}


def _step(rng: random.Random) -> list[Any]:
    """Of a transaction; x and y are registers, l is a list."""
    key = rng.choice("xyl")
    f = rng.choice(["r", "append" if key == "l" else "w"])
    return [f, key, None if f == "r" else rng.randint(0, 1)]


def _seen(rng: random.Random, f: str, key: str, value: Any) -> list[Any]:
    if f == "r":
        value = [rng.randint(0, 1) for _ in range(rng.randint(0, 2))] if key == "l" else rng.randint(0, 1)
        value = None if rng.random() < 0.2 else value
    return [f, key, value]


def _any_result(rng: random.Random, kind: str, written: int) -> Any:
    if kind == "list":
        return [rng.randint(0, 1) for _ in range(rng.randint(0, 3))]
    if kind == "set":
        return rng.sample(range(3), rng.randint(0, min(3, written)))
    if kind == "append":
        return "".join(rng.choice("ab") for _ in range(rng.randint(0, 3)))
    return rng.choice([None, 0, 1, 2])


@pytest.mark.parametrize("kind", sorted(_MODELS))
def test_it_agrees_with_trying_every_order(kind: str, exercised: Exercised) -> None:
    rng = random.Random(f"brute force {kind}")
    verdicts = {True: 0, False: 0}
    for number in range(histories := _HISTORIES.get(kind, 3000)):
        history = small_history(rng, kind)
        expected = brute_force(_MODELS[kind], list(history.operations))
        assert search(_MODELS[kind], history.operations, lambda: False).valid is expected, (
            number,
            history.ops,
        )
        verdicts[expected] += 1
    assert min(verdicts.values()) > histories / 10
    exercised("histories on which the search and brute force agree", histories)


@pytest.mark.parametrize("values", [0, 5])
def test_ten_thousand_operations_are_decided_in_time(values: int) -> None:
    simulated = Simulated(1, processes=10, keys=10, operations=10_000, values=values)
    began = time.process_time()
    result = Linearizability(Register()).check(simulated.register())
    assert result.valid is True, result.line()
    assert result.counts["operations"] == 10_000
    assert time.process_time() - began < 60


@pytest.mark.parametrize("info", [0.0, 0.03])
def test_fifty_clients_that_append_do_not_make_the_search_try_every_order(info: float) -> None:
    """With 50 clients on 10 texts it took 400,000 configurations, and with unknown outcomes had no end."""
    good = Simulated(1, processes=50, keys=10, operations=2000, info=info).text()
    result = Linearizability(AppendRegister()).check(good)
    assert result.valid is True, result.line()
    assert result.counts["configurations"] < 2 * 2000

    ops = list(good)
    place = max(place for place, op in enumerate(ops) if op.f == "read" and len((op.value or "").split()) > 3)
    pieces = ops[place].value.split()
    ops[place] = msgspec.structs.replace(ops[place], value=" ".join([*reversed(pieces), ""]))
    result = Linearizability(AppendRegister()).check(History(ops))
    assert result.valid is False, result.line()
    assert result.counts["configurations"] < 2 * 2000
    assert [offence.index for offence in result.offences] == [ops[place].index]


@pytest.mark.parametrize(
    ("model", "f", "value", "result"),
    [
        (Register(), "cas", 3, 3),
        (Register(), "add", 3, 3),
        (GrowSet(), "read", None, 3),
        (AppendRegister(), "put", 3, 3),
        (AppendRegister(), "get", None, 3),
        (AppendList(), "read", None, 3),
        (AppendList(), "write", 3, 3),
        (Transactions(), "write", 3, 3),
        (Transactions(), "txn", [["inc", "x", 3]], [["inc", "x", 3]]),
        (Transactions(), "txn", [["w", "x", 3], ["append", "x", 3]], [["w", "x", 3], ["append", "x", 3]]),
        (Transactions(), "txn", [["r"]], [["r"]]),
    ],
)
def test_what_a_model_does_not_have_is_refused(model: Model, f: str, value: Any, result: Any) -> None:
    history = History([Op(0, 0, 0, "invoke", f, value), Op(1, 1, 0, "ok", f, result)])
    with pytest.raises(ValueError, match=r" "):
        Linearizability(model).check(history)


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
        (4, "read of x by process 1 = 3 cannot be linearized: no order leads to it from the state 1 or 4")
    ]
