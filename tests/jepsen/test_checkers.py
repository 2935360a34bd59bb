"""Checkers that judge other things than the values of a simulated history."""

from __future__ import annotations

import random
from typing import Literal

import msgspec
import pytest

from jepsen.checkers import check, valid
from jepsen.checkers.availability import Availability
from jepsen.checkers.causal import Causal
from jepsen.checkers.convergence import Convergence
from jepsen.checkers.counts import Counts
from jepsen.checkers.delete import Delete
from jepsen.checkers.errors import Errors
from jepsen.checkers.latency import Latency
from jepsen.checkers.linearizability import Linearizability
from jepsen.checkers.models import GrowSet, Register
from jepsen.checkers.result import Offence, Result
from jepsen.checkers.session import Session
from jepsen.checkers.set_full import SetFull
from jepsen.history import History, Op
from tests.jepsen import mutations as m
from tests.jepsen.simulated import Simulated

EMPTY = History([])
SECOND = 1_000_000_000


def test_nothing_exercised_is_no_pass() -> None:
    for checker in (
        Linearizability(Register()),
        SetFull(),
        Causal(),
        Session(),
        Delete(),
        Convergence({}),
        Counts({}),
        Availability({"majority": 0.99}),
    ):
        assert checker.check(EMPTY).valid is not True, checker.name
    assert valid({}) == "unknown"


def test_unknown_is_worse_than_valid_and_better_than_invalid() -> None:
    of = {name: Result(name, verdict) for name, verdict in (("a", True), ("b", "unknown"), ("c", False))}  # type: ignore[arg-type]
    assert valid({"a": of["a"]}) is True
    assert valid({"a": of["a"], "b": of["b"]}) == "unknown"
    assert valid(of) is False


def test_two_checkers_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="errors"):
        check(EMPTY, [Errors(), Errors()])


def test_replicas_that_differ_are_named() -> None:
    same = {"n1": {"k": b"v"}, "n2": {"k": b"v"}}
    assert Convergence({"p0": same}).check(EMPTY).valid is True
    other = Convergence({"p0": {**same, "n3": {"k": b"w"}}, "p1": {"n1": {"m": b""}, "n2": {}}}).check(EMPTY)
    assert other.valid is False
    assert [offence.reason for offence in other.offences] == [
        "k (p0) has 2 different versions",
        "m (p1) is missing on n2",
    ]


def test_a_run_that_did_too_little_is_unknown() -> None:
    history = Simulated(1, operations=50).register()
    assert Counts({"read": 10, "write": 10}).check(history).valid is True
    too_few = Counts({"read": 1000}, ["start-partition"]).check(history)
    assert too_few.valid == "unknown"
    assert [offence.reason for offence in too_few.offences] == [
        f"only {too_few.counts['read ok']} read were ok, 1,000 are the least that count",
        "start-partition never took effect",
    ]
    tried = [
        Op(0, 0, "nemesis", "info", "start-partition"),
        Op(1, 1, "nemesis", "info", "start-partition", error="no root"),
        Op(2, 2, 0, "invoke", "read"),
    ]
    assert Counts({}, ["start-partition"]).check(History(tried)).valid == "unknown"
    done = [tried[0], Op(1, 1, "nemesis", "info", "start-partition"), tried[2]]
    assert Counts({}, ["start-partition"]).check(History(done)).valid is True


def killed(*, start: float, stop: float, asked: float, answered: float | None) -> History:
    """One kill and one read, at these seconds."""
    ops: list[Op] = []

    def add(at: float, process: int | str, type: Literal["invoke", "ok", "info"], f: str) -> None:
        ops.append(Op(0, round(at * SECOND), process, type, f))  # type: ignore[arg-type]

    for at, f in ((start, "start-kill"), (stop, "stop-kill")):
        add(at, "nemesis", "info", f)
        add(at, "nemesis", "info", f)
    add(asked, 0, "invoke", "read")
    if answered is not None:
        add(answered, 0, "ok", "read")
    ops.sort(key=lambda op: op.time)
    return History(msgspec.structs.replace(op, index=index) for index, op in enumerate(ops))


@pytest.mark.parametrize(
    ("asked", "answered", "struck"),
    [(1.0, 1.5, False), (1.0, 2.5, True), (2.5, 2.6, True), (1.0, None, True), (3.5, 4.0, False)],
)
def test_a_fault_that_was_over_before_the_first_operation_was_not_exercised(
    asked: float, answered: float | None, struck: bool
) -> None:
    history = killed(start=2.0, stop=3.0, asked=asked, answered=answered)
    found = Counts({}, ["start-kill"]).check(history)
    assert found.valid == (True if struck else "unknown")
    assert found.counts.get("start-kill idle", 0) == (not struck)


