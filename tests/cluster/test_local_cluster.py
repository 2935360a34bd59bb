"""Real processes: power failure, siblings, restarts, and what a wrong start says."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import psutil
import pytest
from click.testing import CliRunner

import kvstore
from kvstore.errors import ConfigError
from kvstore.kvctl.cluster import _laid_out
from kvstore.kvctl.hints import hint_rows
from kvstore.kvctl.main import kvctl
from kvstore.local.cluster import LocalCluster, NotServing
from kvstore.local.ports import free_ports
from kvstore.v1.client_pb2 import GetRequest
from kvstore.v1.client_pb2_grpc import KVStub
from tests.patience import PATIENCE


def test_sigkill_of_all_nodes_during_writes_loses_no_acknowledged_write(cluster: LocalCluster) -> None:
    acknowledged: list[str] = []
    enough, killed = threading.Event(), threading.Event()

    def write(writer: int) -> None:
        with kvstore.connect(cluster.endpoints, timeout=10) as db:
            bucket = db.bucket("carts")
            for i in range(100_000):
                key = f"{writer}-{i}"
                try:
                    bucket.put(key, key)
                except kvstore.KVError:
                    if killed.is_set():
                        return
                    continue
                acknowledged.append(key)
                if len(acknowledged) >= 600:
                    enough.set()

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    assert enough.wait(5 * PATIENCE)
    killed.set()
    for node in cluster.nodes:
        assert cluster.kill(node), "it ran until now"
    for writer in writers:
        writer.join()
    cluster.start()
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        found = db.bucket("carts", r=2).get_many(acknowledged)
    assert {key: result.value for key, result in found.items()} == {k: k.encode() for k in acknowledged}


def test_two_unseen_writes_leave_two_siblings_on_every_replica_and_a_third_one(
    shared_cluster: LocalCluster,
) -> None:
    with (
        kvstore.connect(shared_cluster.endpoints, timeout=PATIENCE) as one,
        kvstore.connect(shared_cluster.endpoints, timeout=PATIENCE) as two,
    ):
        one.bucket("unseen", w=3).put("user:1", "one")
        two.bucket("unseen", w=3).put("user:1", "two")
        assert _on_each(shared_cluster, "unseen", "user:1") == [[b"one", b"two"]] * 3
        seen = one.bucket("unseen").get("user:1")
        two.bucket("unseen", w=3).put("user:1", "three", context=seen.context)
        assert _on_each(shared_cluster, "unseen", "user:1") == [[b"three"]] * 3


def _on_each(cluster: LocalCluster, bucket: str, key: str) -> list[list[bytes]]:
    """What each node itself has of a key: with R=1 a replica answers from its own disk."""
    found = []
    for address in cluster.layout.addresses.values():
        with grpc.insecure_channel(address) as channel:
            request = GetRequest(bucket=bucket, key=key.encode(), r=1, explain=True)
            reply = KVStub(channel).Get(request, timeout=PATIENCE)
        assert len(reply.explain.answered) == 1
        found.append(sorted(sibling.value for sibling in reply.siblings))
    return found


def test_a_killed_node_is_noticed_and_a_returning_one_too(cluster: LocalCluster) -> None:
    cluster.kill("n2")
    _wait_for_state(cluster, "n2", {"dead"})
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        db.bucket("carts").put_many({f"k{i}": "v" for i in range(10)})
        rows = hint_rows(db.status())
        kept = [row for row in rows if row.get("target") == "n2"]
        assert sum(int(str(row["pending"])) for row in kept) == 10
        assert all(0 <= int(str(row["oldest_s"])) <= 60 for row in kept)
        assert {row["node"] for row in rows} == {"n1", "n3"}
        assert CliRunner().invoke(kvctl, ["--endpoints", cluster.endpoints, "hints"]).exit_code == 0
    cluster.start(["n2"])
    _wait_for_state(cluster, "n2", {"alive"})


def _wait_for_state(cluster: LocalCluster, node: str, states: set[str]) -> None:
    seen: set[str] = set()
    for _ in range(int(10 * PATIENCE)):
        statuses = cluster.statuses()
        seen = {m.status.name.lower() for n, s in statuses.items() for m in s.members if m.node == node != n}
        if seen == states:
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"{node} is seen as {seen}")


def test_stop_leaves_no_process_and_start_finds_the_data(cluster: LocalCluster) -> None:
    with kvstore.connect(cluster.endpoints, timeout=PATIENCE) as db:
        db.bucket("carts").put("user:1", "v")
    processes = [psutil.Process(cluster.pid(node)) for node in cluster.nodes]
    LocalCluster.load(cluster.directory).kill("n1")
    assert cluster.stop() == ("n2", "n3")
    assert cluster.running() == ()
    assert [process for process in processes if process.is_running()] == []  # not even as zombies
    again = LocalCluster.load(cluster.directory)
    again.start()
    with kvstore.connect(again.endpoints, timeout=PATIENCE) as db:
        assert db.bucket("carts").get("user:1").value == b"v"


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    found = LocalCluster.create(tmp_path / "cluster", first_port=None)
    host, _, port = found.layout.addresses["n3"].rpartition(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        with pytest.raises(ConfigError, match=f"port {port} is taken"):
            found.start()
    assert found.running() == ()


def test_a_node_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    found = LocalCluster.create(tmp_path / "cluster", first_port=None)
    stranger = tmp_path / "cluster" / "n2" / "data"
    stranger.mkdir(parents=True)
    (stranger / "letter.txt").write_text("not yours")
    try:
        with pytest.raises(NotServing, match=r"n2 has stopped: .*neither empty nor a kvstore data directory"):
            found.start()
    finally:
        found.stop()
    assert [path.name for path in stranger.iterdir()] == ["letter.txt"]


def kvnode(*arguments: str) -> tuple[int, str]:
    """Run a node that should end by itself; its exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "kvstore.server", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stderr.strip()


