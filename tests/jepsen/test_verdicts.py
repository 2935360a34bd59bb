"""Histories whose verdicts are known: correct ones, and the same made bad in one way each."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from jepsen.checkers import Checker, check, valid
from jepsen.checkers.causal import Causal
from jepsen.checkers.delete import Delete
from jepsen.checkers.errors import Errors
from jepsen.checkers.linearizability import Linearizability
from jepsen.checkers.models import GrowSet, Register
from jepsen.checkers.session import Session
from jepsen.checkers.set_full import SetFull
from jepsen.history import History
from tests.conftest import Exercised
from tests.jepsen import mutations as m
from tests.jepsen.simulated import Simulated

Kind = Callable[[Simulated], History]

REGISTER: list[Checker] = [Linearizability(Register()), Session(), Errors()]
CAS: list[Checker] = [Linearizability(Register())]
SET: list[Checker] = [Linearizability(GrowSet()), SetFull(linearizable=True), Errors()]
SIBLINGS: list[Checker] = [Causal(strict=True), Session(), Delete(), Errors()]

GOOD: dict[str, tuple[Kind, int, list[Checker]]] = {
    "register": (Simulated.register, 0, REGISTER),
    "cas register": (Simulated.register, 5, CAS),
    "set": (Simulated.set, 0, SET),
    "siblings": (Simulated.siblings, 0, SIBLINGS),
}

# The mutation, and which of the checkers of its kind must see it; others may.
BAD: list[tuple[str, m.Mutation, set[str]]] = [
    ("register", m.stale_read, {"linearizability"}),
    ("register", m.lost_write, {"linearizability"}),
    ("register", m.never_written, {"linearizability"}),
    ("register", m.read_before_written, {"linearizability"}),
    ("register", m.swapped_results, {"linearizability"}),
    ("register", m.swapped_completions, {"linearizability"}),
    ("register", m.double_apply, {"linearizability"}),
    ("register", m.value_forgotten, {"linearizability"}),
    ("register", m.refused_but_applied, {"linearizability", "errors"}),
    ("register", m.flickering_read, {"linearizability", "session"}),
    ("register", m.session_goes_back, {"linearizability", "session"}),
    ("register", m.session_forgets_its_write, {"linearizability", "session"}),
    ("register", m.deleted_register_is_back, {"linearizability"}),
    ("cas register", m.never_written, {"linearizability"}),
    ("cas register", m.cas_without_its_value, {"linearizability"}),
    ("cas register", m.cas_twice_from_one_value, {"linearizability"}),
    ("set", m.lost_element, {"linearizability", "set-full"}),
    ("set", m.element_lost_after_it_was_read, {"linearizability", "set-full"}),
    ("set", m.stale_element, {"linearizability", "set-full"}),
    ("set", m.element_twice, {"linearizability", "set-full"}),
    ("set", m.element_never_added, {"linearizability", "set-full"}),
    ("set", m.element_before_its_add, {"linearizability", "set-full"}),
    ("set", m.refused_element_is_read, {"linearizability", "set-full", "errors"}),
    ("set", m.reads_that_contradict, {"linearizability", "set-full"}),
    ("siblings", m.lost_sibling, {"causal"}),
    ("siblings", m.replaced_sibling_is_back, {"causal"}),
    ("siblings", m.deleted_sibling_is_back, {"causal", "delete"}),
    ("siblings", m.sibling_with_its_replacement, {"causal"}),
    ("siblings", m.sibling_never_written, {"causal"}),
    ("siblings", m.refused_sibling_is_read, {"causal", "errors"}),
    ("siblings", m.own_write_unread, {"causal", "session"}),
    ("siblings", m.read_goes_back, {"causal", "session"}),
    ("siblings", m.replaced_for_who_read_it, {"causal"}),
]
SEEDS = 10


def history_of(kind: str, seed: int) -> History:
    make, values, _ = GOOD[kind]
    return make(Simulated(seed, operations=80, keys=2, values=values))


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_correct_histories_are_valid(kind: str, exercised: Exercised) -> None:
    for seed in range(SEEDS * 2):
        results = check(history_of(kind, seed), GOOD[kind][2])
        assert valid(results) is True, (seed, [result.line() for result in results.values()])
    exercised("correct histories judged valid", SEEDS * 2)


@pytest.mark.parametrize(("kind", "mutation", "by"), BAD, ids=lambda x: getattr(x, "__name__", None))
def test_bad_histories_are_invalid(
    kind: str, mutation: m.Mutation, by: set[str], exercised: Exercised
) -> None:
    made = 0
    for seed in range(SEEDS):
        bad = mutation(history_of(kind, seed), random.Random(seed))
        if bad is None:
            continue
        made += 1
        results = check(bad, GOOD[kind][2])
        caught = {name for name, result in results.items() if result.valid is False}
        assert by <= caught, (seed, [result.line() for result in results.values()])
        for name in by:
            assert all(offence.reason for offence in results[name].offences), name
            assert results[name].offences, name
    assert made >= SEEDS // 2, f"only {made} histories had a place for it"
    exercised("bad histories judged invalid", made)


def test_a_sloppy_set_may_be_stale_but_not_lose() -> None:
    for seed in range(SEEDS):
        stale = m.stale_element(history_of("set", seed), random.Random(seed))
        if stale is not None:
            result = SetFull().check(stale)
            assert result.valid is True
            assert result.counts["stale"] >= 1
            assert result.data["stable latency"]["max"] > 0
