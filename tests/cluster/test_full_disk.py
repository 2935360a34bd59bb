"""A node whose disk is full when it starts: it serves reads, and takes writes when there is space."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from kvstore.kvctl.main import kvctl
from kvstore.local.ports import free_ports
from kvstore.server.data_directory import IDENTITY
from tests.cluster.test_server_processes import Nodes, get, put, until
from tests.patience import PATIENCE

# every Python process imports it when it starts, the node and its workers: while the file `full` exists, the
# disk takes no new file and no byte more
FULL = """
import errno, os
FLAG = {flag!r}
def check():
    if os.path.exists(FLAG):
        raise OSError(errno.ENOSPC, "No space left on device")
real_open, real_pwrite = os.open, os.pwrite
def open(path, flags, *rest, **named):
    if flags & os.O_CREAT and not os.path.exists(path):
        check()
    return real_open(path, flags, *rest, **named)
def pwrite(descriptor, data, offset):
    check()
    return real_pwrite(descriptor, data, offset)
os.open, os.pwrite = open, pwrite
"""


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """Single nodes on a disk that is full while the file `full` exists."""
    (tmp_path / "sitecustomize.py").write_text(FULL.format(flag=str(tmp_path / "full")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    found = Nodes(tmp_path)
    try:
        yield found
    finally:
        found.end()


def state(address: str) -> str:
    """What kvctl shows of a single node."""
    shown = CliRunner().invoke(kvctl, ["--endpoints", address, "-o", "json", "status"])
    (row,) = json.loads(shown.output)
    return str(row["state"])


def test_a_node_starts_on_a_full_disk_and_takes_writes_when_there_is_space(nodes: Nodes) -> None:
    (port,) = free_ports(1)
    address, full = f"127.0.0.1:{port}", nodes.directory / "full"
    process = nodes.start("n1", f"n1={address}", "--memtable-bytes", "1000")
    for number in range(50):
        put(address, b"%d" % number, b"v" * 100)
    process.kill()
    process.wait()
    identity = nodes.directory / "n1" / IDENTITY
    stored = json.loads(identity.read_text())
    identity.write_text(json.dumps({"format": 1, "node": "n1", "cluster_id": stored["cluster_id"]}))

    full.touch()
    process = nodes.start("n1", f"n1={address}")
    assert [get(address, b"%d" % number) for number in range(50)] == [[b"v" * 100]] * 50
    with pytest.raises(grpc.RpcError) as refused:
        put(address, b"more", b"v")
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert state(address) == "alive, disk full"
    assert nodes.log("n1").count("reads are served, writes are refused until there is space") == 1
    assert nodes.log("n1").count("stays of format 1 until there is space") == 1
    assert "empty --data" not in nodes.log("n1")

    process.terminate()
    assert process.wait(PATIENCE) == 0
    process = nodes.start("n1", f"n1={address}")
    until(lambda: nodes.log("n1").count("reads are served, writes are refused until there is space") == 2)
    full.unlink()
    until(lambda: "there is space on the disk again" in nodes.log("n1"))
    until(lambda: state(address) == "alive")
    put(address, b"more", b"v")
    process.kill()
    process.wait()
    nodes.start("n1", f"n1={address}")
    assert get(address, b"0") == [b"v" * 100]
    assert get(address, b"more") == [b"v"]
    assert json.loads(identity.read_text()) == stored


def test_a_new_node_on_a_full_disk_says_so_in_one_line(nodes: Nodes) -> None:
    (nodes.directory / "full").touch()
    (port,) = free_ports(1)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kvstore.server",
            "--node",
            "n1",
            "--data",
            "n1",
            "--initial-cluster",
            f"n1=127.0.0.1:{port}",
        ],
        cwd=nodes.directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = "kvnode: data directory n1 cannot be used: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)
