"""Real processes: large keys, and a peer that sends what no node should; then all nodes start again."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.rpc import code_pb2

import kvstore
from kvstore.config import MIB
from kvstore.frames.incoming import StreamEnded
from kvstore.kvctl.main import kvctl
from kvstore.local.cluster import LocalCluster
from kvstore.lsm import Engine
from kvstore.protocol.gossip import PushPull, Status, Update
from kvstore.protocol.peer import ReplicaWrite
from kvstore.protocol.table import PeerMessage
from kvstore.ring import DATA_KEYSPACE, ClusterState
from kvstore.store import DiskFileSystem
from kvstore.versions import Dot, EncodedVersion, InternalKey, Sibling, Version, encode_version
from kvstore.wire.peer import encode_frame
from tests.cluster.clusters import serving
from tests.patience import PATIENCE
from tests.plain import data_key, token
from tests.unit.server_nodes import peer_stream

DOT = Dot("n9.0.0", 7)
GOOD = encode_version(Version((DOT,), (Sibling(DOT, b"v"),)))


LARGE_VALUES = ("--max-value", str(16 * MIB))


@pytest.fixture
def sixteen(tmp_path: Path) -> Iterator[LocalCluster]:
    yield from serving(tmp_path, *LARGE_VALUES)


def pile_up(bucket: kvstore.Bucket, count: int) -> list[bytes]:
    """Blind puts of 16 MiB to one key, each of its own bytes; those that were acknowledged."""
    taken = []
    for i in range(count):
        value = b"%d" % i + bytes(16 * MIB - 1)
        try:
            bucket.put("pile", value, w=3, blind=True)
        except kvstore.VersionTooLarge as error:
            assert error.limit == 64 * MIB
        else:
            taken.append(value)
    return taken


def test_blind_puts_of_16_mib_to_one_key_are_refused_or_can_be_read_for_good(sixteen: LocalCluster) -> None:
    """Five were acknowledged and, once in tables, unreadable on all replicas; so were 65 of 1 MiB."""
    cluster = sixteen
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        bucket = db.bucket("b")
        bucket.put("neighbour", "n")
        taken = pile_up(bucket, 4)
        assert len(taken) == 3
    cluster.stop()
    cluster.start(flags=LARGE_VALUES)  # what was in the log is in tables now
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        bucket = db.bucket("b")
        found = bucket.get("pile", r=3)
        assert sorted(sibling.value for sibling in found.siblings) == sorted(taken)
        assert bucket.get("neighbour").value == b"n"
        assert bucket.put("pile", "resolved", context=found.context).siblings == 1
        bucket.delete("pile")
        assert not bucket.get("pile")


def test_what_a_cluster_stores_and_logs_is_for_its_owner_alone(shared_cluster: LocalCluster) -> None:
    """Everybody on the machine could read the values and the log."""
    cluster = shared_cluster
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        db.bucket("b").put("k", "v", w=3)
    found = [cluster.directory, *cluster.directory.rglob("*")]
    assert any(path.suffix == ".wal" for path in found)
    assert any(path.name == "node.log" for path in found)
    within = {path: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in found if path.is_dir()}
    assert not any(within.values()), within
    files = {path: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in found if path.is_file()}
    open_to_all = {path.name for path, mode in files.items() if mode}
    assert open_to_all <= {"cluster.json", "pid"}, "in directories that nobody else may enter"


async def send(address: str, me: str, state: ClusterState, frames: list[bytes]) -> list[str]:
    """Send frames to a node as if from `me`, each on a stream of its own; how each stream has ended."""
    ends = []
    for frame in frames:
        stream = await peer_stream(me, int(address.rpartition(":")[2]), state)
        try:
            await stream.write(frame)
            stream.end()
            assert await stream.read() is None
            ends.append("OK")
        except StreamEnded as error:
            ends.append(code_pb2.Code.Name(error.status.code))
        finally:
            stream.break_off()
    return ends


def wrong_frames(state: ClusterState) -> dict[str, tuple[list[PeerMessage], str]]:
    def internal(name: bytes) -> bytes:
        return data_key(token("b", name), "b", name)

    good: list[PeerMessage] = [
        ReplicaWrite(10 + i, 1, InternalKey(internal(b"g%d" % i)), GOOD) for i in range(5)
    ]
    bad_key = internal(b"g9").replace(b"\0", b"")
    epoch = state.epoch
    return {
        "incarnation": ([PushPull((Update("n1", Status.DEAD, 2**64 - 2),), True)], "OK"),
        "last incarnation": ([PushPull((Update("n2", Status.SUSPECT, 2**64 - 1),), True)], "OK"),
        "garbage hint": (
            [ReplicaWrite(1, epoch, InternalKey(internal(b"k")), EncodedVersion(b"rubbish"), "n3")],
            "INVALID_ARGUMENT",
        ),
        "hint for nobody": (
            [ReplicaWrite(1, epoch, InternalKey(internal(b"k")), GOOD, "n77")],
            "INVALID_ARGUMENT",
        ),
        "garbage version": (
            [ReplicaWrite(1, epoch, InternalKey(internal(b"k")), EncodedVersion(b"rubbish"))],
            "INVALID_ARGUMENT",
        ),
        "keyspace": ([ReplicaWrite(1, epoch, InternalKey(b"n/incarnation"), GOOD)], "INVALID_ARGUMENT"),
        "half a frame": ([*good, ReplicaWrite(1, epoch, InternalKey(bad_key), GOOD)], "INVALID_ARGUMENT"),
    }


def test_a_peer_that_sends_what_no_node_should_stops_nobody(cluster: LocalCluster) -> None:
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        bucket = db.bucket("b")
        canaries = {f"k{i}": f"v{i}" for i in range(50)}
        bucket.put_many(canaries, w=3)
        state = db.ring()
        for name, (messages, end) in wrong_frames(state).items():
            for member in state.members:
                me = next(other.node for other in state.members if other.node != member.node)
                frame = encode_frame(messages)
                assert asyncio.run(send(member.address, me, state, [frame])) == [end], name
        own = state.members[0]
        with pytest.raises(StreamEnded, match="is this one"):
            asyncio.run(send(own.address, own.node, state, [b""]))
        bucket.put_many({f"after{i}": "v" for i in range(50)}, w=3)
    for _ in range(2):
        cluster.stop()
        cluster.start()
        with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
            found = db.bucket("b", r=3).get_many(canaries)
            assert {key: result.value for key, result in found.items()} == {
                key: value.encode() for key, value in canaries.items()
            }
            db.bucket("b").put("still", "alive", w=3, context=db.bucket("b").get("still").context)
    repaired = CliRunner().invoke(kvctl, ["--endpoints", cluster.endpoints, "repair"])
    assert repaired.exit_code == 0, repaired.output
    cluster.stop()
    contents = [on_disk(cluster.directory / node / "data") for node in cluster.nodes]
    assert contents[0] == contents[1] == contents[2], "as the disks say, not the trees"
    assert len(contents[0]) == 101


def on_disk(directory: Path) -> dict[bytes, bytes]:
    engine = Engine.open(DiskFileSystem(), str(directory / "engine"))
    try:
        return dict(engine.scan_prefix(DATA_KEYSPACE))
    finally:
        engine.close()
