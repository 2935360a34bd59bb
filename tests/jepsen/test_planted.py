"""Defects that `make jepsen-hunt` plants in running nodes: each breaks a promise of simulated ones too."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from jepsen import planted
from kvstore.quorum.actors import Actors
from kvstore.sim.run import Plan, try_plan

FOUND = {
    "ack-before-quorum": "is acknowledged by",
    "strict-counts-fallbacks": "on 2 disks, and is on those of",
    "repair-dropped": "is read by",
    "hint-deleted-before-ack": "deletes its hint for",
    "ack-before-fsync": "of what is not on its disk",
}


@pytest.fixture(autouse=True)
def plants_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    def plant(where: object, name: str, what: object) -> None:
        monkeypatch.setattr(where, name, what)

    monkeypatch.setattr(planted, "_plant", plant)


def test_each_defect_is_tried() -> None:
    assert {*FOUND, "actor-kept-after-wipe"} == set(planted.DEFECTS)


@pytest.mark.parametrize("defect", FOUND)
def test_a_planted_defect_breaks_a_promise(defect: str) -> None:
    planted.DEFECTS[defect]()
    outcome = try_plan(Plan(1, 3))
    assert isinstance(outcome, str), "the seed holds"
    assert FOUND[defect] in outcome


def test_a_node_that_keeps_its_actors_makes_the_dots_of_a_wiped_disk_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["kvnode", "--data", str(tmp_path)])
    counter = tmp_path / "engine" / "COUNTER"
    counter.parent.mkdir()

    def minted() -> tuple[object, ...]:
        planted.DEFECTS["actor-kept-after-wipe"]()
        actors = Actors("n1", random.Random())
        return tuple(actors.mint(3, ()) for _ in range(5))

    first = minted()
    assert not set(first) & set(minted()), "not by a start alone"
    counter.unlink()
    assert minted() == first
