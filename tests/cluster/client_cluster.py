"""Three real nodes as processes of the test's own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import kvstore

NODES = ("n1", "n2", "n3")
_START_SECONDS = 30.0


class RealCluster:
    """Three `kvnode` processes; `addresses` by node id."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.addresses = {node: f"127.0.0.1:{port}" for node, port in zip(NODES, _free_ports(3), strict=True)}

    @property
    def endpoints(self) -> str:
        return ",".join(self.addresses.values())

    def start(self, *nodes: str) -> None:
        """Start nodes and wait until they answer."""
        members = ",".join(f"{node}={address}" for node, address in self.addresses.items())
        for node in nodes:
            command = [sys.executable, "-m", "kvstore.server", "--node", node, "--initial-cluster", members]
            with (self._directory / f"{node}.log").open("ab") as log:
                self._processes[node] = subprocess.Popen(
                    [*command, "--data", str(self._directory / node), "--log-level", "warning"],
                    stdout=log,
                    stderr=log,
                )
        for node in nodes:
            self._await(node)
        self._await_links()

    def _await(self, node: str) -> None:
        give_up = time.monotonic() + _START_SECONDS
        while not _answers(self.addresses[node]):
            log = (self._directory / f"{node}.log").read_text()
            assert self._processes[node].poll() is None, log
            assert time.monotonic() < give_up, f"{node} does not answer\n{log}"
            time.sleep(0.05)

    def _await_links(self) -> None:
        """Wait until every running node gets its writes to all others."""
        give_up = time.monotonic() + _START_SECONDS
        with kvstore.connect(self.endpoints, timeout=1) as db:
            bucket = db.bucket("warm", w=len(self._processes))
            while not _stores(bucket):
                assert time.monotonic() < give_up, "not every node gets its writes to all others"

    def kill(self, node: str) -> None:
        """End a node without any warning."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    def pause(self, node: str) -> None:
        """Let a node hang."""
        self._processes[node].send_signal(signal.SIGSTOP)

    def resume(self, node: str) -> None:
        """Let it go on."""
        self._processes[node].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End all nodes that run."""
        for node in tuple(self._processes):
            self.kill(node)


def _answers(address: str) -> bool:
    try:
        kvstore.connect(address, timeout=1).close()
    except kvstore.NoNodeAvailable:
        return False
    return True


def _stores(bucket: kvstore.Bucket) -> bool:
    try:
        bucket.put_many((f"{time.monotonic()}/{i}", "") for i in range(30))
    except kvstore.PartialFailure:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
