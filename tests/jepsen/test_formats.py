"""Histories written in the forms of other checkers and read back say the same."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen.checkers.linearizability import Linearizability
from jepsen.checkers.models import AppendRegister, Register
from jepsen.formats import FormatError, elle, export, knossos, porcupine, read
from jepsen.formats.shared import edn, only_key
from jepsen.history import History, HistoryError, Op
from jepsen.judge import judge_foreign
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


def test_times_may_fall_and_the_indexes_or_the_text_give_the_order() -> None:
    line = "{{:index {} :time {} :process {} :type {} :f :read :value nil}}\n"
    events = [(0, 50, 0, ":invoke"), (1, 70, 1, ":invoke"), (2, 60, 0, ":ok"), (3, 80, 1, ":ok")]
    sorted_by_time = "".join(line.format(*event) for event in sorted(events, key=lambda event: event[1]))
    history = knossos.loads(sorted_by_time)
    assert [(op.index, op.time, op.process) for op in history] == [
        (0, 50, 0),
        (1, 70, 1),
        (2, 70, 0),
        (3, 80, 1),
    ]
    # An index for each process, as elle-cli has it, orders nothing.
    per_process = [(1, 50, 0, ":invoke"), (1, 70, 1, ":invoke"), (2, 60, 0, ":ok"), (2, 80, 1, ":ok")]
    again = knossos.loads("".join(line.format(*event) for event in per_process))
    assert again == history


def test_only_the_nemesis_is_no_client() -> None:
    with pytest.raises(FormatError, match="'n3' is no number"):
        knossos.loads("{:process :n3 :type :invoke :f :write :value 1}")


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        (['["x" 1]', '["x" [1 2]]', '["y" nil]'], ["x", "x", "y"]),
        (['["x" 1]', "[1 2]", '["y" nil]'], [None, None, None]),  # a cas without a key
        (["[3 4]", "[1 2]", "nil"], [None, None, None]),  # lists are written
    ],
)
def test_values_are_keys_and_values_only_if_all_can_be(
    values: list[str], keys: list[str | None], tmp_path: Path
) -> None:
    path = tmp_path / "history.edn"
    fs = zip(range(3), ("write", "cas", "read"), values, strict=True)
    path.write_text("".join(f"{{:process {p} :type :invoke :f :{f} :value {v}}}" for p, f, v in fs))
    history, form = read(path)
    assert form == "knossos"
    assert [op.key for op in history] == keys


def test_transactions_are_operations_only_if_all_are_single() -> None:
    single = (
        "{:process 0 :type :invoke :f :txn :value [[:append 1 1]]}{:process 0 :type :info :f :txn :value nil}"
    )
    assert [(op.f, op.key, op.value) for op in elle.loads(single)] == [("append", "1", 1), ("append", "1", 1)]
    mixed = single + "{:process 1 :type :invoke :f :txn :value [[:r 1 nil] [:r 2 nil]]}"
    assert {op.f for op in elle.loads(mixed)} == {"txn"}


@pytest.mark.parametrize("content", [b"[1 2]", b"\xff\xfe", b"{:type :ok", b'{"index":', b"hello", b"3"])
def test_a_file_that_is_no_history_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(content)
    with pytest.raises(HistoryError):
        read(path)


@pytest.mark.parametrize(
    "text", ["[1 2", "{:type :ok", "{:process 0}", "[{:type :perhaps :f :read}]", "[3]", "#x 1"]
)
def test_what_is_none_of_it_is_a_format_error(text: str) -> None:
    with pytest.raises(FormatError):
        knossos.loads(text)


@settings(max_examples=25)
@given(text=st.text('{}[]():#"\\;,abc 019.-/\n'))
def test_any_text_is_read_or_refused(text: str) -> None:
    for loads in (edn, knossos.loads, elle.loads, porcupine.loads_log, porcupine.loads_kv):
        with contextlib.suppress(FormatError):
            loads(text)


VALUES = ["nil", "1", "-1.5", '"x"', ":k", "[]", "[1 2]", "[[1] {}]", "#{1 nil}", "{:a 1}"]
TRANSACTIONS = ["[[:r 1 nil]]", "[[:r 1 [1]] [:append 1 1]]", "[[:w x 1]]", "[[:append 1 [2]]]", "[[:r]]"]
any_value = st.sampled_from([*VALUES, *TRANSACTIONS, "[[[] 1 2]]", "[[]]"])
any_map = st.builds(
    "{{:process {} :type :{} :f :{} :value {}{}}}\n".format,
    st.sampled_from(["0", "1", ":nemesis"]),
    st.sampled_from(["invoke", "ok", "info", "fail"]),
    st.sampled_from(["read", "write", "cas", "add", "append", "get", "put", "txn", "delete"]),
    any_value,
    st.sampled_from(["", ' :key "k"', " :index 3 :time -7", " :time 1.5"]),
)


@settings(max_examples=100)
@given(first=any_map, value=any_value, result=any_value, more=st.lists(any_map, max_size=2))
def test_any_history_is_judged_or_refused(
    tmp_path_factory: pytest.TempPathFactory, first: str, value: str, result: str, more: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.edn"
    f = re.search(r":f :(\w+)", first)
    assert f is not None
    pair = [
        f"{{:process 7 :type :{t} :f :{f[1]} :value {v}}}\n" for t, v in (("invoke", value), ("ok", result))
    ]
    path.write_text("".join([*pair, first, *more]))
    with contextlib.suppress(HistoryError):
        assert judge_foreign(*read(path))["linearizability"].valid in (True, False, "unknown")


def test_export_writes_each_form_or_says_why_not(tmp_path: Path) -> None:
    written = export(Simulated(2, keys=2).register(), tmp_path)
    assert set(written.values()) == {"written"}
    assert {path.name for path in tmp_path.iterdir()} == written.keys()
    assert len(written) == 3 + 2 * 2
    of_siblings = export(Simulated(2).siblings(), tmp_path / "siblings")
    assert of_siblings["history.edn"] == "written"
    assert of_siblings["elle.edn"].startswith("not written: operation ")
