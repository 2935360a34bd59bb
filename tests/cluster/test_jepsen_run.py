"""The smallest run of the partition tests: real nodes behind the proxy, one fault."""

from __future__ import annotations

import asyncio
from pathlib import Path

from jepsen.judge import judge
from jepsen.run import Options, run


def test_a_run_through_the_proxy_holds_and_leaves_a_history(tmp_path: Path) -> None:
    options = Options(
        ("set",), "isolate-one", 1, tmp_path, seconds=3.0, nodes=3, threads=6, rate=60.0, fault_seconds=1.0
    )
    outcome = asyncio.run(run(options))
    assert outcome.problem == ""
    assert outcome.faults["isolate-one"] >= 1
    results = judge(outcome.history, ["set"], options.strict, outcome.faults, outcome.replicas)
    assert results["set set-full"].counts["acknowledged"] > 10
    assert [result.line() for result in results.values() if result.valid is not True] == []
