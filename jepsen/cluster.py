"""The cluster under test: kvnode processes on the hosts of a network, each with its disk and clock."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import kvstore.aio
from jepsen.drivers.clock import Clock
from jepsen.drivers.disk import Directory, Disk, LoopDisk, loop_reason_to_skip
from jepsen.drivers.network import Network, Pair, Slow
from kvstore.client.asynchronous import Client
from kvstore.config import QuorumSettings
from kvstore.errors import KVError
from kvstore.ring import ClusterState, initial_state, parse_members

if TYPE_CHECKING:
    from kvstore.client.status import NodeStatus

_POLL_SECONDS = 0.2
_END_SECONDS = 20.0
_STATUS_SECONDS = 3.0
_PATIENCE_SECONDS = QuorumSettings().write_patience + 0.5
_NODE_FLAGS = ("--memtable-bytes", str(256 * 1024), "--log-level", "info")
"""Small memtables, so that there are flushes and compactions within a run."""


class ClusterFailed(Exception):
    """The cluster did not come up, or back; the message names the node and has the last line of its log."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a cluster is made of. `plant` names a defect of jepsen.planted that every node gets."""

    directory: Path
    nodes: tuple[str, ...]
    clients: tuple[str, ...]
    buckets: tuple[str, ...]
    plant: str = ""
    clocks: bool = False
    flags: tuple[str, ...] = ()


