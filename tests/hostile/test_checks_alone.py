"""Attacks that one check alone keeps off, each on the check that its row names (tests/hostile/planted.py).

Other attacks on the same field meet a second check behind the first: with them none of the two is missed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from kvstore.client.core.calls import Calls
from kvstore.config import BucketSettings
from kvstore.contexts import encode_seen
from kvstore.errors import Corruption, InvalidRequest, KVError, VersionTooLarge, WrongDataDirectory
from kvstore.hlc import MAX_TIME
from kvstore.lsm import Engine, Options
from kvstore.protocol.client import Stored
from kvstore.protocol.fields import MAX_INCARNATION
from kvstore.protocol.gossip import Ping, PushPull, Status, Update
from kvstore.protocol.peer import Candidate, KeyOffer, ReapConfirm, Refusal, ReplicaWrite
from kvstore.quorum.background import reap_rounds
from kvstore.quorum.background.reap_rounds import ReapRounds
from kvstore.quorum.ttl import expiry
from kvstore.server.data_directory import IDENTITY, claim
from kvstore.server.identity import Identity, read
from kvstore.store import DiskFileSystem
from kvstore.versions import (
    MAX_EXPIRY,
    Digest,
    Dot,
    EncodedVersion,
    InternalKey,
    Sibling,
    SignedContext,
    Version,
    decode_version,
    encode_version,
)
from kvstore.wire.budget import ITEMS_OF_A_LIST
from kvstore.wire.peer import decode_frame, encode_frame
from tests.plain import Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster
from tests.unit.server_nodes import cluster_state

KEY = b"user:1"
TOKEN = token("carts", KEY)
INTERNAL = data_key(TOKEN, "carts", KEY)
DOT = Dot("n9.0.0", 7)


def written() -> tuple[Cluster, Dot]:
    """A key that n1 has written once, and the dot of that."""
    cluster = Cluster()
    cluster.stored_reply("n1", Put("carts", KEY, b"first"))
    stored = cluster.stored("n1", "carts", KEY)
    assert stored
    return cluster, decode_version(EncodedVersion(stored)).context[0]


# versions and contexts


def test_a_write_is_never_one_that_is_stored_as_seen_already() -> None:
    """A version of before peers were checked, which covers dots that this node has yet to make."""
    cluster, dot = written()
    ahead = Dot(dot.actor, dot.counter + 1000)
    for host in cluster.hosts.values():
        host.engine.write([(INTERNAL, encode_version(Version((ahead,), ())))])
    cluster.stored_reply("n1", Put("carts", KEY, b"second", w=3))
    for node in cluster.hosts:
        assert [s.value for s in cluster.found(node, Get("carts", KEY, r=3)).siblings] == [b"second"]
        found = decode_version(EncodedVersion(cluster.stored(node, "carts", KEY) or b""))
        assert dict(found.context)[found.siblings[0].dot.actor] == found.siblings[0].dot.counter


def test_a_version_of_another_format_is_never_taken_for_one_of_this() -> None:
    """One that a later kvstore has stored; in a frame it would be no canonical one either."""
    cluster, _ = written()
    stored = cluster.stored("n1", "carts", KEY)
    assert stored
    for host in cluster.hosts.values():
        host.engine.write([(INTERNAL, b"\2" + stored[1:])])
    assert isinstance(cluster.error("n1", Get("carts", KEY, r=3)), Corruption)


def test_a_claim_under_the_name_of_the_key_without_its_signature_is_refused() -> None:
    """Of an actor of nobody here, so that no node can tell by its own count."""
    cluster, _ = written()
    honest = cluster.found("n1", Get("carts", KEY)).context
    claim = msgspec.msgpack.encode((Dot("zz.0.0", 2**40),))
    context = SignedContext(b"\2" + honest[1:17] + claim)
    assert isinstance(cluster.error("n1", Put("carts", KEY, b"second", context)), InvalidRequest)


def test_what_is_signed_in_another_format_is_no_context() -> None:
    """The signature is of what follows the format."""
    cluster, _ = written()
    context = b"\3" + cluster.found("n1", Get("carts", KEY)).context[1:]
    error = cluster.error("n1", Put("carts", KEY, b"second", SignedContext(context)))
    assert isinstance(error, InvalidRequest)


def test_a_signed_context_that_names_an_actor_twice_is_refused() -> None:
    cluster, _ = written()
    sign = cluster.hosts["n1"].node.base.context_keys.sign
    context = sign((Dot("zz", 1), Dot("zz", 2)), INTERNAL)
    assert isinstance(cluster.error("n1", Put("carts", KEY, b"second", context)), InvalidRequest)


def test_the_token_of_another_key_is_refused() -> None:
    cluster, dot = written()
    assert cluster.found("n1", Get("carts", KEY, seen=encode_seen((dot,), TOKEN))).siblings
    other = encode_seen((dot,), token("carts", b"user:2"))
    assert isinstance(cluster.error("n1", Get("carts", KEY, seen=other)), InvalidRequest)


def test_a_peer_that_offers_keys_without_end_is_not_followed() -> None:
    """Each is kept for good, on the disk as well, and handed on to all others."""
    cluster = Cluster()
    for first in range(0, 3000, 500):
        keys = tuple(i.to_bytes(16, "big") for i in range(first, first + 500))
        cluster.hosts["n1"].node.on_frame("n2", [KeyOffer(keys)], cluster.instant)
    assert len(cluster.hosts["n1"].node.base.context_keys.keys) == 1024
    cluster.run()
    context = cluster.stored_reply("n1", Put("carts", KEY, b"v")).context
    cluster.stored_reply("n2", Put("carts", KEY, b"w", context))


# gossip, reaping, clocks


@pytest.mark.parametrize("status", Status)
def test_gossip_of_strangers_is_ignored(status: Status) -> None:
    cluster = Cluster()
    rumour = (Update("n9", status, 5),)
    for message in (Ping(1, "n1", rumour), PushPull(rumour, True)):
        cluster.hosts["n1"].node.on_frame("n2", decode_frame(encode_frame([message])), cluster.instant)
    cluster.run()
    assert [member.node for member in cluster.hosts["n1"].status().members] == ["n1", "n2", "n3"]


def test_an_incarnation_beyond_the_last_one_counts_as_that() -> None:
    for number in (MAX_INCARNATION + 1, 2**64 - 1):
        (message,) = decode_frame(encode_frame([PushPull((Update("n3", Status.DEAD, number),), False)]))
        assert message == PushPull((Update("n3", Status.DEAD, MAX_INCARNATION),), False)


def test_a_refutation_goes_no_further_than_the_last_incarnation() -> None:
    """Two nodes would refute each other without end: what they hear counts as the last one."""
    cluster = Cluster()
    rumour = PushPull((Update("n1", Status.SUSPECT, MAX_INCARNATION),), False)
    cluster.hosts["n1"].node.on_frame("n2", [rumour], cluster.instant)
    own = next(member for member in cluster.hosts["n1"].status().members if member.node == "n1")
    assert own.incarnation == MAX_INCARNATION


def test_rounds_that_are_begun_without_end_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reap_rounds, "_MOST", 10)
    rounds = ReapRounds(1.0)
    asked = [Candidate(InternalKey(b"%d" % i), Digest(bytes(16))) for i in range(25)]
    for candidate in asked:
        rounds.confirmed("n2", candidate, 0.0)
    assert [c for c in asked if rounds.may_commit("n2", c, 2.0)] == asked[-10:]


def test_a_write_over_the_last_time_there_is_stays_within_bounds() -> None:
    """Else the other replicas refuse the frame, and all that is in it."""
    cluster = Cluster()
    version = encode_version(Version((DOT,), (Sibling(DOT, b"future", MAX_TIME),)))
    write = ReplicaWrite(1, 1, INTERNAL, version)
    for node in cluster.hosts:
        cluster.hosts[node].node.on_frame("n2" if node != "n2" else "n3", [write], cluster.instant)
    cluster.run()
    context = cluster.found("n1", Get("carts", KEY)).context
    assert cluster.stored_reply("n1", Put("carts", KEY, b"next", context, w=3)).siblings == 1
    assert cluster.refused == 0


@pytest.mark.parametrize("wall", [-(10**14), -60_000, 0, 1_700_000_000_000, MAX_EXPIRY])
def test_what_expires_does_so_whatever_the_clock_says(wall: int) -> None:
    """0 means never, and other nodes refuse what is out of bounds."""
    assert 1 <= expiry(60, wall) <= MAX_EXPIRY
    assert expiry(0, wall) == 0


# sizes and lists


def test_a_hint_that_no_disk_takes_is_refused_with_a_type() -> None:
    cluster = Cluster(options=Options(value_bytes=6000))
    version = encode_version(Version((DOT,), (Sibling(DOT, bytes(6000)),)))
    host = cluster.hosts["n1"]
    host.node.on_frame("n2", [ReplicaWrite(1, 1, INTERNAL, version, "n3")], cluster.instant)
    (answer,) = [message for _, message in host.sent if isinstance(message, Refusal)]
    assert isinstance(answer.error, VersionTooLarge)


def test_a_version_that_no_client_takes_is_refused_with_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, _ = written()
    monkeypatch.setattr("kvstore.quorum.get.MAX_REPLY_BYTES", 10)
    assert isinstance(cluster.error("n1", Get("carts", KEY)), VersionTooLarge)


def test_a_content_type_is_bounded_where_no_other_node_looks_at_it() -> None:
    """The coordinator's own replica is enough for w=1: the key could not be read any more."""
    cluster, _ = written()
    error = cluster.error("n1", Put("carts", KEY, b"second", content_type="x" * 256, w=1))
    assert isinstance(error, InvalidRequest)
    assert error.field == "content_type"
    assert [s.value for s in cluster.found("n1", Get("carts", KEY, r=1)).siblings] == [b"first"]


