"""Real processes: what a node has missed comes back by anti-entropy alone, at little more than its bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from kvstore.errors import KVError
from kvstore.local.cluster import LocalCluster
from kvstore.lsm import Engine
from kvstore.node.status import NodeStatus
from kvstore.protocol.peer import TreeNode
from kvstore.quorum.background.merkle import Trees
from kvstore.quorum.background.merkle_tree import NODES
from kvstore.ring import initial_state, parse_members
from kvstore.store import DiskFileSystem
from tests.cluster.clusters import serving
from tests.patience import PATIENCE

NO_HINTS = ("--hint-count", "0")
WRITES = int(os.environ.get("KVSTORE_ANTI_ENTROPY_WRITES", "4000"))
"""The issue asks for 20,000: `make heal`."""


@pytest.fixture
def hintless(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three nodes that keep no hints."""
    yield from serving(tmp_path, *NO_HINTS)


@pytest.fixture
def eager(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three nodes that compare with each other every second."""
    settings = tmp_path / "settings.toml"
    settings.write_text("[anti-entropy]\ninterval = 1.0\n")
    yield from serving(tmp_path, "--config", str(settings))


def kvctl(cluster: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvstore.kvctl.main", "--endpoints", cluster.endpoints, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * PATIENCE,
    )


def repair(cluster: LocalCluster) -> dict[str, int]:
    done = kvctl(cluster, "-o", "json", "repair")
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


def moved_bytes(cluster: LocalCluster) -> int:
    return sum(status.counters.repair_bytes for status in cluster.statuses(PATIENCE).values())


def contents(cluster: LocalCluster) -> dict[str, dict[bytes, bytes]]:
    """What is on the disk of each node, all of which have been stopped."""
    return {node: disk(cluster, node) for node in cluster.nodes}


def disk(cluster: LocalCluster, node: str) -> dict[bytes, bytes]:
    """What is on the disk of a node that has been stopped."""
    directory = next((cluster.directory / node / "data").rglob("CURRENT")).parent
    engine = Engine.open(DiskFileSystem(), str(directory))
    found = dict(engine.scan(b"d", b"e"))
    engine.close()
    return found


def roots(cluster: LocalCluster, entries: dict[bytes, bytes]) -> list[object]:
    members = ",".join(f"{node}={address}" for node, address in cluster.layout.addresses.items())
    trees = Trees(initial_state("", parse_members(members)))
    ordered = sorted(entries.items())
    while trees.building:
        trees.build(lambda start, end: iter([e for e in ordered if start <= e[0] < (end or b"e")]), 10**9)
    return [trees.node(TreeNode(p, 3, i)) for p in range(trees.partitions) for i in (0, NODES - 1)]


def write_and_delete(cluster: LocalCluster, writes: int) -> None:
    """Half are new keys, a quarter overwrites, a quarter deletes of what was there before."""
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        bucket = db.bucket("carts")
        for start in range(0, writes // 2, 500):
            stop = min(start + 500, writes // 2)
            bucket.put_many({f"new-{i}": b"x" * 100 for i in range(start, stop)})
        for start in range(0, writes // 4, 500):
            bucket.delete_many([f"old-{i}" for i in range(start, min(start + 500, writes // 4))])
        seen = bucket.get_many([f"old-{i}" for i in range(writes // 4, writes // 2)])
        contexts = {key: result.context for key, result in seen.items()}
        bucket.put_many(dict.fromkeys(seen, b"y" * 100), contexts=contexts)


@pytest.mark.timeout(600)
def test_a_node_that_was_down_is_made_equal_by_anti_entropy_alone(hintless: LocalCluster) -> None:
    cluster = hintless
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        for start in range(0, WRITES // 2, 500):
            stop = min(start + 500, WRITES // 2)
            db.bucket("carts", w=3).put_many({f"old-{i}": b"x" * 100 for i in range(start, stop)})
    cluster.stop_node("n3")
    before = disk(cluster, "n3")
    write_and_delete(cluster, WRITES)
    moved = moved_bytes(cluster)
    assert sum(hints.count for s in cluster.statuses(PATIENCE).values() for hints in s.hints) == 0
    cluster.start(["n3"], flags=NO_HINTS)
    assert repair(cluster)["left"] == 0
    moved = moved_bytes(cluster) - moved
    for node in cluster.nodes:
        assert cluster.stop_node(node)
    found = contents(cluster)
    assert found["n1"] == found["n2"] == found["n3"]
    differing = sum(len(k) + len(v) for k, v in found["n1"].items() if before.get(k) != v)
    print(f"{WRITES:,} writes: versions that differ {differing:,} bytes, moved {moved:,} bytes")
    assert differing > WRITES * 100
    assert moved <= 2 * differing
    assert roots(cluster, found["n1"]) == roots(cluster, found["n3"])


def test_a_wiped_node_gets_every_version_back_and_writes_meanwhile_lose_nothing(
    hintless: LocalCluster,
) -> None:
    cluster = hintless
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        bucket = db.bucket("carts", w=3)
        for start in range(0, 2000, 500):
            bucket.put_many({f"k{i}": f"v{i}" for i in range(start, start + 500)})
        cluster.stop_node("n2")
        shutil.rmtree(cluster.directory / "n2" / "data")
        cluster.start(["n2"], flags=NO_HINTS)
        for i in range(200):
            seen = db.bucket("carts").get(f"k{i}")
            db.bucket("carts").put(f"k{i}", f"again{i}", context=seen.context)
        repair(cluster)
        values = {k: r.value for k, r in db.bucket("carts").get_many(f"k{i}" for i in range(2000)).items()}
    assert values == {f"k{i}": (f"again{i}" if i < 200 else f"v{i}").encode() for i in range(2000)}
    for node in cluster.nodes:
        cluster.stop_node(node)
    found = contents(cluster)
    assert len(found["n2"]) == 2000
    assert found["n1"] == found["n2"] == found["n3"]


def test_bugs_13_a_damaged_table_is_refetched_and_a_damaged_manifest_refuses_to_start(
    hintless: LocalCluster,
) -> None:
    cluster = hintless
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        for start in range(0, 2000, 500):
            db.bucket("carts", w=3).put_many({f"k{i}": os.urandom(100) for i in range(start, start + 500)})
    cluster.stop_node("n2")
    disk(cluster, "n2")  # recovery makes a table of the log
    (table,) = (cluster.directory / "n2" / "data").rglob("*.sst")
    for offset in range(0, table.stat().st_size - 100, 50_000):
        flip(table, offset)
    cluster.start(["n2"], flags=NO_HINTS)
    deadline = time.monotonic() + 5 * PATIENCE
    while not (status := cluster.statuses(PATIENCE)["n2"]).counters.refetched or status.engine.quarantined:
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    rows = json.loads(kvctl(cluster, "-o", "json", "status").stdout)
    assert [row["damaged"] for row in rows] == [0, 0, 0]
    assert status.counters.quarantines > 1
    assert 100 < status.counters.refetched < 2000
    cluster.stop_node("n2")
    assert len(disk(cluster, "n2")) == 2000

    manifest = max((cluster.directory / "n2" / "data").rglob("MANIFEST-*"))
    flip(manifest, manifest.stat().st_size // 2)
    with pytest.raises(KVError, match=f"{manifest.name}: .* is damaged; started with an empty --data"):
        cluster.start(["n2"], flags=NO_HINTS)
    shutil.rmtree(cluster.directory / "n2" / "data")
    cluster.start(["n2"], flags=NO_HINTS)
    repair(cluster)
    for node in cluster.nodes:
        cluster.stop_node(node)
    found = contents(cluster)
    assert len(found["n2"]) == 2000
    assert found["n1"] == found["n2"] == found["n3"]


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_replicas_become_equal_without_anyone_asking_and_status_tells(eager: LocalCluster) -> None:
    cluster = eager
    deadline = time.monotonic() + 5 * PATIENCE
    while any(unproven(status) for status in cluster.statuses(PATIENCE).values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    statuses = cluster.statuses(PATIENCE)
    assert [status.anti_entropy.pairs for status in statuses.values()] == [512] * 3
    assert all(status.anti_entropy.oldest < 5 * PATIENCE for status in statuses.values())
    rows = json.loads(kvctl(cluster, "-o", "json", "status").stdout)
    assert [row["unproven"] for row in rows] == [0, 0, 0]
    assert all(row["proof_s"] < 5 * PATIENCE for row in rows)
    done = kvctl(cluster, "repair")
    assert (done.returncode, done.stdout) == (0, "all replicas are equal: 1,536 proofs\n")


def unproven(status: NodeStatus) -> int:
    return status.anti_entropy.unproven


def test_repair_says_which_node_is_away(hintless: LocalCluster) -> None:
    hintless.kill("n3")
    done = kvctl(hintless, "repair")
    assert done.returncode == 5
    assert "n3" in done.stderr
    assert "Traceback" not in done.stderr
