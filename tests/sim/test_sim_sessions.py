"""Sessions where R + W is not above N: plain reads go back in time (BUGS 6), those of a session do not."""

from __future__ import annotations

import pytest

import kvstore
from kvstore.client.core.seen import KEYS, Seen
from kvstore.config import AntiEntropySettings, BucketSettings, QuorumMode
from kvstore.node.settings import NodeSettings
from kvstore.protocol.client import Failed, Found, Stored, Value
from kvstore.sim.cluster import SimulatedCluster
from kvstore.testing import Cluster
from kvstore.testing.carrier import SimulatedCarrier
from kvstore.versions import SignedContext, UserKey
from tests.plain import Delete, Get, Put

KEY = b"user:1"
WEAK = BucketSettings("weak", r=1, w=1)
SLOPPY = BucketSettings("sloppy", r=1, w=1, quorum=QuorumMode.SLOPPY)
NEVER = float("inf")


class Scene:
    """Three nodes without anti-entropy, and a session whose requests go to whichever node a test says."""

    def __init__(self, nodes: int = 3) -> None:
        quiet = NodeSettings(anti_entropy=AntiEntropySettings(interval=NEVER, reap_interval=NEVER))
        self.cluster = SimulatedCluster(1, nodes, [WEAK, SLOPPY], quiet)
        self.cluster.steady()
        self.cluster.start()
        self.cluster.run(1.0)
        self.session = Seen()

    def put(self, node: str, value: bytes, bucket: str = "weak", alone: bool = False) -> None:
        """Over what the session would read there; alone: what the node sends to others meanwhile is lost."""
        context = self.read(node, bucket).context
        if alone:
            self.cluster.network.cut |= set(self.cluster.links([node]))
        put = Put(bucket, KEY, value, context)
        reply = self.cluster.call(node, put)
        assert isinstance(reply, Stored), reply
        self.session.stored(put, reply, self.cluster.scheduler.now)
        self.cluster.run(0.1)
        self.cluster.network.cut.clear()

    def read(self, node: str, bucket: str = "weak") -> Found:
        """By the session."""
        get = self.session.asking(Get(bucket, KEY), self.cluster.scheduler.now)
        reply = self.cluster.call(node, get)
        assert isinstance(reply, Found), reply
        self.session.found(get, reply, self.cluster.scheduler.now)
        return reply

    def plain(self, node: str, bucket: str = "weak") -> list[bytes]:
        reply = self.cluster.call(node, Get(bucket, KEY))
        assert isinstance(reply, Found), reply
        return [sibling.value for sibling in reply.siblings]

    def seen(self, node: str, bucket: str = "weak") -> list[bytes]:
        return [sibling.value for sibling in self.read(node, bucket).siblings]


@pytest.mark.parametrize("bucket", ["weak", "sloppy"])
def test_bugs_6_a_session_reads_its_writes_where_a_plain_read_goes_back_in_time(bucket: str) -> None:
    scene = Scene()
    scene.put("n1", b"old", bucket)
    scene.put("n1", b"new", bucket, alone=True)
    assert scene.plain("n1", bucket) == [b"new"]
    assert scene.plain("n2", bucket) == [b"old"], "one replica after the other: back in time"
    assert scene.seen("n2", bucket) == [b"new"]
    assert scene.plain("n2", bucket) == [b"new"], "the wider read has repaired the replica"


def test_bugs_6_a_session_never_reads_back_behind_what_it_has_read() -> None:
    scene = Scene()
    scene.put("n1", b"old")
    reader, scene.session = scene.session, Seen()
    scene.put("n1", b"new", alone=True)  # by somebody else
    scene.session = reader
    assert scene.seen("n1") == [b"new"]
    assert scene.plain("n2") == [b"old"]
    assert scene.seen("n2") == [b"new"]


def test_one_round_trip_is_enough_where_the_replica_has_seen_it() -> None:
    scene = Scene()
    scene.put("n1", b"v")
    asked = scene.cluster.network.counts["sent"]
    get = scene.session.asking(Get("weak", KEY, explain=True), 0.0)
    reply = scene.cluster.call("n2", get)
    assert isinstance(reply, Found)
    assert reply.explain is not None
    assert reply.explain.asked == ("n2",)
    assert scene.cluster.network.counts["sent"] - asked < 10


