"""Golden transcripts: what the cluster says to itself and to its clients, one scenario each.

They are for reading as well: tests/sim/golden/*.txt. If a change is intended, write them anew with
`KVSTORE_GOLDEN=write make test ARGS="-k transcripts"` and read the difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.config import AntiEntropySettings, BucketSettings, QuorumMode
from kvstore.lsm import Fate
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import ClientRequest, Found, Reply, Stored
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.transcript import Transcript
from kvstore.versions import SignedContext
from tests.plain import Delete, Get, Put

GOLDEN = Path(__file__).parent / "golden"
KEY = b"user:1"
NEVER = float("inf")
HINTS_AND_READS_ALONE = NodeSettings(
    anti_entropy=AntiEntropySettings(interval=NEVER, rebuild=NEVER, reap_interval=NEVER)
)
"""Anti-entropy would do for the whole cluster, at a time of its own, what the scenarios are about."""


class Scene:
    """A steady cluster and the transcript of what is done with it.

    When only time passes, the failure detector's dice decide when things happen: no times then.
    """

    def __init__(self, nodes: int = 3, beliefs: bool = False) -> None:
        buckets = [BucketSettings("sloppy", quorum=QuorumMode.SLOPPY)]
        self.cluster = SimulatedCluster(1, nodes, buckets, HINTS_AND_READS_ALONE)
        self.cluster.steady()
        self.cluster.start()
        self.cluster.run(1.0)
        self.lines: list[str] = []
        self._waiting = False
        self.transcript = Transcript(self.cluster, self._write, beliefs)

    def _write(self, line: str) -> None:
        self.lines.append(f"{'...':>9}{line[9:]}" if self._waiting else line)

    def ask(self, client: str, node: str, call: ClientRequest) -> Reply | None:
        """A request, its reply, and what comes after it."""
        reply = self.cluster.call(node, call, client=client)
        self.cluster.run(0.1)
        return reply

    def context(self, client: str, node: str, call: ClientRequest) -> bytes:
        reply = self.ask(client, node, call)
        assert isinstance(reply, Found | Stored), reply
        return reply.context

    def wait(self, seconds: float) -> None:
        self.transcript.line("", f"{seconds:g} s pass")
        self._waiting = True
        self.cluster.run(seconds)
        self._waiting = False


def a_put_is_acknowledged_when_two_disks_have_it() -> Scene:
    scene = Scene()
    scene.ask("Ann", "n1", Put("carts", KEY, b"apples"))
    return scene


def a_get_asks_one_other_replica_whether_it_holds_the_same() -> Scene:
    scene = Scene()
    scene.ask("Ann", "n1", Put("carts", KEY, b"apples"))
    scene.ask("Ann", "n2", Get("carts", KEY))
    return scene


def a_node_that_is_no_replica_forwards_a_request() -> Scene:
    scene = Scene(5)
    other = next(node for node in scene.cluster.hosts if node not in scene.cluster.replicas("carts", KEY))
    scene.ask("Ann", other, Put("carts", KEY, b"apples"))
    return scene


def a_put_while_one_replica_is_down_leaves_a_hint_that_goes_home() -> Scene:
    scene = Scene()
    scene.cluster.crash("n3")
    scene.wait(20.0)
    scene.ask("Ann", "n1", Put("carts", KEY, b"apples"))
    scene.cluster.restart("n3")
    scene.wait(10.0)
    scene.ask("Ann", "n3", Get("carts", KEY, r=1))
    return scene


def two_blind_writers_leave_siblings_and_a_third_resolves_them() -> Scene:
    scene = Scene()
    scene.ask("Ann", "n1", Put("carts", KEY, b"apples"))
    scene.ask("Bob", "n2", Put("carts", KEY, b"pears"))
    seen = scene.context("Cid", "n3", Get("carts", KEY))
    scene.ask("Cid", "n3", Put("carts", KEY, b"apples, pears", context=SignedContext(seen)))
    scene.ask("Ann", "n1", Get("carts", KEY))
    return scene


def a_strict_write_is_unavailable_on_the_minority_side() -> Scene:
    scene = Scene()
    scene.cluster.split(["n1"])
    scene.wait(20.0)
    scene.ask("Ann", "n1", Put("carts", KEY, b"minority"))
    scene.ask("Bob", "n2", Put("carts", KEY, b"majority"))
    scene.cluster.heal()
    scene.wait(10.0)
    scene.ask("Ann", "n1", Get("carts", KEY))
    return scene


def a_sloppy_write_succeeds_on_both_sides_of_a_split_and_both_survive() -> Scene:
    scene = Scene(5)
    scene.cluster.split(["n1", "n2"])
    scene.wait(20.0)
    scene.ask("Ann", "n1", Put("sloppy", KEY, b"apples"))
    scene.ask("Bob", "n4", Put("sloppy", KEY, b"pears"))
    scene.cluster.heal()
    scene.wait(20.0)
    scene.ask("Ann", "n1", Get("sloppy", KEY, r=3))
    return scene


def a_read_repairs_a_stale_replica_before_it_answers() -> Scene:
    scene = Scene()
    scene.ask("Ann", "n1", Put("carts", KEY, b"old"))
    scene.cluster.network.cut |= {("n1", "n3"), ("n2", "n3")}
    seen = scene.context("Ann", "n1", Get("carts", KEY))
    scene.ask("Ann", "n1", Put("carts", KEY, b"new", context=SignedContext(seen)))
    scene.cluster.network.cut.clear()
    scene.ask("Bob", "n3", Get("carts", KEY))
    return scene


def a_node_that_crashes_before_its_sync_loses_only_what_it_had_not_acknowledged() -> Scene:
    scene = Scene()
    scene.ask("Ann", "n1", Put("carts", b"first", b"acknowledged"))
    scene.cluster.hosts["n1"].machine.slow_down(1.0)
    scene.cluster.split(["n1"])
    scene.cluster.submit("Ann", "n1", Put("carts", b"second", b"not synced"), lambda reply: None)
    scene.wait(0.01)
    scene.cluster.crash("n1", Fate.NONE)
    scene.cluster.heal()
    scene.cluster.run(0.1)
    scene.cluster.restart("n1")
    scene.wait(5.0)
    scene.ask("Ann", "n1", Get("carts", b"first", r=3))
    scene.ask("Ann", "n1", Get("carts", b"second", r=3))
    return scene


def a_paused_node_is_suspected_refutes_and_is_alive_again() -> Scene:
    scene = Scene(beliefs=True)
    scene.cluster.hosts["n1"].process.pause(2.0)
    scene.wait(10.0)
    return scene


def a_put_that_too_few_disks_confirm_ends_with_its_outcome_unknown() -> Scene:
    scene = Scene()
    scene.cluster.split(["n1"])
    scene.ask("Ann", "n1", Put("carts", KEY, b"perhaps", timeout=1.0))
    scene.cluster.heal()
    scene.wait(10.0)
    scene.ask("Ann", "n2", Get("carts", KEY))
    return scene


def a_put_that_a_delete_has_not_seen_survives_it() -> Scene:
    scene = Scene()
    seen = scene.context("Ann", "n1", Put("carts", KEY, b"apples"))
    scene.ask("Bob", "n2", Put("carts", KEY, b"pears"))
    scene.ask("Ann", "n1", Delete("carts", KEY, context=SignedContext(seen)))
    scene.ask("Ann", "n1", Get("carts", KEY))
    return scene


def a_full_disk_refuses_writes_while_reads_go_on() -> Scene:
    scene = Scene()
    scene.ask("Ann", "n1", Put("carts", KEY, b"apples"))
    scene.cluster.hosts["n1"].machine.disk.full = True
    scene.transcript.line("", "the disk of n1 is full")
    scene.ask("Ann", "n1", Put("carts", b"other", b"x", timeout=1.0))
    scene.ask("Ann", "n1", Put("carts", b"another", b"x"))
    scene.ask("Ann", "n1", Get("carts", KEY))
    scene.cluster.hosts["n1"].machine.disk.full = False
    scene.transcript.line("", "there is space again")
    scene.wait(1.0)
    scene.ask("Ann", "n1", Put("carts", b"another", b"x"))
    return scene


SCENARIOS = [
    a_put_is_acknowledged_when_two_disks_have_it,
    a_get_asks_one_other_replica_whether_it_holds_the_same,
    a_node_that_is_no_replica_forwards_a_request,
    a_put_while_one_replica_is_down_leaves_a_hint_that_goes_home,
    two_blind_writers_leave_siblings_and_a_third_resolves_them,
    a_strict_write_is_unavailable_on_the_minority_side,
    a_sloppy_write_succeeds_on_both_sides_of_a_split_and_both_survive,
    a_read_repairs_a_stale_replica_before_it_answers,
    a_node_that_crashes_before_its_sync_loses_only_what_it_had_not_acknowledged,
    a_paused_node_is_suspected_refutes_and_is_alive_again,
    a_put_that_too_few_disks_confirm_ends_with_its_outcome_unknown,
    a_put_that_a_delete_has_not_seen_survives_it,
    a_full_disk_refuses_writes_while_reads_go_on,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_transcript(scenario: Callable[[], Scene]) -> None:
    title = scenario.__name__.replace("_", " ").capitalize()
    text = "\n".join([f"{title}.", "", *scenario().lines, ""])
    golden = GOLDEN / f"{scenario.__name__}.txt"
    if os.environ.get("KVSTORE_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_transcript_has_its_scenario() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {scenario.__name__ for scenario in SCENARIOS}
