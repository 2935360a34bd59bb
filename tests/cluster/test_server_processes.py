"""`kvnode` as a process: standard services, signals, failing disks, nodes that do not belong together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

import kvstore
from kvstore.local.cluster import LocalCluster
from kvstore.lsm import Options
from kvstore.server.server import EXIT_NOT_STOPPED, EXIT_STORAGE_FAILED
from kvstore.v1 import client_pb2 as pb
from tests.patience import PATIENCE

SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "kvstore.v1.Admin",
    "kvstore.v1.KV",
}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# the disk fails while the node runs: fdatasync reports an error once the file `broken` exists
BREAKABLE = """
import errno, os, sys
real = os.fdatasync
def fdatasync(descriptor):
    if os.path.exists("broken"):
        raise OSError(errno.EIO, "Input/output error")
    real(descriptor)
os.fdatasync = fdatasync
from kvstore.server.main import main
main()
"""

# what a terminal starts minds Ctrl-C; what a script starts in the background may not
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from kvstore.server.main import main
main()
"""

# something does not end when it is told to
UNSTOPPABLE = """
import asyncio
from kvstore.server import server
async def stop(self):
    await asyncio.Event().wait()
server._STOP_SECONDS = 0.2
server.NodeServer.stop = stop
from kvstore.server.main import main
main()
"""

# it is told to stop at the beginning of something
STOPPED_AT = """
import atexit, os, signal, sys
from kvstore.server import main, server
class Stopping:
    def __init__(self, of): self.of = of
    def open(self, *arguments): return self(*arguments)
    def __call__(self, *arguments):
        os.kill(os.getpid(), signal.{signal})
        return self.of(*arguments)
{patch}
main.main()
"""

# every process imports it when it starts: the worker's disk takes its time
SLOW_WORKER = """
import os, pathlib, sys, time
if any("kvstore.store.worker" in argument for argument in sys.orig_argv):
    def fdatasync(descriptor):
        pathlib.Path("syncing").touch()
        time.sleep(60)
    os.fdatasync = fdatasync
"""


