"""`kvctl explain`: its figures against every way in which replicas can be asked, down, or lost."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations

import pytest
from click.testing import CliRunner

from kvstore.config import BucketSettings, QuorumMode
from kvstore.kvctl.explain import figures, sentences
from kvstore.kvctl.main import kvctl

SETTINGS = [
    BucketSettings("b", n, r, w) for n in range(1, 6) for r in range(1, n + 1) for w in range(1, n + 1)
]


def _stale(s: BucketSettings, emptied: int) -> bool:
    """Whether some read of R replicas may miss some write to W of them, when so many come back empty."""
    nodes = range(s.n)
    return any(
        not set(asked) & (set(written) - set(lost))
        for written in combinations(nodes, s.w)
        for asked in combinations(nodes, s.r)
        for lost in combinations(nodes, emptied)
    )


@pytest.mark.parametrize("s", SETTINGS, ids=lambda s: f"{s.n}-{s.r}-{s.w}")
def test_the_figures_of_strict_quorums_hold_in_every_case(s: BucketSettings) -> None:
    told = figures(s)
    assert told["reads_see_acknowledged_writes"] is not _stale(s, 0)
    emptied = told["reads_survive_disks_emptied"]
    assert isinstance(emptied, int)
    assert emptied == 0 or not _stale(s, emptied)
    assert _stale(s, emptied + 1)
    for what, needed in (("reads", s.r), ("writes", s.w)):
        survived = max(down for down in range(s.n + 1) if s.n - down >= needed)
        assert told[f"{what}_survive_replicas_down"] == survived
    lost = max(
        k for k in range(s.n + 1) if all(set(range(s.w)) - set(c) for c in combinations(range(s.n), k))
    )
    assert told["writes_survive_disks_lost"] == lost


@pytest.mark.parametrize("s", SETTINGS, ids=lambda s: f"{s.n}-{s.r}-{s.w}")
def test_the_words_say_the_same_as_the_figures(s: BucketSettings) -> None:
    told, words = figures(s), sentences(s)
    assert words["reads"].startswith("see every write") is told["reads_see_acknowledged_writes"]
    assert f"so {told['reads_survive_replicas_down'] or 'none'} may be down; writes" in words["down"]
    assert words["emptied"].startswith("reads still see everything") is bool(
        told["reads_survive_disks_emptied"]
    )


def test_sloppy_quorums_promise_less() -> None:
    s = BucketSettings("b", 3, 3, 3, QuorumMode.SLOPPY)
    assert figures(s)["reads_see_acknowledged_writes"] is False
    assert figures(s)["writes_survive_replicas_down"] is None
    words = sentences(s)
    assert words["reads"].startswith("may be stale while replicas are down")
    assert "any 3 nodes of the cluster" in words["down"]


def test_it_needs_no_cluster_and_prints_text_or_json() -> None:
    text = CliRunner().invoke(kvctl, ["explain", "--n", "3", "--r", "2", "--w", "2", "--conflict", "lww"])
    assert text.exit_code == 0
    assert text.output.startswith("N=3 R=2 W=2 strict lww\nreads:      see every write")
    assert "the others are lost" in " ".join(text.output.split())
    assert max(map(len, text.output.splitlines())) <= 100
    found = json.loads(CliRunner().invoke(kvctl, ["-o", "json", "explain", "--n", "5"]).output)
    assert (found["r"], found["w"], found["reads_survive_replicas_down"]) == (3, 3, 2)
    assert found["in_words"]["down"].startswith("reads need 3 of the 5 replicas, so 2 may be down")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--r", "4"], "--r 4: must be between 1 and n=3"),
        (["--w", "0"], "--w 0: must be between 1 and n=3"),
        (["--n", "0"], "--n 0: a key needs at least 1 replica"),
    ],
)
def test_nonsense_is_refused_in_one_line(flags: list[str], problem: str) -> None:
    command = [sys.executable, "-m", "kvstore.kvctl.main", "explain", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"kvctl: {problem}\n")
