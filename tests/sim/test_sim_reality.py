"""What real nodes meet beside crashes and splits.

Limits of messages, links that break without a word, readers that do not read, workers that die or hang,
disks under load, clocks that drift.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import count

import pytest

from kvstore.config import KIB, AntiEntropySettings, QuorumSettings
from kvstore.errors import Outcome
from kvstore.lsm import Fate, Job
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Failed, Found, Reply, Stored
from kvstore.protocol.gossip import Status
from kvstore.sim.cluster import LIMITS, SimulatedCluster
from kvstore.sim.links import KEEPALIVE_PATIENCE, KEEPALIVE_SECONDS, Stream
from kvstore.sim.network import SMALL, SMALL_MESSAGE
from kvstore.sim.scheduler import Clock, Scheduler
from tests.plain import Get, Put

ANSWER = 4 * KIB
SETTINGS = NodeSettings(
    anti_entropy=AntiEntropySettings(interval=1.0, settle=0.5, answer_bytes=ANSWER), limits=LIMITS
)
KEY = b"user:1"


def started(settings: NodeSettings = SETTINGS, nodes: int = 3) -> SimulatedCluster:
    cluster = SimulatedCluster("reality", nodes, settings=settings)
    cluster.network.limits = replace(SMALL, message=SMALL_MESSAGE)
    cluster.start()
    cluster.run(1.0)
    assert cluster.connected()
    return cluster


def streams(cluster: SimulatedCluster, sender: str, to: str) -> list[Stream]:
    return cluster.hosts[sender].shell.links.streams(to)


def settle(cluster: SimulatedCluster, seconds: float = 60.0) -> None:
    end = cluster.scheduler.now + seconds
    while not (cluster.settled() and cluster.roots_equal()):
        assert cluster.scheduler.now < end
        cluster.run(0.5)


def put_many(cluster: SimulatedCluster, number: int, size: int) -> list[bytes]:
    """Puts through n1; the keys of those that two of three replicas have acknowledged."""
    replies = {}
    for i in range(number):
        replies[b"k%d" % i] = put(cluster, b"k%d" % i, b"v" * size)
        cluster.run(0.07)  # time for flushes
    acknowledged = [key for key, reply in replies.items() if reply and isinstance(reply[0], Stored)]
    assert len(acknowledged) > 0.9 * number
    return acknowledged


def put(cluster: SimulatedCluster, key: bytes, value: bytes, w: int = 0) -> list[Reply | None]:
    """A put through n1 that is under way."""
    replies: list[Reply | None] = []
    cluster.submit("client", "n1", Put("carts", key, value, w=w, timeout=5.0), replies.append)
    return replies


def keys_of_one_partition(cluster: SimulatedCluster, number: int) -> list[bytes]:
    keys = (b"k%d" % i for i in count())
    partition = cluster.state.ring.partition("carts", b"k0")
    same = (key for key in keys if cluster.state.ring.partition("carts", key) == partition)
    return [next(same) for _ in range(number)]


# the limit of a message


def test_a_frame_above_the_limit_breaks_its_link_which_comes_back() -> None:
    cluster = started()
    cluster.network.limits = replace(SMALL, message=2 * KIB)
    replies = put(cluster, KEY, b"v" * 3000, w=3)
    cluster.run(0.5)
    too_large = cluster.network.counts["too large"]
    assert too_large >= 2
    broken = sum(stream.counts["connections broken"] for stream in cluster.hosts["n1"].shell.links.all())
    assert broken == too_large
    assert sum(stream.counts["connections"] for stream in cluster.hosts["n1"].shell.links.all()) > 4
    (reply,) = replies
    assert isinstance(reply, Failed), "it knows that the links broke, and does not wait"
    assert reply.error.outcome is Outcome.UNKNOWN


def test_streams_of_an_earlier_life_do_nothing_in_a_later_one() -> None:
    """What they had sent arrives at a later life of its receiver, who ends their connection."""
    cluster = started()
    earlier = cluster.hosts["n1"].shell.links.streams("n2")
    cluster.hosts["n1"].requests.take([(Put("carts", b"k", b"v"), lambda reply: None)])
    cluster.run(0.0001)
    for node in ("n1", "n2"):
        cluster.crash(node)
        cluster.restart(node)
    cluster.run(3.0)
    assert cluster.network.counts["refused by a later life"] > 0
    assert [(each.counts["connections"], each.counts["connections broken"]) for each in earlier] == [
        (1, 0)
    ] * 2


def test_what_waits_for_a_slow_reader_leaves_in_frames_below_the_limit() -> None:
    cluster = started()
    cluster.hosts["n3"].inbox.deaf_to = frozenset({"n1"})
    acknowledged = put_many(cluster, 12, 4000)
    waiting = max(stream.queue.bytes for stream in streams(cluster, "n1", "n3"))
    assert waiting > SMALL_MESSAGE, "more than a message may have"
    cluster.hosts["n3"].inbox.read_again()
    cluster.run(1.0)
    assert cluster.network.counts["too large"] == 0
    assert cluster.network.largest > SMALL.queue.frame // 2
    settle(cluster)
    assert all(cluster.stored("n3", "carts", key) for key in acknowledged)


def test_an_exchange_of_much_is_told_in_answers_below_the_limit() -> None:
    """Who lacks everything asks, so that all comes in answers."""
    only_when_asked = AntiEntropySettings(interval=float("inf"), settle=0.5, answer_bytes=ANSWER)
    cluster = started(NodeSettings(QuorumSettings(hint_count=0), only_when_asked, limits=LIMITS))
    cluster.crash("n3")
    keys = keys_of_one_partition(cluster, 12)
    for key in keys:
        assert isinstance(cluster.call("n1", Put("carts", key, b"v" * 5000)), Stored)
    cluster.restart("n3")
    while not cluster.settled():
        cluster.run(0.1)
    cluster.hosts["n3"].repair_now()
    settle(cluster)
    assert cluster.network.counts["too large"] == 0
    assert all(cluster.stored("n3", "carts", key) for key in keys)


# links


def test_a_write_does_not_wait_for_replicas_whose_links_broke() -> None:
    cluster = started()
    replies = put(cluster, KEY, b"v", w=3)
    cluster.run(0.00001)
    for peer in ("n2", "n3"):
        for stream in streams(cluster, "n1", peer):
            connection = stream._connection
            assert connection is not None
            connection.lost = True
            stream.break_off()
    cluster.run(0.1)
    (reply,) = replies
    assert isinstance(reply, Failed)
    assert cluster.hosts["n1"].node
    settle(cluster)
    assert all(cluster.stored(node, "carts", KEY) for node in cluster.hosts), "by a hint"


def test_what_is_sent_to_a_node_that_has_started_anew_breaks_the_link_to_its_earlier_life() -> None:
    """It crashed behind a cut link, so nobody has told the others."""
    cluster = started()
    cluster.network.cut.add(("n2", "n1"))
    cluster.crash("n2")
    cluster.restart("n2")
    cluster.run(0.1)
    assert all(stream.queue.open for stream in streams(cluster, "n1", "n2"))
    cluster.network.cut.clear()
    assert isinstance(cluster.call("n1", Put("carts", KEY, b"v", w=2)), Stored)
    cluster.run(2.0)
    assert cluster.network.counts["refused by a later life"] > 0
    assert cluster.connected()
    settle(cluster)


def test_a_half_open_link_is_noticed_by_its_keepalive_and_nobody_is_suspected_meanwhile() -> None:
    cluster = started(nodes=5)
    suspects: set[tuple[str, str]] = set()

    def look(name: str) -> None:
        host = cluster.hosts[name]
        if host.node:
            suspects.update(
                (name, each.node) for each in host.shell.status().members if each.status is not Status.ALIVE
            )

    for name, host in cluster.hosts.items():
        host.watch = partial(look, name)
    for stream in streams(cluster, "n1", "n2"):
        stream.forget()
    for i in range(8):
        assert isinstance(cluster.call("n1", Put("carts", b"k%d" % i, b"v")), Stored)
        cluster.run(0.5)
    assert cluster.network.counts["sent into a half-open connection"] > 0
    assert all(stream.queue.open for stream in streams(cluster, "n1", "n2")), "it believes in it still"
    cluster.run(KEEPALIVE_SECONDS + KEEPALIVE_PATIENCE)
    noticed = Counter(stream.counts["keepalives unanswered"] for stream in streams(cluster, "n1", "n2"))
    assert noticed == {1: 2}
    assert not suspects, "others were asked to probe it"
    settle(cluster)
    assert all(len(cluster.stored(n, "carts", b"k0") or b"") for n in cluster.replicas("carts", b"k0"))


# readers


@pytest.mark.parametrize("stops", ["reading", "altogether"])
def test_what_waits_for_a_peer_that_does_not_read_is_bounded_and_what_was_dropped_is_known(
    stops: str,
) -> None:
    cluster = started()
    if stops == "reading":
        cluster.hosts["n3"].inbox.deaf_to = frozenset({"n1", "n2"})
    else:
        cluster.hosts["n3"].process.pause(8.0)
    acknowledged = put_many(cluster, 60, 2000)
    n1 = cluster.hosts["n1"]
    most = n1.shell.links.most_queued_bytes()
    assert SMALL.queue.queue - 4000 < most <= SMALL.queue.queue
    assert n1.counts["requests told that nothing was sent"] > 5
    cluster.run(4.0)
    cluster.hosts["n3"].inbox.read_again()
    settle(cluster)
    assert all(cluster.stored("n3", "carts", key) for key in acknowledged), "by hints"


def test_a_client_that_does_not_read_gets_its_replies_when_it_reads_again() -> None:
    cluster = started()
    cluster.call("n1", Put("carts", KEY, b"v"))
    cluster.stop_reading("client")
    replies = put(cluster, KEY, b"w")
    cluster.run(2.0)
    assert not replies
    assert cluster.hosts["n1"].node
    assert cluster.hosts["n1"].shell.status().in_flight == 0, "it holds nothing of the node's"
    cluster.read_again("client")
    cluster.run(0.0)
    assert isinstance(replies[0], Stored)


# workers


def fill_memtables(cluster: SimulatedCluster, first: int) -> None:
    for i in range(first, first + 12):
        assert isinstance(cluster.call("n1", Put("carts", b"k%d" % i, b"v" * 3000, w=1)), Stored)


@pytest.mark.parametrize("fault", ["deaths", "hangs"])
def test_a_job_whose_worker_died_or_hung_is_done_by_another(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = started()
    host = cluster.hosts["n1"]
    given_back: list[int] = []

    def on_job_failed(job: Job) -> None:
        original(job)
        given_back.append(host.shell.storage.jobs)

    original = host.shell.on_job_failed
    monkeypatch.setattr(host.shell, "on_job_failed", on_job_failed)
    setattr(host.machine.how_disk_works, fault, 2)
    fill_memtables(cluster, 0)
    cluster.run(30.0)
    assert len(given_back) == 2
    assert min(given_back) >= 1, "offered again in the same turn, whatever else happens"
    assert host.shell.storage.jobs == 0
    assert host.engine.statistics().flushes >= 3
    fill_memtables(cluster, 12)
    cluster.crash("n1", Fate.NONE)
    cluster.restart("n1")
    cluster.run(1.0)
    assert all(cluster.stored("n1", "carts", b"k%d" % i) for i in range(24))


# disks


def test_the_more_is_under_way_on_a_busy_disk_the_longer_all_of_it_takes() -> None:
    cluster = started()
    host = cluster.hosts["n1"]
    host.machine.how_disk_works.jitter, host.machine.how_disk_works.load = 0.0, 100.0
    alone = _seconds_of_a_write(cluster)
    host.machine.how_disk_works.hangs = 1
    fill_memtables(cluster, 0)
    assert host.shell.storage.jobs
    assert _seconds_of_a_write(cluster) > alone + 90 * host.machine.how_disk_works.sync_seconds


def _seconds_of_a_write(cluster: SimulatedCluster) -> float:
    began = cluster.scheduler.now
    assert isinstance(cluster.call("n1", Put("carts", b"timed", b"v", w=1)), Stored)
    return cluster.scheduler.now - began


def test_a_coordinator_whose_disk_stalls_acknowledges_nothing_that_only_others_have() -> None:
    """It has made the dot: were it to forget it, it would make it once more."""
    cluster = started()
    cluster.hosts["n1"].machine.how_disk_works.stalled_until = cluster.scheduler.now + 3.0
    replies = put(cluster, KEY, b"v")
    cluster.run(2.9)
    assert not replies
    assert all(cluster.stored(node, "carts", KEY) for node in ("n2", "n3"))
    cluster.run(0.2)
    assert isinstance(replies[0], Stored)


# clocks


def test_a_clock_goes_on_from_what_it_shows_when_it_drifts() -> None:
    scheduler = Scheduler()
    clock = Clock(scheduler, 1000.0)
    scheduler.run_until(10.0)
    clock.run_at(1.1)
    assert clock.now() == 1010.0
    scheduler.run_until(20.0)
    assert clock.now() == pytest.approx(1021.0)
    assert clock.until(1032.0) == pytest.approx(10.0)
    assert clock.until(0.0) == 0.0


def test_nodes_whose_clocks_began_elsewhere_and_drift_serve_reads_and_writes() -> None:
    cluster = SimulatedCluster("drift", 3, settings=SETTINGS)
    for i, host in enumerate(cluster.hosts.values()):
        host.machine.clock = Clock(cluster.scheduler, (5e6, 3.0, 7e4)[i])
    cluster.start()
    cluster.run(1.0)
    for host, rate in zip(cluster.hosts.values(), (0.9, 1.1, 1.0), strict=True):
        host.drift(rate)
    for i in range(20):
        node = f"n{i % 3 + 1}"
        assert isinstance(cluster.call(node, Put("carts", b"k%d" % i, b"v", w=3)), Stored)
        assert isinstance(cluster.call(node, Get("carts", b"k%d" % i, r=3)), Found)
        cluster.run(0.4)
    assert cluster.settled()
    for host in cluster.hosts.values():
        host.drift()
        assert host.node
        assert host.shell.status().counters.expired == 0
