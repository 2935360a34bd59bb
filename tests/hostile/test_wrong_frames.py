"""Frames of a peer that has a defect: refused as a whole, before anything of them is carried out."""

from __future__ import annotations

import random
from collections.abc import Sequence

import mmh3
import pytest

from kvstore.errors import InvalidRequest, KVError
from kvstore.hlc import MAX_TIME
from kvstore.protocol.client import Found
from kvstore.protocol.fields import MAX_INCARNATION, fields_of
from kvstore.protocol.gossip import Ping, PushPull, Status, Update
from kvstore.protocol.paxos import MAX_ROUND, Ballot, Prepare, Promise, Vote
from kvstore.protocol.peer import (
    Candidate,
    Forward,
    KeyOffer,
    KeyVersion,
    RangeDifference,
    RangeItems,
    ReadReply,
    ReapCheck,
    RepairWanted,
    ReplicaRead,
    ReplicaWrite,
    TreeNode,
    TreeRead,
)
from kvstore.protocol.table import PEER_TABLE, PeerMessage
from kvstore.ring import initial_state, parse_members
from kvstore.sim.wrong_frames import change_of, make_wrong
from kvstore.versions import (
    MAX_COUNTER,
    MAX_EXPIRY,
    Digest,
    Dot,
    EncodedVersion,
    InternalKey,
    Sibling,
    Version,
    decode_version,
    encode_version,
)
from kvstore.wire.peer import decode_frame, encode_frame
from tests.plain import Get, Put, data_key, token
from tests.unit.quorum_cluster import Cluster

DOT = Dot("n9.0.0", 7)
STATE = initial_state("test", parse_members("n1=h:1,n2=h:2,n3=h:3"), 16, 3, [])
GOOD = encode_version(Version((DOT,), (Sibling(DOT, b"v"),)))
DIGEST = bytes(16)


def internal(key: bytes, bucket: str = "carts") -> bytes:
    return data_key(token(bucket, key), bucket, key)


KEY = internal(b"key")
OTHER = internal(b"other")

WRONG_KEYS = {
    "nothing": b"",
    "no keyspace": KEY[1:],
    "the keyspace of hints": b"h" + KEY[1:],
    "the keyspace of the node": b"n/incarnation",
    "without NUL": KEY[:9] + b"carts",
    "without NUL, with its token": b"d"
    + mmh3.hash64(b"carts", 0x6B767374, signed=False)[0].to_bytes(8, "big")
    + b"carts",
    "the token of another key": OTHER[:9] + KEY[9:],
    "no bucket": b"d" + token("", b"k").to_bytes(8, "big") + b"\0k",
    "a bucket that is no name": internal(b"k", "Carts"),
    "no key": internal(b""),
    "a key that is too long": internal(b"k" * 4097),
    "a bucket that is no text": KEY[:9] + b"\xff\xfe\0k",
}


def version(context: Sequence[Dot] = (DOT,), siblings: Sequence[Sibling] = (Sibling(DOT, b"v"),)) -> bytes:
    return encode_version(Version(tuple(context), tuple(siblings)))


