"""What seeds choose, and what the checker says of it: each rule is broken, in a history or in the code."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvstore.config import BucketSettings, Conflict, QuorumMode
from kvstore.errors import Overloaded
from kvstore.node.coordinator import Coordinator
from kvstore.node.scan import Held, Step, Wanted
from kvstore.protocol.client import CLIENT_REQUESTS, Failed
from kvstore.protocol.instant import Instant
from kvstore.quorum.forward import ForwardOperation
from kvstore.quorum.operation import Respond
from kvstore.quorum.request import Request
from kvstore.sim.checker import Checker, Violation
from kvstore.sim.cluster import SimulatedCluster
from kvstore.sim.history import History, Mint, Read, Result, Write
from kvstore.sim.run import Plan, Run, run_seed, try_plan
from kvstore.sim.shape import nodes_of, shape_of
from kvstore.versions import BucketName, Dot, UserKey
from tests.plain import Get, Put
from tests.sim import planted

SHORT = 4.0
STRICT = QuorumMode.STRICT

BUCKET = BucketName("b")
KEY = UserKey(b"k")


def holds(
    bucket: BucketSettings,
    writes: list[Write],
    reads: list[Read],
    mints: tuple[Mint, ...] = (),
    least_r: int = 1,
) -> str:
    """What is violated; empty: nothing. All writes are acknowledged, and nothing is looked at in the end."""
    history = History(writes, reads, mints={(BUCKET, KEY): list(mints)})
    try:
        Checker(history, {bucket.name: bucket}, least_r).check({})
    except Violation as violation:
        return str(violation)
    return ""


def put(at: float, value: bytes | None, w: int = 0, *, blind: bool = False, ttl: int = 0) -> Write:
    return Write(
        "Ann", BUCKET, KEY, value, frozenset(), at, at + 0.1, Result.OK, w, blind=blind, ttl=ttl, exact=True
    )


def read(at: float, *values: bytes, r: int = 0, quorum: QuorumMode | None = None) -> Read:
    return Read("Bob", BUCKET, KEY, frozenset(values), at, at + 0.1, r, quorum, exact=True)


# quorums of one request


def test_what_a_request_says_of_its_quorum_decides_what_it_is_promised() -> None:
    bucket = BucketSettings("b")
    assert "R + W > N" in holds(bucket, [put(1, b"1")], [read(2)])
    assert "R + W > N" in holds(bucket, [put(1, b"1", w=1)], [read(2, r=3)])
    assert "R + W > N" in holds(bucket, [put(1, b"1", w=3)], [read(2, r=1)])
    assert "R + W > N" in holds(BucketSettings("b", n=5, r=3, w=3), [put(1, b"1")], [read(2)])
    assert not holds(bucket, [put(1, b"1", w=1)], [read(2, r=2)])
    assert not holds(bucket, [put(1, b"1")], [read(2, quorum=QuorumMode.SLOPPY)])
    assert not holds(BucketSettings("b", n=5, r=3, w=2), [put(1, b"1")], [read(2)])
    sloppy = BucketSettings("b", quorum=QuorumMode.SLOPPY)
    assert not holds(sloppy, [put(1, b"1")], [read(2, quorum=STRICT)])


def test_what_a_strict_read_has_returned_later_reads_of_as_many_show() -> None:
    bucket = BucketSettings("b", w=1)
    assert "monotonic reads" in holds(bucket, [put(1, b"1")], [read(2, b"1"), read(3)])
    assert not holds(bucket, [put(1, b"1")], [read(2, b"1", r=1), read(3)])


def test_one_replica_is_not_believed_where_a_disk_may_be_lost() -> None:
    assert not holds(BucketSettings("b", r=1, w=3), [put(1, b"1")], [read(2)], least_r=2)
    assert "R + W > N" in holds(BucketSettings("b", n=1, r=1, w=1), [put(1, b"1")], [read(2)], least_r=2)


# deletes without a context, time to live


def test_a_delete_without_a_context_deletes_what_a_read_of_r_sees_and_no_more() -> None:
    bucket = BucketSettings("b")
    before, delete, after = put(1, b"1"), put(2, None, blind=True), put(3, b"2")
    assert "it was deleted" in holds(bucket, [before, delete], [read(4, b"1")])
    assert not holds(bucket, [before, delete], [read(4)])
    assert "it lost b'2'" in holds(bucket, [before, delete, after], [read(4)])
    given_up = put(2, None, blind=True)  # it may be carried out later, and see more
    given_up.result = Result.UNKNOWN
    assert not holds(bucket, [given_up, after], [read(4)])
    late = put(1.95, b"1")  # it may have come too late to be seen
    assert not holds(bucket, [late, delete], [read(4, b"1")])
    assert not holds(bucket, [late, delete], [read(4)])


def test_what_has_a_time_to_live_is_seen_so_long_and_no_longer() -> None:
    bucket = BucketSettings("b", ttl=4)
    assert "it lost b'1'" in holds(bucket, [put(1, b"1", ttl=4)], [read(4)])
    assert "was read at 5.200" in holds(bucket, [put(1, b"1", ttl=4)], [read(5.2, b"1")])
    assert not holds(bucket, [put(1, b"1", ttl=4)], [read(4, b"1"), read(5.2)])
    given_up = put(1, b"1", ttl=4)  # it may be carried out later
    given_up.result = Result.UNKNOWN
    assert not holds(bucket, [given_up], [read(5.2, b"1")])


# last write wins


def test_an_lww_read_shows_nothing_older_than_what_is_established() -> None:
    bucket = BucketSettings("b", conflict=Conflict.LWW)
    old, new = Mint(Dot("a", 1), b"old", 10, 1.0), Mint(Dot("b", 1), b"new", 20, 2.0)
    deleted = Mint(Dot("c", 1), None, 30, 2.5)
    writes = [put(1, b"old"), put(2, b"new")]
    assert "it lost b'new'" in holds(bucket, writes, [read(3, b"old")], (old, new))
    assert "it lost b'old'" in holds(bucket, writes, [read(3)], (old, new))
    assert "it lost b'new'" in holds(bucket, writes, [read(2.2, b"old")], (old, new, deleted))
    assert not holds(bucket, writes, [read(3, b"new")], (old, new))
    assert not holds(bucket, writes, [read(3)], (old, new, deleted))
    first = Mint(Dot("a", 1), b"old", 99, 1.0)  # by a clock that is ahead
    assert not holds(bucket, writes, [read(3, b"old")], (first, new))


# what seeds choose


def test_seeds_choose_every_number_of_nodes_and_replicas() -> None:
    shapes = [shape_of(seed, nodes_of(seed)) for seed in range(300)]
    assert {shape.nodes for shape in shapes} == {1, 2, 3, 5, 9}
    assert {shape.replicas for shape in shapes} == {1, 2, 3, 5}
    assert len({shape.options for shape in shapes}) == 3
    assert all(bucket.n <= shape.nodes for shape in shapes for bucket in shape.buckets)


@pytest.mark.parametrize(("seed", "nodes"), [(1, 1), (9, 2), (9, 9)])
def test_clusters_of_any_size_hold(seed: int, nodes: int) -> None:
    report = run_seed(seed, nodes, SHORT)
    assert report.operations["although nothing was wrong: ok"] > 20
    assert report.operations["scan ok"]


def refuse_every_other(patch: pytest.MonkeyPatch) -> None:
    start = Coordinator._start
    asked = iter(range(10**9))

    def refuse(self: Coordinator, request: Request, respond: Respond) -> None:
        if next(asked) % 2:
            respond(Failed(Overloaded(1.0, "busy")), request.now)
        else:
            start(self, request, respond)

    patch.setattr(Coordinator, "_start", refuse)


def scan_misses_the_first_key(patch: pytest.MonkeyPatch) -> None:
    read = Step.read

    def missing(self: Step, wanted: Wanted, start: bytes, end: bytes) -> Held:
        versions, reached = read(self, wanted, start, end)
        return Held(dict(list(versions.items())[1:]), reached)

    patch.setattr(Step, "read", missing)


def time_to_live_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("kvstore.versions.Sibling.visible", lambda self, wall: self.value is not None)


def lww_keeps_the_first(patch: pytest.MonkeyPatch) -> None:
    """Of what replicas answer."""
    from kvstore.quorum import replica
    from kvstore.versions import Version, join

    def first(a: Version, b: Version) -> Version:
        earliest = sorted((*a.siblings, *b.siblings), key=lambda s: (s.time, s.dot))[:1]
        return Version(join(a.context, b.context), tuple(earliest))

    patch.setattr(replica, "reconcile_lww", first)


@pytest.mark.parametrize(
    ("plant", "violated"),
    [
        (refuse_every_other, "although nothing is wrong"),
        (scan_misses_the_first_key, " lists "),
        (time_to_live_ignored, "was read at"),
        (lww_keeps_the_first, "lww/"),
    ],
)
def test_a_planted_defect_is_caught_by_a_seed(
    plant: Callable[[pytest.MonkeyPatch], None], violated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    outcome = try_plan(Plan(4, 3, SHORT))
    assert isinstance(outcome, str)
    assert violated in outcome


# what the network and clients tell a node


def test_who_sends_to_a_dead_process_learns_that_nothing_was_sent() -> None:
    """So a forward to it ends at once, and not at its deadline."""
    cluster = SimulatedCluster(1, 5, (BucketSettings("b"),))
    cluster.start()
    cluster.run(1.0)
    primaries = cluster.replicas("b", b"k")
    asked = next(node for node in cluster.hosts if node not in primaries)
    for node in primaries:
        cluster.crash(node)
    cluster.run(0.1)
    reply = cluster.call(asked, Put("b", b"k", b"v"), seconds=0.1)
    assert isinstance(reply, Failed)
    assert cluster.hosts[asked].counts["requests told that nothing was sent"] > 0


def test_a_client_that_gives_up_frees_what_was_done_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[ForwardOperation] = []

    def on_cancelled(self: ForwardOperation, _: Instant) -> None:
        cancelled.append(self)

    monkeypatch.setattr(ForwardOperation, "on_cancelled", on_cancelled)
    cluster = SimulatedCluster(1, 5, (BucketSettings("b"),))
    cluster.start()
    cluster.run(1.0)
    primaries = cluster.replicas("b", b"k")
    asked = next(node for node in cluster.hosts if node not in primaries)
    cluster.split([asked])
    give_up = cluster.requests("Ann", asked, [(Get("b", b"k"), lambda reply: None)])
    cluster.run(0.1)
    assert not cancelled
    give_up()
    assert len(cancelled) == 1


def test_a_write_repeated_by_the_client_shows_in_what_users_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the invariant that watches dots, which no user can see."""
    planted.a_write_repeated_after_an_unknown_outcome(monkeypatch)
    run = Run(Plan(4, 3))
    run.cluster.invariants.writes.values_name_writes = False
    with pytest.raises(Violation, match="was said to be not applied, but was read"):
        run.execute()


def test_users_ask_for_everything_send_again_move_and_give_up_in_every_way() -> None:
    inside = run_seed(10, 5).internals
    for what in (
        "a client ends",
        "a client is cut off",
        "a client leaves",
        "nodes: cancelled",
        "nodes: forwards",
        *(f"nodes: {request.counter}" for request in CLIENT_REQUESTS),
    ):
        assert inside[what], what
    assert sum(count for what, count in inside.items() if what.startswith("client sends again after")) > 5
