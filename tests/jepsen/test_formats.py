"""Histories written in the forms of other checkers and read back say the same."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen.checkers.linearizability import Linearizability
from jepsen.checkers.models import AppendRegister, Register
from jepsen.formats import FormatError, elle, export, knossos, porcupine
from jepsen.formats.shared import edn, only_key
from jepsen.history import History, Op
from tests.jepsen import mutations as m
from tests.jepsen.simulated import Simulated

edn_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@settings(max_examples=25)
@given(value=edn_values, key=st.none() | st.just("k"))
def test_any_value_survives_edn(value: Any, key: str | None) -> None:
    ops = [
        Op(0, 3, 7, "invoke", "write", value, key, None, "n1"),
        Op(1, 9, 7, "info", "write", value, key, "late"),
    ]
    again = knossos.loads(knossos.dumps_lines(History(ops)), independent=key is not None)
    assert again == History(ops)


def _registers() -> list[History]:
    """Good and bad, with operations that failed or whose end nobody knows."""
    some = []
    for seed in range(3):
        good = Simulated(seed, operations=40, info=0.15, keys=2).register()
        bad = m.stale_read(good, random.Random(seed)) or m.never_written(good, random.Random(seed))
        assert bad is not None
        some += [good, bad]
    return some


def test_verdicts_are_the_same_in_every_form() -> None:
    verdicts = set()
    for history in _registers():
        for key in history.by_key:
            one = only_key(history, key)
            verdict = Linearizability(Register()).check(one).valid
            verdicts.add(verdict)
            forms = {
                "knossos": knossos.loads(knossos.dumps(one)),
                "log": porcupine.loads_log(porcupine.dumps_log(one)),
            }
            for name, again in forms.items():
                assert Linearizability(Register()).check(again).valid is verdict, name
        whole = Linearizability(Register()).check(history).valid
        assert Linearizability(Register()).check(elle.loads(elle.dumps(history))).valid is whole
        lines = knossos.loads(knossos.dumps_lines(history), independent=True)
        assert lines == history
        kv = porcupine.loads_kv(porcupine.dumps_kv(history))
        assert Linearizability(AppendRegister()).check(kv).valid is whole
    assert verdicts == {True, False}


def test_a_process_is_another_one_after_an_operation_of_unknown_outcome() -> None:
    ops = [
        Op(0, 0, 0, "invoke", "write", 1),
        Op(1, 1, 0, "info", "write", 1, error="timeout"),
        Op(2, 2, 0, "invoke", "write", 2),
        Op(3, 3, 0, "fail", "write", 2, error="refused"),
        Op(4, 4, 0, "invoke", "read"),
        Op(5, 5, 0, "ok", "read", 1),
    ]
    assert porcupine.dumps_log(History(ops)).splitlines() == [
        "INFO  jepsen.util - 0\t:invoke\t:write\t1",
        "INFO  jepsen.util - 0\t:info\t:write\t:timed-out",
        "INFO  jepsen.util - 1\t:invoke\t:read\tnil",
        "INFO  jepsen.util - 1\t:ok\t:read\t1",
    ]


def test_values_that_are_no_numbers_are_numbered() -> None:
    ops = [Op(0, 0, 0, "invoke", "write", "a"), Op(1, 1, 0, "ok", "write", "a")]
    ops += [Op(2, 2, 0, "invoke", "write", "b"), Op(3, 3, 0, "ok", "write", "b")]
    assert [line.split("\t")[3] for line in porcupine.dumps_log(History(ops)).splitlines()] == [
        "0",
        "0",
        "1",
        "1",
    ]


def test_what_a_form_cannot_say_is_refused() -> None:
    siblings = Simulated(1).siblings()
    for dumps in (elle.dumps, porcupine.dumps_log, porcupine.dumps_kv):
        with pytest.raises(FormatError):
            dumps(siblings)
    twice = [Op(0, 0, 0, "invoke", "write", 1), Op(1, 1, 1, "invoke", "write", 1)]
    with pytest.raises(FormatError, match="twice"):
        elle.dumps(History(twice))


def test_transactions_of_several_operations_stay_transactions() -> None:
    text = (
        "{:index 0 :type :invoke :value [[:append 253 1] [:r 255 nil]]}\n"
        "{:index 1 :type :ok :value [[:append 253 1] [:r 255 [2 3]]]}\n"
    )
    (operation,) = elle.loads(text).operations
    assert operation.invocation.f == "txn"
    assert operation.completion is not None
    assert operation.completion.value == [["append", 253, 1], ["r", 255, [2, 3]]]
    with pytest.raises(ValueError, match="txn"):
        Linearizability(Register()).check(elle.loads(text))


@pytest.mark.parametrize(
    "text", ["[1 2", "{:type :ok", "{:process 0}", "[{:type :perhaps :f :read}]", "[3]", "#x 1"]
)
def test_what_is_none_of_it_is_a_format_error(text: str) -> None:
    with pytest.raises(FormatError):
        knossos.loads(text)


@settings(max_examples=25)
@given(text=st.text('{}[]():#"\\;,abc 019.-/\n'))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (edn, knossos.loads, elle.loads, porcupine.loads_log, porcupine.loads_kv):
        with contextlib.suppress(FormatError):
            read(text)


def test_export_writes_each_form_or_says_why_not(tmp_path: Path) -> None:
    written = export(Simulated(2, keys=2).register(), tmp_path)
    assert set(written.values()) == {"written"}
    assert {path.name for path in tmp_path.iterdir()} == written.keys()
    assert len(written) == 3 + 2 * 2
    of_siblings = export(Simulated(2).siblings(), tmp_path / "siblings")
    assert of_siblings["history.edn"] == "written"
    assert of_siblings["elle.edn"].startswith("not written: operation ")
