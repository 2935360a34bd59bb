"""Real processes under more than they can do: memory stays bounded, what is refused is refused at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import kvstore
from kvstore.config import MIB, QuorumSettings
from kvstore.local.cluster import LocalCluster
from kvstore.lsm import Engine
from kvstore.node.status import NodeStatus
from kvstore.store import DiskFileSystem
from kvstore.wire.queue import QUEUE_BYTES
from tests.cluster.clusters import serving
from tests.patience import PATIENCE
from tests.plain import data_key, token

SECONDS = float(os.environ.get("KVSTORE_OVERLOAD_SECONDS", "2"))
"""How long one of three nodes stands still: `make overload` for a minute."""

VALUE_BYTES = 128 * 1024
SMALL = ("--memtable-bytes", str(4 * MIB), "--cache-bytes", str(8 * MIB))
MOST_GROWTH = 250 * MIB
"""Of a node's memory: operations and the queue of the stopped peer at their bounds, memtables, and what the
allocator keeps."""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three nodes with little memory for tables."""
    yield from serving(tmp_path, *SMALL)


def rss(pid: int) -> int:
    found: int = psutil.Process(pid).memory_info().rss
    return found


class Writer:
    """Writes batches of large values under fresh keys; remembers what was acknowledged."""

    def __init__(self, client: kvstore.Client) -> None:
        self._bucket = client.bucket("b", w=2, timeout=PATIENCE)
        self._value = random.Random(1).randbytes(VALUE_BYTES)
        self._next = 0
        self.acknowledged: list[str] = []

    def notice(self) -> None:
        """Let the client find out which node does not answer any more, by small writes with little time."""
        with suppress(kvstore.PartialFailure):
            self._bucket.put_many({f"small-{number}": b"v" for number in range(64)}, timeout=1.2)

    def batch(self, count: int = 64) -> None:
        """Raises PartialFailure when a single one was not acknowledged."""
        keys = [f"key-{self._next + number}" for number in range(count)]
        self._next += count
        self._bucket.put_many(dict.fromkeys(keys, self._value))
        self.acknowledged += keys


def held(cluster: LocalCluster, node: str, keys: Sequence[str]) -> int:
    """How many of the keys a stopped node has on its disk."""
    directory = next((cluster.directory / node / "data").rglob("CURRENT")).parent
    engine = Engine.open(DiskFileSystem(), str(directory))
    found = sum(
        1 for key in keys if engine.get(data_key(token("b", key.encode()), "b", key.encode())) is not None
    )
    engine.close()
    return found


@pytest.mark.timeout(600)
def test_a_stopped_replica_does_not_fill_the_memory_of_the_others(small: LocalCluster) -> None:
    pids = {node: small.pid(node) or 0 for node in small.nodes}
    with kvstore.connect(small.endpoints) as client:
        writer = Writer(client)
        writer.batch()
        before = {node: rss(pids[node]) for node in ("n1", "n2")}
        most = dict(before)
        os.kill(pids["n3"], signal.SIGSTOP)
        try:
            writer.notice()
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                writer.batch()
                most = {node: max(peak, rss(pids[node])) for node, peak in most.items()}
            statuses = _once_it_is_missed(small)
        finally:
            os.kill(pids["n3"], signal.SIGCONT)
        for node, peak in most.items():
            status = statuses[node]
            assert status.most_queued_bytes <= QUEUE_BYTES
            assert status.most_in_flight_bytes <= QuorumSettings().in_flight_bytes + 2 * VALUE_BYTES
            print(f"{node}: {before[node] / MIB:.0f} MiB before, {peak / MIB:.0f} MiB at most; {status}")
            assert peak - before[node] < MOST_GROWTH
    print(f"{len(writer.acknowledged) * VALUE_BYTES / MIB:.0f} MiB acknowledged, none was not")
    _until_home(small)
    small.stop()
    assert held(small, "n3", writer.acknowledged) == len(writer.acknowledged)


def _once_it_is_missed(cluster: LocalCluster) -> dict[str, NodeStatus]:
    """What the two others say once each has kept hints for the third, or dropped what was for it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = cluster.statuses(5.0)
        counters = [status.counters for node, status in found.items() if node != "n3"]
        if len(counters) == 2 and all(each.hints_stored + each.messages_dropped for each in counters):
            return found
        assert time.monotonic() < deadline, counters


def _until_home(cluster: LocalCluster) -> None:
    """Wait until no node keeps a hint, and anti-entropy has looked for what had none."""
    deadline = time.monotonic() + 3 * PATIENCE + 2 * SECONDS
    while time.monotonic() < deadline:
        statuses = cluster.statuses(PATIENCE)
        if len(statuses) == len(cluster.nodes) and not any(status.hints for status in statuses.values()):
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"hints are left: {cluster.statuses()}")
    repair = [sys.executable, "-m", "kvstore.kvctl.main", "--endpoints", cluster.endpoints, "repair"]
    subprocess.run(repair, check=True, capture_output=True, timeout=5 * PATIENCE)
