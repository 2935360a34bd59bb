"""The smallest run of the partition tests: real nodes behind the proxy, one fault."""

from __future__ import annotations

import asyncio
from pathlib import Path

from jepsen.judge import judge
from jepsen.run import Options, run


def test_a_run_through_the_proxy_holds_and_leaves_a_history(tmp_path: Path) -> None:
    # each must hold; a busy machine needs a longer one to get enough done, and to make the fault in its time
    assert any(exercised(tmp_path / f"{seconds:g}", seconds) for seconds in (3.0, 12.0, 48.0))


def exercised(directory: Path, seconds: float) -> bool:
    """Whether a run, which held, did enough to say anything."""
    directory.mkdir()
    options = Options(
        ("set",),
        "isolate-one",
        1,
        directory,
        seconds=seconds,
        nodes=3,
        threads=6,
        rate=60.0,
        fault_seconds=seconds / 3,
    )
    outcome = asyncio.run(run(options))
    assert outcome.problem == ""
    results = judge(outcome.history, ["set"], options.strict, outcome.faults, outcome.replicas)
    assert [r.line() for name, r in results.items() if r.valid is not True and not counts(name)] == []
    enough = all(result.valid is True for name, result in results.items() if counts(name))
    return (
        enough and outcome.faults["isolate-one"] >= 1 and results["set set-full"].counts["acknowledged"] > 10
    )


def counts(name: str) -> bool:
    return name.rsplit(maxsplit=1)[-1] == "counts"