def test_a_second_node_on_the_same_port_or_data_is_refused(shared_cluster: LocalCluster) -> None:
    members = shared_cluster.layout.members
    data = str(shared_cluster.directory / "n1" / "data")
    code, said = kvnode("--node", "n1", "--data", data, "--initial-cluster", members)
    assert (code, said.count("\n")) == (2, 0), said
    assert "port is in use" in said
    elsewhere = f"127.0.0.1:{free_ports(1)[0]}"
    moved = members.replace(shared_cluster.layout.addresses["n1"], elsewhere)
    code, said = kvnode("--node", "n1", "--data", data, "--initial-cluster", moved)
    assert (code, said.count("\n")) == (2, 0), said
    assert "another process" in said
    new = shared_cluster.directory / "another"
    code, said = kvnode(
        "--node", "n1", "--data", str(new), "--initial-cluster", members, "--listen", elsewhere
    )
    assert (code, said.count("\n"), new.exists()) == (2, 0, False), said
    assert f"node n1 is already served at {shared_cluster.layout.addresses['n1']}" in said
    moved = members.replace(shared_cluster.layout.addresses["n2"], elsewhere)
    code, said = kvnode("--node", "n2", "--data", data, "--initial-cluster", moved)
    assert (code, said.count("\n")) == (2, 0), said
    assert "belongs to node n1" in said


WRONG: dict[tuple[str, ...], str] = {
    ("--node", "n9"): "not in the initial cluster",
    ("--bucket", "carts:q=1"): "unknown setting 'q'",
    ("--bucket", "carts:n=5"): "n=5",
    ("--bucket", "carts:r=0"): "r=0",
    ("--partitions", "100"): "power of two",
    ("--max-value", "0"): "max-value=0",
    ("--initial-cluster", "n1=nowhere"): "host:port",
    ("--initial-cluster", "n1=127.0.0.1:1,n1=127.0.0.1:2"): "given twice",
    ("--initial-cluster", "n1=127.0.0.1:1/a/m/x"): "node=host:port[/zone[/host]]",
    ("--initial-cluster", "n1=127.0.0.1:1/a/m,n2=127.0.0.1:2/b/m"): "host 'm' is in two zones",
    ("--nonsense",): "No such option",
}

ONE_AFTER_THE_OTHER = """
import io, json, sys, traceback
from contextlib import redirect_stderr
from kvstore.server.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["kvnode", *arguments]
    with redirect_stderr(io.StringIO()) as said:
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            code = traceback.format_exc()
    print(json.dumps([code, said.getvalue()]))
"""


def test_a_wrong_setting_is_one_clear_line(tmp_path: Path) -> None:
    """All in one process, which takes longer to start than to refuse them."""
    good = ["--node", "n1", "--data", str(tmp_path / "data"), "--initial-cluster", "n1=127.0.0.1:1"]
    starts = json.dumps([[*good, *change] for change in WRONG])
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, starts],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    for (change, complaint), (code, said) in zip(WRONG.items(), ends, strict=True):
        assert code == 2, change
        assert complaint in said
        assert said.count("\n") == 1, said
    assert done.stderr == ""
    assert not (tmp_path / "data").exists()


def test_a_node_that_another_process_started_can_be_killed(cluster: LocalCluster) -> None:
    """It stays a zombie until its parent looks; that must not be waited for."""
    script = (
        "import sys; from pathlib import Path; from kvstore.local.cluster import LocalCluster;"
        "print(LocalCluster.load(Path(sys.argv[1])).kill('n2'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(cluster.directory)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == "True\n"
    assert cluster.running() == ("n1", "n3")


def test_a_cluster_keeps_the_settings_that_its_data_was_stored_with(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    first = LocalCluster.create(directory, 2, None, ["carts:n=1", "plain:n=2,ttl=60"])
    before = (directory / "cluster.json").read_bytes()
    for nodes, buckets, said in (
        (3, ["carts:n=1"], "holds another cluster"),
        (2, [], "bucket carts:n=1,conflict=siblings, not bucket carts:n=2,conflict=siblings"),
        (2, ["carts:n=1,conflict=lww"], "carts:n=1,conflict=siblings, not bucket carts:n=1,conflict=lww"),
    ):
        with pytest.raises(ConfigError, match=said):
            LocalCluster.create(directory, nodes, None, buckets)
        assert (directory / "cluster.json").read_bytes() == before
    again = LocalCluster.create(directory, 2, None, ["carts:n=1,w=1,ttl=9"])
    assert again.layout.addresses == first.layout.addresses
    assert LocalCluster.load(directory).layout == again.layout != first.layout


def test_a_cluster_that_is_started_again_keeps_what_is_not_given(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    first = _laid_out(tmp_path, 1, port, ("b:n=1,ttl=60",))
    assert _laid_out(tmp_path, None, None, ()).layout == first.layout
    assert _laid_out(tmp_path, 1, port, ("c:n=1",)).layout.buckets == ("c:n=1",)
    for nodes, other in ((2, None), (None, port + 1), (0, None), (None, 0)):
        with pytest.raises(ConfigError):
            _laid_out(tmp_path, nodes, other, ())