def test_a_list_of_too_many_items_is_refused_although_its_frame_is_small() -> None:
    """Numbers in one list are a single field of the frame, which is counted before it is parsed."""
    most = tuple(i % 100 for i in range(ITEMS_OF_A_LIST))
    assert decode_frame(encode_frame([ReapConfirm(1, most)])) == [ReapConfirm(1, most)]
    with pytest.raises(InvalidRequest, match="items of one list"):
        decode_frame(encode_frame([ReapConfirm(1, (*most, 0))]))


# disks


def test_what_others_would_refuse_is_not_sent_to_who_asks_for_it() -> None:
    """He would take the sender for defective, and lose what else is in the frame."""
    cluster, _ = written()
    cluster.hosts["n1"].engine.write([(INTERNAL, encode_version(Version((DOT,), (Sibling(DOT, b"v", -1),))))])
    assert isinstance(cluster.error("n2", Get("carts", KEY, r=3)), KVError)
    assert cluster.refused == 0


def test_an_identity_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """What fills a disk's worth of it with spaces is JSON as well."""
    claim(tmp_path, Identity.of("n1", cluster_state([1, 2, 3])))
    with (tmp_path / IDENTITY).open("ab") as file:
        file.write(b" " * 17_000_000)
    with pytest.raises(WrongDataDirectory, match="damaged"):
        read(tmp_path / IDENTITY)