def _split(minority_ok: bool) -> History:
    """10 s of which n1 is cut off from 2 to 8; each node is asked once in 100 ms."""
    ops: list[Op] = []

    def add(
        at: float, process: int | str, type: str, f: str, value: object = None, node: str | None = None
    ) -> None:
        ops.append(Op(len(ops), round(at * SECOND), process, type, f, value, node=node))  # type: ignore[arg-type]

    for tick in range(100):
        at = tick / 10
        for f, when in (("start-partition", 20), ("stop-partition", 80)):
            if tick == when:
                add(at, "nemesis", "info", f, [["n1"], ["n2", "n3"]])
                add(at, "nemesis", "info", f)
        for number, node in enumerate(("n1", "n2", "n3")):
            cut = 2 <= at < 8 and ((node == "n1" and not minority_ok) or at < 4)
            add(at, number, "invoke", "write", tick, node)
            add(at, number, "info" if cut else "ok", "write", tick, node)
    return History(ops)


def test_availability_is_judged_by_side_and_after_the_window() -> None:
    strict = Availability({"majority": 0.99}).check(_split(minority_ok=False))
    assert strict.valid is True
    assert strict.counts == {
        "majority ok": 60,
        "majority all": 60,
        "majority share": 1.0,
        "minority ok": 0,
        "minority all": 30,
        "minority share": 0.0,
    }
    assert strict.data["series"]["minority"] == [[5, 0, 10], [6, 0, 10], [7, 0, 10]]
    assert Availability({"majority": 0.99}, ignore=1).check(_split(minority_ok=False)).valid is False
    both = {"majority": 0.99, "minority": 0.99}
    refused = Availability(both).check(_split(minority_ok=False))
    assert [offence.reason for offence in refused.offences] == [
        "minority: 0.00% (0 of 30), at least 99.00% is due"
    ]
    assert Availability(both, fs=["write"]).check(_split(minority_ok=True)).valid is True
    assert Availability(both, fs=["read"]).check(_split(minority_ok=True)).valid == "unknown"
    assert Availability(both, periods=["pause"]).check(_split(minority_ok=True)).valid == "unknown"
    assert Availability({}, fs=["read"]).check(_split(minority_ok=True)).valid == "unknown"
    only_one = Availability({"majority": 0.5, "elsewhere": 0.5}).check(_split(minority_ok=True))
    assert (only_one.valid, [o.reason for o in only_one.offences]) == (
        False,
        ["elsewhere: no operation counted"],
    )


def test_latency_is_told_by_function_and_outcome() -> None:
    ops = []
    for n in range(100):
        ops.append(Op(2 * n, n * SECOND, 0, "invoke", "read"))
        ops.append(Op(2 * n + 1, n * SECOND + (n + 1) * 1_000_000, 0, "ok", "read"))
    result = Latency().check(History(ops))
    assert result.counts == {"read ok": 100}
    assert result.data["read ok"] == {"p50": 51.0, "p95": 95.0, "p99": 99.0, "p99.9": 100.0, "max": 100.0}


def test_a_value_written_twice_leaves_causality_undecided() -> None:
    ops = [
        Op(0, 0, 0, "invoke", "write", 1),
        Op(1, 1, 0, "ok", "write", 1),
        Op(2, 2, 1, "invoke", "write", 1),
    ]
    ops += [Op(3, 3, 0, "invoke", "read"), Op(4, 4, 0, "ok", "read", [1])]
    result = Causal().check(History(ops))
    assert result.valid == "unknown"
    assert result.offences == (Offence(2, "1 is written twice"),)


def test_a_write_may_pass_on_the_context_that_a_write_returned() -> None:
    ops = [
        Op(0, 0, 0, "invoke", "write", 1),
        Op(1, 1, 0, "ok", "write", 1, extra={"context": "c1"}),
        Op(2, 2, 0, "invoke", "write", 2, extra={"context": "c1"}),
        Op(3, 3, 0, "ok", "write", 2),
        Op(4, 4, 1, "invoke", "read"),
    ]
    assert Causal(strict=True).check(History([*ops, Op(5, 5, 1, "ok", "read", [2])])).valid is True
    assert Causal(strict=True).check(History([*ops, Op(5, 5, 1, "ok", "read", [1, 2])])).valid is False
    assert Causal(strict=True).check(History([*ops, Op(5, 5, 1, "ok", "read", [1])])).valid is False
    # Without strict another process may not have heard of it yet, but the writer has.
    assert Causal().check(History([*ops, Op(5, 5, 1, "ok", "read", [1])])).valid is True
    own = [*ops[:4], Op(4, 4, 0, "invoke", "read"), Op(5, 5, 0, "ok", "read", [1])]
    assert Causal().check(History(own)).valid is False
    declared = Causal(sessions=False).check(History(own))
    assert (declared.valid, declared.counts["went back"]) == (True, 1)


def test_what_a_process_saw_replaced_is_passed_on_with_what_it_writes() -> None:
    """Process 0 replaces 1 by 2; process 1 reads 2 and writes 3; who reads 3 must not see 1 afterwards."""
    known = m.replaced_for_who_read_it(EMPTY, random.Random(0))
    assert known is not None
    result = Causal().check(known)
    assert result.valid is False
    assert "had been replaced in the eyes of this process" in result.offences[0].reason


def test_a_model_refuses_what_it_does_not_have() -> None:
    for model in (Register(), GrowSet()):
        with pytest.raises(ValueError, match="frobnicate"):
            model.call("frobnicate", None, None, known=True)