class Nodes:
    """Single nodes, each started by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[subprocess.Popen[str]] = []

    def start(
        self, node: str, members: str, *flags: str, program: Sequence[str] = ("-m", "kvstore.server")
    ) -> subprocess.Popen[str]:
        """Start a node and wait for the line that it serves."""
        arguments = ["--node", node, "--data", node, "--initial-cluster", members, *flags]
        with (self.directory / f"{node}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                cwd=self.directory,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # a terminal of its own, so to speak
            )
        self._processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"kvnode {node} serving on "), self.log(node)
        return process

    def log(self, node: str) -> str:
        return (self.directory / f"{node}.log").read_text()

    def end(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    found = Nodes(tmp_path)
    try:
        yield found
    finally:
        found.end()


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def kv(channel: grpc.Channel, method: str, request: Any, answer: Any) -> Any:
    stub: Any = channel.unary_unary(
        f"/kvstore.v1.KV/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    return stub(request, timeout=PATIENCE)


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def put(address: str, key: bytes, value: bytes) -> Any:
    with grpc.insecure_channel(address) as channel:
        return kv(channel, "Put", pb.PutRequest(bucket="b", key=key, value=value), pb.WriteResponse)


def taken(address: str, key: bytes, value: bytes) -> bool:
    try:
        put(address, key, value)
    except grpc.RpcError:
        return False
    return True


def fill_a_memtable(address: str) -> None:
    for i in range(0, Options().memtable_bytes, 15_000_000):
        put(address, b"%d" % i, bytes(15_000_000))


def get(address: str, key: bytes) -> list[bytes]:
    with grpc.insecure_channel(address) as channel:
        found = kv(channel, "Get", pb.GetRequest(bucket="b", key=key), pb.GetResponse)
        return [sibling.value for sibling in found.siblings]


def test_any_grpc_tool_can_explore_a_node(shared_cluster: LocalCluster) -> None:
    with grpc.insecure_channel(shared_cluster.layout.addresses["n1"]) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "kvstore.v1.KV", "kvstore.v1.Admin"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
            assert answer.status == SERVING
        ask = reflection_pb2.ServerReflectionRequest
        for version in ("v1alpha", "v1"):
            reflection: Any = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=ask.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            symbols = ("kvstore.v1.KV", f"grpc.reflection.{version}.ServerReflection")
            questions = [ask(list_services=""), *(ask(file_containing_symbol=symbol) for symbol in symbols)]
            listed, described, itself = reflection(iter(questions), timeout=PATIENCE)
            assert {service.name for service in listed.list_services_response.service} == SERVICES
            assert b"SessionRequest" in described.file_descriptor_response.file_descriptor_proto[0]
            assert version.encode() in itself.file_descriptor_response.file_descriptor_proto[0]


def test_unary_calls_reach_a_key_through_every_node(shared_cluster: LocalCluster) -> None:
    addresses = list(shared_cluster.layout.addresses.values())
    for i, address in enumerate(addresses):
        put(address, b"through-%d" % i, b"%d" % i)
    for address in addresses:
        assert [get(address, b"through-%d" % i) for i in range(3)] == [[b"0"], [b"1"], [b"2"]]


def test_sigterm_turns_health_off_and_ends_in_order(nodes: Nodes) -> None:
    address = free_address()
    process = nodes.start("n1", f"n1={address}")
    with grpc.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=PATIENCE)
        assert next(watch).status == SERVING
        put(address, b"k", b"v")
        process.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
    assert process.wait(PATIENCE) == 0
    assert "Traceback" not in nodes.log("n1")
    nodes.start("n1", f"n1={address}")
    assert get(address, b"k") == [b"v"]


def test_ctrl_c_ends_node_and_worker(nodes: Nodes) -> None:
    address = free_address()
    flags = ("--max-value", str(16 * 1024 * 1024))
    process = nodes.start("n1", f"n1={address}", *flags, program=("-c", INTERRUPTIBLE))
    fill_a_memtable(address)
    engine = nodes.directory / "n1" / "engine"
    until(lambda: len([*engine.glob("*.sst")]) == len([*engine.glob("*.wal")]) == 1)  # it is flushed
    (worker,) = psutil.Process(process.pid).children()
    os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches all that was started from it
    assert process.wait(PATIENCE) == 0
    _, still = psutil.wait_procs([worker], timeout=PATIENCE)
    assert not still
    assert "Traceback" not in nodes.log("n1")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    ("patch", "serves"),
    [
        ("main.parse_members = Stopping(main.parse_members)", False),
        ("server.Engine = Stopping(server.Engine.open)", True),
        ("server._collect_less_often = Stopping(server._collect_less_often)", True),
        ("server.Engine = Stopping(server.Engine.open); atexit.register(Stopping(print))", True),
    ],
    ids=[
        "reading its flags",
        "opening its store",
        "about to serve",
        "twice, the second time at its very end",
    ],
)
def test_a_node_that_is_stopped_while_it_starts_or_twice_ends_in_order(
    tmp_path: Path, patch: str, serves: bool, name: str
) -> None:
    program = ["-c", STOPPED_AT.format(patch=patch, signal=name)]
    done = subprocess.run(
        [
            sys.executable,
            *program,
            "--node",
            "n1",
            "--data",
            "n1",
            "--initial-cluster",
            f"n1={free_address()}",
            "--log-level",
            "warning",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("kvnode n1 serving") == serves
    assert (tmp_path / "n1").exists() == serves


def test_a_node_that_cannot_stop_ends_all_the_same(nodes: Nodes) -> None:
    process = nodes.start("n1", f"n1={free_address()}", program=["-c", UNSTOPPABLE])
    process.terminate()
    assert process.wait(timeout=PATIENCE) == EXIT_NOT_STOPPED
    assert "has not stopped within 0.2 s, ending all the same; it waited in _serve_until:" in nodes.log("n1")


def test_a_worker_in_the_middle_of_a_job_ends_with_its_node(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would write into a file whose number the next life gives to another: acknowledged data lost."""
    address = free_address()
    (nodes.directory / "sitecustomize.py").write_text(SLOW_WORKER)
    monkeypatch.setenv("PYTHONPATH", str(nodes.directory))
    process = nodes.start("n1", f"n1={address}", "--max-value", str(16 * 1024 * 1024))
    fill_a_memtable(address)
    until((nodes.directory / "syncing").exists)
    (worker,) = psutil.Process(process.pid).children()
    process.kill()
    _, still = psutil.wait_procs([worker], timeout=PATIENCE)
    assert not still


def test_a_failed_sync_ends_the_process_and_acknowledges_nothing(nodes: Nodes) -> None:
    address = free_address()
    quiet = ("--log-level", "warning")
    process = nodes.start("n1", f"n1={address}", *quiet, program=("-c", BREAKABLE))
    put(address, b"before", b"v")
    (nodes.directory / "broken").touch()
    with pytest.raises(grpc.RpcError):
        put(address, b"after", b"v")
    assert process.wait(PATIENCE) == EXIT_STORAGE_FAILED == 70
    (line,) = nodes.log("n1").splitlines()
    assert line.startswith("kvnode: the storage has failed, stopping: ")
    assert line.endswith("Input/output error")
    nodes.start("n1", f"n1={address}")
    assert get(address, b"before") == [b"v"]


def test_sigkill_at_any_time_loses_no_acknowledged_write(nodes: Nodes) -> None:
    address = free_address()
    acknowledged: set[bytes] = set()
    for turn in range(3):
        process = nodes.start("n1", f"n1={address}")
        with kvstore.connect(address, timeout=PATIENCE) as db:
            keys = [f"{turn}/{i}" for i in range(500)]
            acknowledged.update(key.encode() for key in db.bucket("b").put_many(dict.fromkeys(keys, "v")))
        process.kill()
        process.wait()
    nodes.start("n1", f"n1={address}")
    with kvstore.connect(address, timeout=PATIENCE) as db:
        got = db.bucket("b").get_many(acknowledged)
        assert len(got) == 1500
        assert all(result.value == b"v" for result in got.values())


