"""Histories: pairing, files, the writer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen.history import History, HistoryError, HistoryWriter, Op
from tests.jepsen.simulated import Simulated

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40)
@given(values=st.lists(json_values, max_size=10), key=st.none() | st.text(), error=st.none() | st.text())
def test_a_history_read_back_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, values: list[object], key: str | None, error: str | None
) -> None:
    ops: list[Op] = []
    for value in values:
        ops.append(Op(len(ops), len(ops), 0, "invoke", "write", value, key, node="n1", extra={"v": value}))
        ops.append(Op(len(ops), len(ops), 0, "info", "write", value, key, error))
    path = tmp_path_factory.mktemp("history") / "history.jsonl"
    History(ops).write(path)
    assert History.read(path) == History(ops)


def test_what_the_writer_has_written_reads_as_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"

    def process(number: int) -> None:
        for value in range(200):
            op = writer.invoke(number, "write", value, key="x", node="n1", extra={"context": "00"})
            writer.complete(op, "ok", extra={"siblings": 1})

    with HistoryWriter(path) as writer:
        threads = [threading.Thread(target=process, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.complete(writer.nemesis("start-partition", [["n1"], ["n2"]]), "info")
    history = History.read(path)
    assert history == writer.history()
    assert len(history.operations) == 800
    assert all(operation.type == "ok" for operation in history.operations)
    assert [period.name for period in history.periods] == ["partition"]
    with pytest.raises(FileExistsError):
        HistoryWriter(path)


def test_a_cut_off_history_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    whole = Simulated(1, operations=50).register()
    whole.write(path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:31]))
    cut = History.read(path)
    assert len(cut) == 31
    assert any(operation.completion is None for operation in cut.operations)


@pytest.mark.parametrize(
    "ops",
    [
        [Op(0, 0, 0, "ok", "read")],
        [Op(0, 0, 0, "invoke", "read"), Op(1, 1, 0, "invoke", "read")],
        [Op(0, 0, 0, "invoke", "read"), Op(1, 1, 0, "ok", "write")],
        [Op(1, 0, 0, "invoke", "read"), Op(1, 1, 0, "ok", "read")],
        [Op(0, 5, 0, "invoke", "read"), Op(1, 1, 0, "ok", "read")],
    ],
)
def test_what_is_no_history_is_refused(ops: list[Op]) -> None:
    with pytest.raises(HistoryError):
        History(ops)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"index":0,"time":0,"process":0,"type":"invoke","f":"read"}\n{"index":\n')
    with pytest.raises(HistoryError, match=r"history\.jsonl:2: "):
        History.read(path)


def test_periods_last_from_the_order_to_the_end_of_undoing_it() -> None:
    def nemesis(at: int, f: str, error: str | None = None) -> list[Op]:
        return [
            Op(2 * at, 10 * at, "nemesis", "info", f),
            Op(2 * at + 1, 10 * at + 5, "nemesis", "info", f, error=error),
        ]

    history = History(
        [
            *nemesis(0, "start-kill"),
            *nemesis(1, "start-pause"),
            *nemesis(2, "stop-kill", "no such process"),
            *nemesis(3, "stop-kill"),
            *nemesis(4, "start-skew", "no faketime"),
            *nemesis(5, "wipe"),
        ]
    )
    assert [period[:3] for period in history.periods] == [("kill", 0, 35), ("pause", 10, 55)]