WRONG_VERSIONS = {
    "nothing": b"",
    "rubbish": b"\xff" * 20,
    "another format": b"\x02" + GOOD[1:],
    "cut off": GOOD[:-1],
    "more than one": GOOD + b"\x00",
    "an integer in five bytes that fits into one": GOOD.replace(b"\x07", b"\xce\0\0\0\x07", 1),
    "an integer in five bytes, of a tombstone of two actors": version(
        [Dot("a", 7), Dot("b", 1)], [Sibling(Dot("a", 7), None)]
    ).replace(b"\x07", b"\xce\0\0\0\x07", 1),
    "counter 0": version([Dot("a", 0)], ()),
    "counter -1": version([Dot("a", -1)], ()),
    "counter past its bound": version([Dot("a", MAX_COUNTER + 1)], ()),
    "counter 2^64-1": version([Dot("a", 2**64 - 1)], ()),
    "an actor without a name": version([Dot("", 1)], ()),
    "an actor with an endless name": version([Dot("a" * 129, 1)], ()),
    "actors out of order": version([Dot("b", 1), Dot("a", 1)], ()),
    "an actor twice": version([Dot("a", 1), Dot("a", 2)], ()),
    "a sibling that its context does not cover": version((), [Sibling(DOT, b"v")]),
    "a sibling twice": version([DOT], [Sibling(DOT, b"v"), Sibling(DOT, b"v")]),
    "siblings out of order": version([DOT], [Sibling(DOT, b"v"), Sibling(Dot(DOT.actor, 3), b"v")]),
    "time -1": version([DOT], [Sibling(DOT, b"v", time=-1)]),
    "time past its bound": version([DOT], [Sibling(DOT, b"v", time=MAX_TIME + 1)]),
    "time 2^64-1": version([DOT], [Sibling(DOT, b"v", time=2**64 - 1)]),
    "expiry -1": version([DOT], [Sibling(DOT, b"v", expiry=-1)]),
    "expiry past its bound": version([DOT], [Sibling(DOT, b"v", expiry=MAX_EXPIRY + 1)]),
    "a content type of 60,000 characters": version([DOT], [Sibling(DOT, b"v", content_type="x" * 60_000)]),
}

