"""Cluster state that changes while nodes run: what follows it, what is refused, what is on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from kvstore.config import BucketSettings, QuorumMode
from kvstore.errors import Corruption, InvalidRequest, StaleRing, StorageFull
from kvstore.node.state_store import CLUSTER_STATE
from kvstore.protocol.client import Failed
from kvstore.protocol.peer import ReadSame, Refusal, ReplicaRead, ReplicaWrite
from kvstore.ring import (
    ClusterState,
    Member,
    Ring,
    decode_state,
    encode_state,
    since_after,
)
from kvstore.versions import EncodedVersion, decode_version
from tests.plain import Delete, Get, Put
from tests.unit.quorum_cluster import Cluster, Host

LISTS = Mapping[int, tuple[str, ...]]


def after(
    state: ClusterState,
    lists: LISTS | None = None,
    members: tuple[Member, ...] | None = None,
    buckets: tuple[BucketSettings, ...] | None = None,
) -> ClusterState:
    """What comes next: where replicas have changed, the state when their moves are over."""
    n = {bucket.name: bucket.n for bucket in buckets or ()}
    moved = lists or any(state.bucket(name).n != now for name, now in n.items())
    found = replace(
        state,
        epoch=state.epoch + (3 if moved else 1),
        members=state.members if members is None else members,
        ring=Ring(tuple((lists or {}).get(p, nodes) for p, nodes in enumerate(state.ring.replica_lists))),
        buckets=state.buckets if buckets is None else buckets,
    )
    return replace(found, since=since_after(state, found))


def give(cluster: Cluster, state: ClusterState, *nodes: str) -> None:
    """Some nodes, or all, are told of a state."""
    for node in nodes or tuple(cluster.hosts):
        cluster.hosts[node].node.on_state(state, cluster.instant)
    cluster.run()
    cluster.move(0.0)
    cluster.run()


def key_in(cluster: Cluster, partition: int, bucket: str = "carts") -> bytes:
    keys = (b"k%d" % i for i in range(100_000))
    return next(key for key in keys if cluster.state.ring.partition(bucket, key) == partition)


def epoch(host: Host) -> int:
    return host.node.state.epoch


def test_a_newer_state_is_acted_by_and_survives_a_restart() -> None:
    cluster = Cluster()
    give(cluster, after(cluster.state))
    assert {epoch(host) for host in cluster.hosts.values()} == {2}
    cluster.start_again()  # with the state of the first start
    assert cluster.state.epoch == 1
    assert {epoch(host) for host in cluster.hosts.values()} == {2}


def test_a_state_is_on_the_disk_before_it_is_acted_by() -> None:
    cluster = Cluster()
    cluster.stuck.add("n1")
    give(cluster, after(cluster.state), "n1", "n2")
    assert (epoch(cluster.hosts["n1"]), epoch(cluster.hosts["n2"])) == (1, 2)
    cluster.stuck.clear()
    cluster.run()
    assert epoch(cluster.hosts["n1"]) == 2


def test_of_states_that_come_together_the_newest_counts() -> None:
    cluster = Cluster()
    host = cluster.hosts["n1"]
    second = after(cluster.state)
    third = after(second, {0: cluster.state.ring.replica_lists[0][::-1]})
    for state in (second, third, second, cluster.state):
        host.node.on_state(state, cluster.instant)
    cluster.move(0.0)
    cluster.run()
    assert host.node.state == third


@pytest.mark.parametrize("wrong", ["another cluster", "other partitions"])
def test_a_state_that_cannot_follow_is_refused(wrong: str) -> None:
    cluster = Cluster()
    state = after(cluster.state)
    if wrong == "another cluster":
        state = replace(state, cluster_id="another")
    else:
        state = replace(state, ring=Ring(state.ring.replica_lists * 2))
    with pytest.raises(InvalidRequest, match="state"):
        cluster.hosts["n1"].node.on_state(state, cluster.instant)
    assert epoch(cluster.hosts["n1"]) == 1


def test_only_requests_whose_replicas_have_changed_are_refused() -> None:
    cluster = Cluster(5)
    moved = cluster.state.ring.replica_lists[3]
    others = tuple(node for node in cluster.hosts if node not in moved)
    ahead = moved[1]
    give(cluster, after(cluster.state, {3: (*moved[:2], others[0])}), ahead)
    # the coordinator is of the first epoch still, and one of its replicas is not
    refusals: list[str] = []

    def watch(sender: str, _: str, message: object) -> bool:
        if isinstance(message, Refusal) and isinstance(message.error, StaleRing):
            refusals.append(sender)
        return True

    cluster.passes = watch
    for partition, nodes in enumerate(cluster.state.ring.replica_lists):
        if ahead in nodes and nodes[0] != ahead:
            refusals.clear()
            cluster.stored_reply(nodes[0], Put("carts", key_in(cluster, partition), b"v", w=2))
            assert refusals == ([ahead] if partition == 3 else []), partition


def test_writes_go_to_the_present_replicas_under_a_new_actor() -> None:
    cluster = Cluster(5)
    key = key_in(cluster, 3)
    before = cluster.state.ring.replica_lists[3]
    cluster.stored_reply(before[0], Put("carts", key, b"v"))  # whose placement is remembered
    now = (before[0], *(node for node in cluster.hosts if node not in before))
    give(cluster, after(cluster.state, {3: now}))
    stored = cluster.stored_reply(before[0], Put("carts", key, b"w"))
    assert stored.siblings == 2
    version = decode_version(EncodedVersion(cluster.stored(now[1], "carts", key) or b""))
    assert len({dot.actor for dot in version.context}) == 2, (
        "dots of the replica that gains it may be unknown"
    )
    assert cluster.stored(now[1], "carts", key) == cluster.stored(now[2], "carts", key)


def test_anti_entropy_compares_with_the_present_peers() -> None:
    cluster = Cluster(5)
    cluster.move(60.0)
    lists = cluster.state.ring.replica_lists
    host = cluster.hosts[lists[3][0]]
    pairs = host.status().anti_entropy
    assert pairs.unproven == 0
    others = tuple(node for node in cluster.hosts if node not in lists[3])
    give(cluster, after(cluster.state, {3: (host.node.name, *others)}))
    now = host.status().anti_entropy
    assert (now.pairs, now.unproven) == (pairs.pairs, 2)
    cluster.move(60.0)
    assert host.status().anti_entropy.unproven == 0


def test_a_client_of_an_earlier_epoch_is_refused_only_where_replicas_have_changed() -> None:
    cluster = Cluster()
    give(cluster, after(cluster.state, {3: cluster.state.ring.replica_lists[3][::-1]}))
    for partition in range(16):
        call = Put("carts", key_in(cluster, partition), b"v", epoch=1)
        if partition == 3:
            assert isinstance(cluster.error("n1", call), StaleRing)
        else:
            cluster.stored_reply("n1", call)
    late = Put("carts", key_in(cluster, 5), b"v", epoch=5)
    assert isinstance(cluster.error("n1", late), StaleRing), "nobody knows what a later epoch says"


def test_settings_of_a_bucket_change_while_nodes_run() -> None:
    carts = BucketSettings("carts", n=3, r=2, w=2)
    cluster = Cluster(buckets=[carts])
    key = key_in(cluster, 1)
    cluster.stored_reply("n1", Put("carts", key, b"v"))
    give(cluster, after(cluster.state, buckets=(replace(carts, w=3, quorum=QuorumMode.SLOPPY),)))
    found = cluster.stored_reply("n1", Put("carts", key, b"w", explain=True, epoch=1))
    assert found.explain is not None
    assert len(found.explain.answered) == 3, "w is 3 now, and the epoch before it is good as well"


def test_another_number_of_replicas_makes_earlier_epochs_stale_for_that_bucket_alone() -> None:
    carts = BucketSettings("carts", n=2, r=1, w=2)
    cluster = Cluster(buckets=[carts])
    key = key_in(cluster, 1)
    cluster.stored_reply("n1", Put("carts", key, b"v"))
    give(cluster, after(cluster.state, buckets=(replace(carts, n=3),)))
    assert isinstance(cluster.error("n1", Put("carts", key, b"w", epoch=1)), StaleRing)
    cluster.stored_reply("n1", Put("others", key, b"w", epoch=1))
    cluster.move(60.0)
    third = cluster.replicas("carts", key)[2]
    assert cluster.stored(third, "carts", key), "anti-entropy has brought it what it holds now"


def test_a_member_that_is_new_is_connected_probed_and_filled() -> None:
    cluster = Cluster(4)
    state = cluster.state
    lists = dict.fromkeys(range(16), ("n1", "n2", "n3"))
    three = tuple(m for m in state.members if m.node != "n4")
    give(cluster, after(state, lists, members=three), "n1", "n2", "n3")
    assert cluster.hosts["n1"].members == {"n1", "n2", "n3"}
    assert {m.node for m in cluster.hosts["n1"].status().members} == {"n1", "n2", "n3"}
    key = key_in(cluster, 7)
    cluster.stored_reply("n1", Put("carts", key, b"v"))
    assert not cluster.stored("n4", "carts", key)
    back = after(cluster.hosts["n1"].node.state, dict.fromkeys(lists, ("n4", "n1", "n2")), state.members)
    give(cluster, back)
    assert cluster.hosts["n1"].members == {"n1", "n2", "n3", "n4"}
    cluster.move(60.0)
    assert cluster.stored("n4", "carts", key)
    assert cluster.found("n4", Get("carts", key, epoch=back.epoch)).siblings[0].value == b"v"


def test_hints_for_a_member_that_has_gone_come_home_to_the_present_replicas() -> None:
    cluster = Cluster(4)
    key = key_in(cluster, 7)
    gone = cluster.replicas("carts", key)[0]
    others = [node for node in cluster.hosts if node != gone]
    cluster.kill(gone)
    cluster.stored_reply(cluster.replicas("carts", key)[1], Put("carts", key, b"v"))
    assert any(cluster.hints(node).get(gone) for node in others)
    lists = {
        p: tuple(dict.fromkeys([*(n for n in nodes if n != gone), *others]))[:3]
        for p, nodes in enumerate(cluster.state.ring.replica_lists)
    }
    members = tuple(m for m in cluster.state.members if m.node != gone)
    give(cluster, after(cluster.state, lists, members=members), *others)
    cluster.move(60.0)
    assert not any(cluster.hints(node) for node in others)
    assert all(cluster.stored(node, "carts", key) for node in others)


def test_a_full_disk_keeps_the_present_state_until_there_is_space() -> None:
    cluster = Cluster()
    host = cluster.hosts["n1"]
    host.fs.full = True
    cluster.stuck.add("n1")
    host.engine.write([(b"n/something", b"v")])
    with pytest.raises(StorageFull):
        host.engine.sync()
    assert host.engine.refuses
    give(cluster, after(cluster.state), "n1")
    cluster.move(5.0)
    assert epoch(host) == 1
    host.fs.full = False
    cluster.stuck.clear()
    cluster.move(5.0)
    assert epoch(host) == 2


def test_a_state_on_the_disk_that_cannot_be_read_counts_as_none() -> None:
    cluster = Cluster()
    give(cluster, after(cluster.state))
    cluster.start_again(lambda: cluster.put_on_disk("n1", CLUSTER_STATE, b"\1rubbish"))
    assert (epoch(cluster.hosts["n1"]), epoch(cluster.hosts["n2"])) == (1, 2)


def test_the_bytes_of_a_state_are_read_back_and_no_others() -> None:
    cluster = Cluster(buckets=[BucketSettings("carts", ttl=60)])
    state = after(cluster.state, {3: cluster.state.ring.replica_lists[3][::-1]})
    data = encode_state(state)
    assert decode_state(data) == state
    for end in range(len(data)):
        with pytest.raises(Corruption):
            decode_state(data[:end])
    wrong = replace(state, ring=Ring((("n1", "n1", "n2"), *state.ring.replica_lists[1:])))
    with pytest.raises(Corruption, match="twice"):
        decode_state(encode_state(wrong))


def test_a_write_of_an_earlier_epoch_whose_replicas_are_the_same_is_stored() -> None:
    cluster = Cluster()
    cluster.stored_reply("n1", Put("carts", b"k", b"v"))
    seen: list[int] = []

    def watch(_: str, __: str, message: object) -> bool:
        if isinstance(message, ReplicaWrite):
            seen.append(message.epoch)
        return True

    cluster.passes = watch
    give(cluster, after(cluster.state), "n2", "n3")
    cluster.stored_reply("n1", Put("carts", b"k", b"w", w=3))
    assert set(seen) == {1}


def test_a_name_that_is_no_text_is_a_corrupt_state() -> None:
    """Found by fuzzing: it raised what no start expects."""
    state = Cluster().state
    data = encode_state(state).replace(b"\xa2n1", b"\xa2n\x80")
    with pytest.raises(Corruption):
        decode_state(data)


def test_a_request_is_carried_out_by_the_replicas_it_was_placed_at_or_refused() -> None:
    """Its quorum is one of theirs: under a later epoch it would count as one of others, and be lost."""
    cluster = Cluster()
    key = key_in(cluster, 3)
    first = cluster.state.ring.replica_lists[3][0]
    cluster.stored_reply(first, Put("carts", key, b"v", w=3))
    silent, epochs = True, set[int]()

    def watch(_: str, to: str, message: object) -> bool:
        if isinstance(message, ReplicaRead):
            epochs.add(message.epoch)
        return not (silent and to == first and isinstance(message, ReadSame))

    cluster.passes = watch
    number = cluster.start(first, Delete("carts", key, timeout=60.0))
    cluster.run()
    give(cluster, after(cluster.state, {3: cluster.state.ring.replica_lists[3][::-1]}), first)
    silent = False
    cluster.move(20.0)
    assert epochs == {1}, "the read goes on at the replicas that it was placed at"
    reply = cluster.hosts[first].replies[number]
    assert isinstance(reply, Failed)
    assert isinstance(reply.error, StaleRing)
    cluster.passes = lambda *_: True
    assert cluster.found(cluster.replicas("carts", key)[1], Get("carts", key)).siblings
