"""What docs/operations.md tells operators to do, done to real nodes, under load where that matters."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count

import pytest

import kvstore
from kvstore.local.cluster import LocalCluster
from tests.cluster.test_anti_entropy import kvctl
from tests.cluster.test_server_processes import until
from tests.patience import PATIENCE

pytestmark = pytest.mark.skipif("KVSTORE_OPERATIONS" not in os.environ, reason="long: `make operations`")


@contextmanager
def writing(cluster: LocalCluster) -> Iterator[list[str]]:
    """A program that writes all the time, each key until it is stored; the keys that are.

    A write that is under way at a node that stops may end with an unknown outcome, and is repeated.
    """
    stored: list[str] = []
    stop = threading.Event()

    def write() -> None:
        with kvstore.connect(cluster.endpoints) as db:
            bucket = db.bucket("orders")
            for number in count():
                key = f"order-{number}"
                while not stop.is_set():
                    with suppress(kvstore.KVError):
                        bucket.put(key, b"v")
                        stored.append(key)
                        break
                else:
                    return

    with ThreadPoolExecutor(1) as pool:
        program = pool.submit(write)
        try:
            yield stored
        finally:
            stop.set()
        program.result(PATIENCE)


def more(stored: list[str]) -> None:
    """Wait until the program has gone on."""
    before = len(stored)
    until(lambda: len(stored) > before + 20)


def missing(cluster: LocalCluster, keys: list[str], r: int) -> list[str]:
    with kvstore.connect(cluster.endpoints) as db:
        found = db.bucket("orders", timeout=PATIENCE).get_many(keys, r=r)
    # a put that was repeated, as nobody knew what became of it, may be there twice
    return [key for key, result in found.items() if {s.value for s in result.siblings} != {b"v"}]


def test_nodes_are_restarted_one_by_one_while_a_program_goes_on(cluster: LocalCluster) -> None:
    with writing(cluster) as stored:
        for node in cluster.nodes:
            more(stored)
            assert cluster.stop_node(node)
            more(stored)
            cluster.start([node])
            repaired(cluster)
    assert missing(cluster, stored, r=2) == []


def test_a_node_that_has_lost_its_disk_starts_empty_and_is_whole_after_a_repair(
    cluster: LocalCluster,
) -> None:
    with writing(cluster) as stored:
        more(stored)
        repaired(cluster)
        cluster.kill("n2")
        shutil.rmtree(cluster.directory / "n2" / "data")
        more(stored)
        cluster.start(["n2"])
        repaired(cluster)
    repaired(cluster)
    for node in ("n1", "n3"):
        cluster.stop_node(node)
    assert missing(cluster, stored, r=1) == []


def test_a_node_that_stands_still_is_found_in_status_and_in_the_logs(cluster: LocalCluster) -> None:
    pid = cluster.pid("n3")
    assert pid is not None
    with writing(cluster) as stored:
        more(stored)
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: state(cluster, "n3") == "dead")
            more(stored)
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: state(cluster, "n3") == "alive")
    assert "WARNING kvstore.server.driver: node n3 is dead: " in logs(cluster)
    delivered = ("no hints are left for node n3", "hints were kept briefly, and are delivered")
    until(lambda: any(each in logs(cluster) for each in delivered))


def logs(cluster: LocalCluster) -> str:
    """Of the nodes that go on."""
    return "".join((cluster.directory / node / "node.log").read_text() for node in ("n1", "n2"))


def repaired(cluster: LocalCluster) -> None:
    done = kvctl(cluster, "repair")
    assert done.returncode == 0, done.stderr


def state(cluster: LocalCluster, node: str) -> str:
    rows = json.loads(kvctl(cluster, "-o", "json", "status").stdout)
    return str(next(row["state"] for row in rows if row["node"] == node))