WRONG: dict[str, PeerMessage] = {
    **{f"write, key: {name}": ReplicaWrite(1, 1, InternalKey(key), GOOD) for name, key in WRONG_KEYS.items()},
    **{
        f"hint, key: {name}": ReplicaWrite(1, 1, InternalKey(key), GOOD, "n3")
        for name, key in WRONG_KEYS.items()
    },
    **{
        f"read, key: {name}": ReplicaRead(1, 1, InternalKey(key), Digest(DIGEST))
        for name, key in WRONG_KEYS.items()
    },
    **{
        f"reap, key: {name}": ReapCheck(
            1,
            1,
            (Candidate(InternalKey(KEY), Digest(DIGEST)), Candidate(InternalKey(key), Digest(DIGEST))),
            True,
        )
        for name, key in WRONG_KEYS.items()
    },
    **{
        f"difference, key: {name}": RangeDifference(
            1, (KeyVersion(InternalKey(KEY), GOOD), KeyVersion(InternalKey(key), GOOD)), (), b""
        )
        for name, key in WRONG_KEYS.items()
    },
    **{
        f"write, {name}": ReplicaWrite(1, 1, InternalKey(KEY), EncodedVersion(bad))
        for name, bad in WRONG_VERSIONS.items()
    },
    **{
        f"hint, {name}": ReplicaWrite(1, 1, InternalKey(KEY), EncodedVersion(bad), "n3")
        for name, bad in WRONG_VERSIONS.items()
    },
    **{
        f"repair, {name}": ReplicaWrite(1, 1, InternalKey(KEY), EncodedVersion(bad), background=True)
        for name, bad in WRONG_VERSIONS.items()
    },
    **{f"reply, {name}": ReadReply(1, EncodedVersion(bad)) for name, bad in WRONG_VERSIONS.items() if bad},
    **{
        f"difference, {name}": RangeDifference(
            1,
            (KeyVersion(InternalKey(OTHER), GOOD), KeyVersion(InternalKey(KEY), EncodedVersion(bad))),
            (),
            b"",
        )
        for name, bad in WRONG_VERSIONS.items()
    },
    "a hint for nobody": ReplicaWrite(1, 1, InternalKey(KEY), GOOD, "n9"),
    "a hint for the receiver": ReplicaWrite(1, 1, InternalKey(KEY), GOOD, "n1"),
    "a hint for a name with NUL": ReplicaWrite(1, 1, InternalKey(KEY), GOOD, "n3\0n2"),
    "a read of a hint for nobody": ReplicaRead(1, 1, InternalKey(KEY), Digest(DIGEST), "n9"),
    "a digest that is too short": ReplicaRead(1, 1, InternalKey(KEY), Digest(DIGEST[:15])),
    "a candidate's digest that is too long": ReapCheck(
        1, 1, (Candidate(InternalKey(KEY), Digest(bytes(17))),), False
    ),
    "a partition that there is none of": RangeItems(1, 1, 16, 3, b"\0", b"", b"", b""),
    "a tree of a partition that there is none of": TreeRead(1, 1, (TreeNode(0, 3, 0), TreeNode(16, 3, 0))),
    "a repair of a partition that there is none of": RepairWanted(1, 16, 3, "n3"),
    "a tree of keys without replicas": TreeRead(1, 1, (TreeNode(0, 0, 0),)),
    "a tree of keys with more replicas than members": TreeRead(1, 1, (TreeNode(0, 4, 0),)),
    "items of keys with more replicas than members": RangeItems(1, 1, 0, 4, b"\0", b"", b"", b""),
    "a repair of keys with more replicas than members": RepairWanted(1, 0, 4, "n3"),
    "a node that no tree has": TreeRead(1, 1, (TreeNode(0, 3, 273),)),
    "leaves out of order": RangeItems(1, 1, 0, 3, b"\5\1", b"", b"", b""),
    "a leaf twice": RangeItems(1, 1, 0, 3, b"\5\5", b"", b"", b""),
    "a bound that is longer than any key": RangeItems(1, 1, 0, 3, b"\0", bytes(4172), b"", b""),
    "an end that is longer than any key": RangeItems(1, 1, 0, 3, b"\0", b"", bytes(4172), b""),
    "an answer up to a bound that is longer than any key": RangeDifference(1, (), (), bytes(4172)),
    "items that end within one": RangeItems(1, 1, 0, 3, b"\0", b"", b"", bytes(15)),
    "a key for contexts that is too short": KeyOffer((bytes(16), bytes(15))),
    "a ballot past its bound": Prepare(2, Ballot(MAX_ROUND + 2, "n2")),
    "a vote of a ballot past its bound": Promise(2, Ballot(1, "n1"), Vote(Ballot(2**64 - 1, "n3"), STATE)),
    "a request for a principal with an endless name": Forward(1, 1, Get("carts", b"key"), "p" * 256),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_frame_with_one_wrong_message_among_five_good_ones_changes_nothing(name: str) -> None:
    """With five good ones written the replicas would differ, and a tree that raised would not know it."""
    cluster = Cluster()
    host = cluster.hosts["n1"]
    before, lsn = cluster.contents("n1"), host.engine.last_lsn
    good = [ReplicaWrite(10 + i, 1, InternalKey(internal(b"k%d" % i)), GOOD) for i in range(5)]
    (wrong,) = decode_frame(encode_frame([WRONG[name]]))  # as it comes over the wire
    with pytest.raises(InvalidRequest):
        host.node.on_frame("n2", [*good[:3], wrong, *good[3:]], cluster.instant)
    assert (cluster.contents("n1"), host.engine.last_lsn) == (before, lsn)
    assert host.status().counters.frames_refused == 1
    assert not host.sent
    cluster.run()
    host.node.on_frame("n2", good, cluster.instant)
    assert len(cluster.contents("n1")) == 5, "the next frame is taken"


def test_a_version_that_names_writes_which_this_node_has_yet_to_make_is_refused() -> None:
    """It would cover them: what this node acknowledges next would count as replaced."""
    cluster = Cluster()
    cluster.stored_reply("n1", Put("carts", b"key", b"mine"))
    host = cluster.hosts["n1"]
    stored = cluster.stored("n1", "carts", b"key")
    assert stored is not None
    (dot,) = decode_version(EncodedVersion(stored)).context
    ahead = version([Dot(dot.actor, dot.counter + 1)], ())
    with pytest.raises(InvalidRequest, match="yet to make"):
        host.node.on_frame(
            "n2", [ReplicaWrite(1, 1, InternalKey(KEY), EncodedVersion(ahead))], cluster.instant
        )
    host.node.on_frame("n2", [ReplicaWrite(1, 1, InternalKey(KEY), EncodedVersion(stored))], cluster.instant)


@pytest.mark.parametrize("incarnation", [2**64 - 1, 2**64 - 2, 2**63, MAX_INCARNATION, MAX_INCARNATION - 1])
@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("about", ["n1", "n2", "n3"])
def test_gossip_of_an_absurd_incarnation_stops_nobody(about: str, status: Status, incarnation: int) -> None:
    """It was refuted with the next number, persisted, and no node ever started again."""
    cluster = Cluster()
    rumour = (Update(about, status, incarnation),)
    for node in ("n1", "n2", "n3"):
        for message in (Ping(1, node, rumour), PushPull(rumour, True)):
            sender = "n2" if node != "n2" else "n3"
            frame = decode_frame(encode_frame([message]))
            cluster.hosts[node].node.on_frame(sender, frame, cluster.instant)
    cluster.run()
    cluster.move(20.0)
    for life in range(2):
        for node in cluster.hosts:
            members = cluster.hosts[node].status().members
            assert {member.status for member in members} == {Status.ALIVE}, (life, node)
            assert all(member.incarnation <= MAX_INCARNATION for member in members)
        cluster.stored_reply("n1", Put("carts", b"key%d" % life, b"v", w=3))
        cluster.start_again()
        cluster.move(20.0)


def test_a_member_at_the_last_incarnation_still_dies_and_comes_back() -> None:
    cluster = Cluster()
    rumour = (Update("n3", Status.SUSPECT, 2**64 - 1),)
    frame = decode_frame(encode_frame([PushPull(rumour, False)]))
    cluster.hosts["n1"].node.on_frame("n2", frame, cluster.instant)
    cluster.run()
    cluster.move(10.0)
    for _ in range(2):
        cluster.kill("n3")
        assert statuses(cluster, "n1")["n3"] is Status.DEAD
        cluster.revive("n3")
        cluster.move(5.0)
        assert statuses(cluster, "n1")["n3"] is Status.ALIVE


def statuses(cluster: Cluster, node: str) -> dict[str, Status]:
    return {member.node: member.status for member in cluster.hosts[node].status().members}


def test_ten_thousand_mutated_frames_leave_the_nodes_well_and_their_replicas_equal() -> None:
    """What the simulator's fault sends, in quick succession; here no exception may leave a node."""
    cluster, rng = Cluster(), random.Random(12)
    seen: list[bytes] = []

    def record(_sender: str, _to: str, message: PeerMessage) -> bool:
        seen.append(encode_frame([message]))
        return True

    cluster.passes = record
    for i in range(40):
        cluster.stored_reply("n1", Put("carts", b"%d" % i, b"v"))
        cluster.found("n2", Get("carts", b"%d" % i, r=3))
    cluster.move(30.0)
    cluster.passes = lambda sender, to, message: True
    refused = 0
    for _ in range(10_000):
        node, sender = rng.sample(["n1", "n2", "n3"], 2)
        try:
            messages = decode_frame(make_wrong(rng.choice(seen), rng))
            cluster.hosts[node].node.on_frame(sender, messages, cluster.instant)
        except InvalidRequest:
            refused += 1
        if rng.random() < 0.01:
            cluster.run()
    assert refused > 1000
    cluster.run()
    cluster.move(60.0)
    for i in range(40):
        assert [s.value for s in cluster.found("n3", Get("carts", b"%d" % i, r=3)).siblings] == [b"v"]
    cluster.move(30.0)
    assert cluster.contents("n1") == cluster.contents("n2") == cluster.contents("n3")
    cluster.start_again()
    cluster.stored_reply("n1", Put("carts", b"after", b"v", w=3))


def test_every_field_of_every_message_of_peers_is_made_wrong() -> None:
    """A new field is attacked by the simulator, or somebody has thought about why it need not be."""
    harmless = {
        KVError: "a refusal may have any reason",
        Found: "a coordinator's answer: a wrong one cannot be told from a right one",
        bool: "both values are right",
    }
    fields = [field for struct in PEER_TABLE for field in fields_of(struct)]
    assert {field.types[0] for field in fields if change_of(field) is None} == set(harmless)