class Cluster:
    """Starts, harms and mends nodes. One coroutine at a time uses it."""

    def __init__(self, layout: Layout, network: Network) -> None:
        self.layout = layout
        self.network = network
        self.nodes, self.clients = layout.nodes, layout.clients
        self.disks: dict[str, Disk] = {}
        self.clocks: dict[str, Clock] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._cuts: dict[str, frozenset[Pair]] = {}
        self._slow: dict[str, Mapping[Pair, Slow]] = {}
        self._client: Client | None = None
        self.starts: dict[str, int] = defaultdict(int)
        self._faults: set[str] = set()
        self._calm = asyncio.Event()
        self._calm.set()
        self.data_lost = False
        """A nemesis has taken data away that other nodes may not have brought back yet."""

    @property
    def endpoints(self) -> list[str]:
        """What a client connects to."""
        return [self.network.address(node) for node in self.nodes]

    @property
    def state(self) -> ClusterState:
        """The cluster state that all nodes begin with: it is a function of their names."""
        return initial_state("jepsen", parse_members(self._members()), buckets=())

    async def open(self) -> None:
        """Make network and disks, start all nodes, wait until they serve. Raises ClusterFailed."""
        await self.network.open()
        for node in self.nodes:
            home = self.layout.directory / node
            home.mkdir(parents=True)
            self.disks[node] = Directory(home) if loop_reason_to_skip() else LoopDisk(home)
            self.disks[node].open()
            self.clocks[node] = Clock(home)
        self.start(self.nodes)
        await self.serving(60.0)

    async def close(self) -> None:
        """End all nodes and remove all that was made, except for logs."""
        if self._client is not None:
            await self._client.close()
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        for disk in self.disks.values():
            disk.close()
        await self.network.close()

    # nodes

    def start(self, nodes: Iterable[str]) -> None:
        """Start those of these nodes that do not run."""
        for node in nodes:
            if not self.runs(node):
                self._start(node)

    def _start(self, node: str) -> None:
        module = ["jepsen.planted", self.layout.plant] if self.layout.plant else ["kvstore.server"]
        arguments = [
            "--node",
            node,
            "--data",
            str(self.disks[node].data.absolute()),
            "--cluster-id",
            "jepsen",
        ]
        arguments += ["--initial-cluster", self._members(), *_NODE_FLAGS, *self.layout.flags]
        for bucket in self.layout.buckets:
            arguments += ["--bucket", bucket]
        clock = self.clocks[node].environment if self.layout.clocks else {}
        # should this run be killed, its nodes go with it
        command = [*self.network.command(node), "setpriv", "--pdeathsig", "KILL"]
        with (self.layout.directory / node / "node.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [*command, sys.executable, "-m", *module, *arguments],
                env=os.environ | {"PYTHONFAULTHANDLER": "1"} | self.network.environment(node) | clock,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.starts[node] += 1

    def runs(self, node: str) -> bool:
        """Whether a node's process runs."""
        process = self._processes.get(node)
        return process is not None and process.poll() is None

    async def kill(self, nodes: Iterable[str]) -> None:
        """SIGKILL; all of them first, then wait for each."""
        running = [node for node in nodes if self.runs(node)]
        for node in running:
            self._processes[node].kill()
        for node in running:
            await self._ended(node)

    async def terminate(self, node: str) -> None:
        """SIGTERM: an orderly stop. Raises ClusterFailed when it does not end, with its stacks in its log."""
        if self.runs(node):
            self._processes[node].terminate()
            try:
                await self._ended(node)
            except TimeoutError:
                # faulthandler prints where all threads are
                self._processes[node].send_signal(signal.SIGABRT)
                raise ClusterFailed(
                    f"node {node} has not ended {_END_SECONDS:g} s after SIGTERM: its stacks are in its log"
                ) from None

    def pause(self, node: str) -> None:
        """SIGSTOP."""
        self._processes[node].send_signal(signal.SIGSTOP)

    def resume(self, node: str) -> None:
        """SIGCONT."""
        self._processes[node].send_signal(signal.SIGCONT)

    async def _ended(self, node: str) -> None:
        async with asyncio.timeout(_END_SECONDS):
            await asyncio.to_thread(self._processes[node].wait)

    def last_line(self, node: str) -> str:
        """The last line that a node has printed."""
        log = self.layout.directory / node / "node.log"
        lines = log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"

    def _members(self) -> str:
        return ",".join(f"{node}={self.network.address(node)}" for node in self.nodes)

    def fault(self, name: str, lasts: bool) -> None:
        """A nemesis' fault lasts from now on, or has ended."""
        self._faults = self._faults | {name} if lasts else self._faults - {name}
        self._calm.clear() if self._faults else self._calm.set()

    # network: each fault says what it wants under a name of its own, and all of them add up

    async def cut(self, fault: str, pairs: Collection[Pair]) -> None:
        """Cut these ways until `fault` says otherwise; none of them: mend what it had cut."""
        self._cuts[fault] = frozenset(pairs)
        await self.network.cut(frozenset().union(*self._cuts.values()))

    async def slow(self, fault: str, ways: Mapping[Pair, Slow]) -> None:
        """Slow these ways down until `fault` says otherwise."""
        self._slow[fault] = ways
        await self.network.slow({pair: slow for each in self._slow.values() for pair, slow in each.items()})

    # what nodes say

    async def client(self) -> Client:
        """A client on the control host, which no fault cuts off."""
        if self._client is None:
            self._client = await kvstore.aio.connect(self.endpoints, timeout=_STATUS_SECONDS)
        return self._client

    async def statuses(self) -> dict[str, NodeStatus]:
        """What each node that answers says of itself."""
        try:
            answers = await (await self.client()).status()
        except KVError:
            return {}
        return {node: a for node, a in answers.items() if not isinstance(a, KVError)}

    async def serving(self, seconds: float) -> None:
        """Wait until all nodes answer, and are connected to all others. Raises ClusterFailed."""
        try:
            async with asyncio.timeout(seconds):
                while not _all_connected(await self.statuses(), self.nodes):
                    for node in self.nodes:
                        if not self.runs(node):
                            raise ClusterFailed(f"node {node} has stopped: {self.last_line(node)}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise ClusterFailed(f"the nodes do not serve after {seconds:g} s") from None

    async def converged(self, seconds: float) -> float:
        """Wait until no hint is left and all replicas are proven equal since now; returns how long that took.

        Raises ClusterFailed.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        left = "nothing was heard"
        try:
            async with asyncio.timeout(seconds):
                client = await self.client()
                await self._until_no_hints()
                answers = await client.repair()
                while True:
                    bad = {node: str(a) for node, a in answers.items() if isinstance(a, KVError)}
                    found = {
                        node: a.wanted
                        for node, a in answers.items()
                        if not isinstance(a, KVError) and a.wanted
                    }
                    if not bad and not found:
                        return loop.time() - began
                    left = f"pairs left to be proven equal: {found}, no answer: {bad}"
                    await asyncio.sleep(_POLL_SECONDS)
                    answers = await client.repair(start=False)
        except TimeoutError:
            raise ClusterFailed(f"not converged after {seconds:g} s: {left}") from None

    async def whole(self, seconds: float) -> None:
        """Wait until every replica has what was acknowledged, so that data may be taken from one node.

        That is when no fault lasts, all nodes run, and all replicas are proven equal after the patience of a
        write. No hint being left does not suffice: a coordinator may have died before it wrote one. Raises
        ClusterFailed, at once if data was taken away that may not be back yet.
        """
        if self.data_lost:
            raise ClusterFailed("what was taken away before may not be back yet")
        try:
            async with asyncio.timeout(seconds):
                await self._calm.wait()
                await self.serving(seconds)
                await asyncio.sleep(_PATIENCE_SECONDS)
                await self.converged(seconds)
        except TimeoutError:
            raise ClusterFailed(f"other faults last, or replicas differ, after {seconds:g} s") from None

    async def _until_no_hints(self) -> None:
        while True:
            statuses = await self.statuses()
            hints = sum(each.count for status in statuses.values() for each in status.hints)
            if len(statuses) == len(self.nodes) and not hints:
                return
            await asyncio.sleep(_POLL_SECONDS)


def _all_connected(statuses: Mapping[str, NodeStatus], nodes: Sequence[str]) -> bool:
    return all(
        node in statuses and set(nodes) <= {m.node for m in statuses[node].members if m.connected and m.alive}
        for node in nodes
    )