def test_what_the_engine_makes_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        engine = Engine.open(DiskFileSystem(), str(tmp_path / "engine"))
        engine.write([(b"key", b"value")])
        engine.sync()
        engine.close()
    finally:
        os.umask(before)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "engine").rglob("*")}
    assert found
    assert {name: mode for name, mode in found.items() if mode & 0o077} == {}
    assert stat.S_IMODE((tmp_path / "engine").stat().st_mode) == 0o700


# replies to clients


class Asker:
    """Keeps what its call came to."""

    def __init__(self) -> None:
        self.answers: list[object] = []

    def left(self) -> bool:
        return False

    def on_answer(self, answer: object, now: float) -> None:
        self.answers.append(answer)


def asking() -> tuple[Calls, Asker]:
    """The calls to a node, with one, of the number 1, that waits to be sent."""
    calls, asker = Calls("host:1", BucketSettings, lambda calls: None), Asker()
    calls.submit(Put("carts", KEY, b"v"), 10.0, 1, asker)
    return calls, asker


def test_a_reply_to_a_call_that_was_not_sent_ends_the_connection() -> None:
    """The write would count as stored, and be sent all the same."""
    calls, asker = asking()
    with pytest.raises(InvalidRequest, match="has not been sent"):
        calls.answer([(1, Stored(SignedContext(b""), 1))], 0.0)
    assert asker.answers == []


def test_a_reply_to_what_nobody_asked_is_dropped() -> None:
    calls, asker = asking()
    calls.take_frame(0.0)
    calls.answer([(9, Stored(SignedContext(b""), 1)), (0, None)], 0.0)
    assert asker.answers == []
    calls.answer([(1, Stored(SignedContext(b""), 1))], 0.0)
    assert asker.answers == [Stored(SignedContext(b""), 1)]