def test_a_blind_write_beside_siblings_is_read_back_although_its_context_does_not_cover_them() -> None:
    scene = Scene()
    scene.cluster.network.cut |= set(scene.cluster.links(["n1"]))
    assert isinstance(scene.cluster.call("n1", Put("weak", KEY, b"other")), Stored)
    put = Put("weak", KEY, b"mine")
    reply = scene.cluster.call("n1", put)
    assert isinstance(reply, Stored)
    assert reply.written
    scene.session.stored(put, reply, 0.0)
    scene.cluster.network.cut.clear()
    assert scene.plain("n2") == []
    assert sorted(scene.seen("n2")) == [b"mine", b"other"]
    refused = scene.cluster.call("n2", Put("weak", KEY, b"x", context=SignedContext(reply.written)))
    assert isinstance(refused, Failed)
    assert isinstance(refused.error, kvstore.InvalidRequest), "a session's token is no context to write with"


def test_what_is_out_of_reach_is_an_error_and_never_an_older_value() -> None:
    scene = Scene()
    scene.put("n1", b"old")
    scene.put("n1", b"new", alone=True)
    scene.cluster.crash("n1")
    scene.cluster.run(10.0)
    reply = scene.cluster.call("n2", scene.session.asking(Get("weak", KEY), 0.0))
    assert isinstance(reply, Failed)
    assert isinstance(reply.error, kvstore.StaleRead)
    assert reply.error.received == 2
    scene.cluster.restart("n1")
    scene.cluster.run(5.0)
    assert scene.seen("n2") == [b"new"]


def test_a_delete_is_seen_by_its_session() -> None:
    scene = Scene()
    scene.put("n1", b"v")
    context = scene.read("n1").context
    scene.cluster.network.cut |= set(scene.cluster.links(["n1"]))
    delete = Delete("weak", KEY, context)
    reply = scene.cluster.call("n1", delete)
    assert isinstance(reply, Stored)
    scene.session.stored(delete, reply, 0.0)
    scene.cluster.network.cut.clear()
    assert scene.plain("n2") == [b"v"]
    assert scene.seen("n2") == []


# through the client


def test_a_client_goes_on_trying_until_its_timeout() -> None:
    cluster = Cluster(buckets=["weak:r=1,w=1"])
    with cluster.connect() as db:
        weak = db.session().bucket("weak")
        node = cluster.replicas("weak", "k")[0]
        others = [name for name in cluster.nodes if name != node]
        weak.put("k", "old")
        cluster.advance(1.0)
        cluster.split(node)
        weak.put("k", "new", context=weak.get("k").context)
        cluster.advance(0.1)
        cluster.kill(node)
        cluster.heal()
        began = cluster.now
        with pytest.raises(kvstore.StaleRead):
            weak.get("k", timeout=2.0)
        assert 1.0 < cluster.now - began <= 2.0
        assert cluster.connect(*others).bucket("weak").get("k").value == b"old"
        assert db.bucket("weak").get("k").value == b"old"
        with pytest.raises(kvstore.PartialFailure):
            weak.get_many(["k", "other"], timeout=1.0)
        cluster.restart(node)
        assert weak.get("k", timeout=20.0).value == b"new"
        assert weak.update("k", lambda value: (value or b"") + b"er").siblings == 1
        assert weak.get_many(["k"])["k"].value == b"newer"


def test_a_client_goes_on_trying_when_all_replicas_answer_and_none_has_it() -> None:
    cluster = Cluster(buckets=["weak:r=1,w=1"])
    with cluster.connect() as db:
        weak = db.session().bucket("weak")
        node = cluster.replicas("weak", "k")[0]
        cluster.split(node)
        weak.put("k", "new")
        cluster.advance(0.1)
        cluster.kill(node)
        cluster._cluster.hosts[node].wipe()
        cluster.heal()
        cluster.restart(node)
        cluster.advance(2.0)
        began = cluster.now
        with pytest.raises(kvstore.StaleRead) as caught:
            weak.get("k", timeout=3.0)
        assert caught.value.received == 3
        assert cluster.now - began > 1.0, "it may come yet"
        assert not db.bucket("weak").get("k")


