"""What no checker has looked at is no pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from jepsen.__main__ import main
from jepsen.history import History, HistoryWriter
from jepsen.judge import judge, unjudged


def written(path: Path, *keys: str | None) -> Path:
    """Each key is written with 1 and then read as 99."""
    with HistoryWriter(path) as writer:
        for key in keys:
            writer.complete(writer.invoke(0, "write", 1, key=key), "ok")
            writer.complete(writer.invoke(0, "read", None, key=key), "ok", 99)
        writer.complete(writer.nemesis("start-partition", [["n1"], ["n2"]]), "info")
    return path


@pytest.mark.parametrize("keys", [(None,), ("x",), ("nothing/x",), ("register/one-1", "x"), ()])
def test_a_history_that_nobody_has_judged_is_no_pass(keys: tuple[str | None, ...], tmp_path: Path) -> None:
    """It was silent, and exit code 0, for a read of what nobody had written."""
    done = CliRunner().invoke(main, ["check", str(written(tmp_path / "history.jsonl", *keys))])
    assert done.exit_code != 0
    assert "unjudged: UNKNOWN" in done.output


def test_a_planned_fault_that_was_never_made_leaves_the_run_unknown(tmp_path: Path) -> None:
    path = written(tmp_path / "history.jsonl", *(f"set/{i}" for i in range(9)))
    results = judge(History.read(path), [], True, ["isolate-one"], None)
    for name in ("counts", "availability", "availability of writes"):
        assert results[name].valid == "unknown", name
    assert "availability" not in judge(History.read(path), [], True, ["kill-one"], None)


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([("acquire", "nil", "nil")], "no model has acquire"),
        ([("add", "5", "5"), ("read", "nil", "5")], "5 is no set"),  # a counter
        (
            [("transfer", "{:from 1 :to 2}", "{:from 1 :to 2}"), ("read", "nil", "{1 5}")],
            "no model has read, tr",
        ),
        ([("txn", "[[:w 1 1] [:inc 2 1]]", "[[:w 1 1] [:inc 2 1]]")], "a transaction has no ('inc'"),
        ([("read", "nil", "nil")], "nothing was written"),
        ([("write", "1", None)], "nothing is ok"),
        ([], "nothing was written"),
    ],
)
def test_a_history_of_others_that_no_model_has_is_no_pass(
    events: list[tuple[str, str, str | None]], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "history.edn"
    lines = ["{:process :nemesis :type :info :f :start}\n"]
    for f, argument, result in events:
        lines.append(f"{{:process 0 :type :invoke :f :{f} :value {argument}}}\n")
        lines += [f"{{:process 0 :type :ok :f :{f} :value {result}}}\n"] if result is not None else []
    path.write_text("".join(lines))
    done = CliRunner().invoke(main, ["check", str(path)])
    assert done.exit_code != 0
    assert "linearizability: UNKNOWN" in done.output
    assert reason in done.output


def test_only_what_no_workload_has_is_unjudged(tmp_path: Path) -> None:
    history = History.read(written(tmp_path / "history.jsonl", "register/one-1", "set/1"))
    assert unjudged(history, ["register", "set"]).valid is True
    result = unjudged(history, ["register"])
    assert result.valid == "unknown"
    assert result.counts == {"operations": 4, "not judged": 2}
    assert result.offences[0].index == 4