def test_nodes_with_different_settings_do_not_talk_to_each_other(nodes: Nodes) -> None:
    members = f"n1={free_address()},n2={free_address()}"
    nodes.start("n1", members, "--partitions", "16")
    nodes.start("n2", members, "--partitions", "32")
    complaint = "was started with other members, partitions, replicas or buckets"
    until(lambda: all(complaint in nodes.log(node) for node in ("n1", "n2")))


def test_the_log_tells_what_becomes_of_a_cluster_and_a_fresh_start_is_no_alarm(nodes: Nodes) -> None:
    addresses = {node: free_address() for node in ("n1", "n2")}
    members = ",".join(f"{node}={address}" for node, address in addresses.items())
    nodes.start("n1", members, "--bucket", "b:n=2,w=1,r=1")
    until(lambda: "node n2 is dead: it was suspected" in nodes.log("n1"))
    put(addresses["n1"], b"k", b"v")
    until(lambda: "keeps hints for node n2: 1 of" in nodes.log("n1"))
    assert "not connected" not in nodes.log("n1")
    nodes.start("n2", members, "--bucket", "b:n=2,w=1,r=1")
    until(lambda: "no hints are left for node n2" in nodes.log("n1"))
    for told in ("settings: cluster-id: ", "open files", "connected to node n2", "node n2 is alive: it says"):
        assert told in nodes.log("n1")
    assert "WARNING" not in nodes.log("n2")


def test_a_log_of_json_has_an_object_in_each_line(nodes: Nodes) -> None:
    process = nodes.start("n1", f"n1={free_address()}", "--log-format", "json")
    process.terminate()
    assert process.wait(PATIENCE) == 0
    lines = [json.loads(line) for line in nodes.log("n1").splitlines()]
    assert lines[-1]["message"] == "stopped"
    assert {(line["node"], line["level"]) for line in lines} == {("n1", "info")}


def test_a_difference_that_does_no_harm_is_named_in_the_log(nodes: Nodes) -> None:
    members = f"n1={free_address()},n2={free_address()}"
    nodes.start("n1", members, "--max-value", "1000")
    nodes.start("n2", members, "--max-value", "2000")
    until(lambda: "node 'n2' has other settings: max-value: '2000' there, '1000' here" in nodes.log("n1"))


def test_the_address_of_a_node_changes_with_restarts_one_by_one(nodes: Nodes) -> None:
    n1, n2, moved = free_address(), free_address(), free_address()
    before, after = f"n1={n1},n2={n2}", f"n1={n1},n2={moved}"
    processes = {node: nodes.start(node, before) for node in ("n1", "n2")}
    until(lambda: all(" connected to node" in nodes.log(node) for node in processes))
    until(lambda: taken(n1, b"k", b"v"))  # it may have been suspected until now
    for node in ("n2", "n1"):
        processes[node].terminate()
        assert processes[node].wait(PATIENCE) == 0
        nodes.start(node, after)
        # the one that was not restarted yet takes it in all the same
        until(lambda node=node: nodes.log(node).count(" connected to node") > 1)  # type: ignore[misc]
    for address in (moved, n1):
        until(lambda address=address: taken(address, b"another", b"v"))  # type: ignore[misc]
        assert get(address, b"k") == [b"v"]
    assert "refused a stream" not in nodes.log("n1") + nodes.log("n2")


def test_a_restart_with_settings_under_which_data_would_not_be_found_is_refused(nodes: Nodes) -> None:
    """256 partitions, then 64: 35 of 200 keys were "not found" at R=2, and nobody was told."""
    address = free_address()
    process = nodes.start("n1", f"n1={address}", "--bucket", "carts:n=1,ttl=60")
    put(address, b"k", b"v")
    process.terminate()
    assert process.wait(PATIENCE) == 0
    command = [sys.executable, "-m", "kvstore.server", "--node", "n1", "--data", "n1"]
    for flags, said in (
        (["--partitions", "64"], "partitions=256, not partitions=64"),
        (["--bucket", "b:n=1,conflict=lww"], "bucket b:n=1,conflict=siblings, not bucket b:n=1,conflict=lww"),
    ):
        done = subprocess.run(
            [*command, "--initial-cluster", f"n1={address}", *flags],
            cwd=nodes.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        expected = f"kvnode: data directory n1 holds what was stored with {said}\n"
        assert (done.returncode, done.stderr) == (2, expected)
    nodes.start("n1", f"n1={address}", "--bucket", "b:n=1,ttl=60")
    assert get(address, b"k") == [b"v"]