def test_a_delete_by_a_session_deletes_what_it_has_seen_wherever_it_is_sent() -> None:
    cluster = Cluster(buckets=["weak:r=1,w=1"])
    with cluster.connect() as db:
        weak = db.session().bucket("weak")
        node, other, _ = cluster.replicas("weak", "k")
        weak.put("k", "old")
        cluster.advance(1.0)
        cluster.split(node)
        weak.put("k", "new", context=weak.get("k").context)
        cluster.advance(0.01)
        cluster.heal()
        carrier = db._inner._dispatcher
        assert isinstance(carrier, SimulatedCarrier)
        carrier.client.reach([other])
        weak.delete("k")
        cluster.settle()
        assert not cluster.connect().bucket("weak").get("k", r=3)


def test_a_session_deletes_what_it_has_seen_and_a_reaped_key_is_no_step_back() -> None:
    cluster = Cluster(buckets=["weak:r=1,w=1"])
    with cluster.connect() as db:
        weak, others = db.session().bucket("weak"), db.session().bucket("weak")
        for key in ("mine", "theirs"):
            weak.put(key, "v")
        weak.delete("mine")
        assert not weak.get("mine")
        others.delete("theirs")
        for _ in range(12):
            cluster.advance(5.0)
            assert not weak.get("mine"), "seen without a value"
        held = [cluster._cluster.stored(node, "weak", b"mine") for node in cluster.nodes]
        assert held == [None] * 3, "nothing is known of it any more"
        assert not weak.get("mine")
        assert not weak.get("theirs"), "seen with a value, and too long ago to be insisted on"


def test_a_session_remembers_a_bounded_number_of_keys_for_a_bounded_time() -> None:
    now = 0.0
    seen = Seen(300.0)
    scene = Scene()
    scene.put("n1", b"v")
    reply = scene.cluster.call("n1", Get("weak", KEY))
    assert isinstance(reply, Found)
    get = Get("weak", KEY)
    seen.found(get, reply, now)
    now = 300.0
    assert seen.asking(get, now).seen
    now = 601.0
    assert not seen.asking(get, now).seen
    assert ("weak", KEY) not in seen._entries, "nor is it joined to what is seen from now on"
    seen.found(get, reply, now)
    entry = seen._entries[get.bucket, get.key]
    seen._entries.update({(get.bucket, UserKey(b"%d" % i)): entry for i in range(KEYS - 1)})
    assert seen.asking(get, now).seen
    one_more = Get("weak", b"one more")
    put = scene.cluster.call("n1", Put("weak", b"one more", b"v"))
    assert isinstance(put, Stored)
    seen.stored(Put("weak", b"one more", b"v"), put, now)
    assert len(seen._entries) == KEYS
    assert not seen.asking(get, now).seen, "it was used longest ago"
    assert seen.asking(one_more, now).seen


def test_only_a_delete_that_has_left_nothing_lets_a_session_find_nothing() -> None:
    """Else a replica that lacks the session's own write could pass for one from which it was reaped."""
    context = found("n1.0.0").context
    for request, siblings, empty in (
        (Delete("weak", KEY), 0, True),
        (Delete("weak", KEY), 1, False),
        (Put("weak", KEY, b"v"), 0, False),
        (Put("weak", KEY, b"v"), 1, False),
    ):
        seen = Seen()
        seen.stored(request, Stored(context, siblings), 0.0)
        assert seen.asking(Get("weak", KEY), 0.0).seen_empty is empty
    seen = Seen()
    for found_now in (Found((), context), Found((Value(b"v"),), context)):
        seen.found(Get("weak", KEY), found_now, 0.0)
        assert seen.asking(Get("weak", KEY), 0.0).seen_empty == (not found_now.siblings)


def found(actor: str) -> Found:
    """A value that one writer has left."""
    scene = Scene()
    scene.put("n1", actor.encode())
    reply = scene.cluster.call("n1", Get("weak", KEY))
    assert isinstance(reply, Found)
    return reply
