"""A cluster of processes on this machine, kept in one directory so that any later call finds it again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kvstore.client.endpoints import parse_endpoints
from kvstore.client.synchronous import connect
from kvstore.config import parse_bucket
from kvstore.errors import ConfigError, KVError
from kvstore.local.ports import HOST, check_port, free_ports
from kvstore.local.process import NodeProcess
from kvstore.ring import ClusterState, initial_state, parse_members
from kvstore.server.identity import Identity, difference

if TYPE_CHECKING:
    from kvstore.client.status import NodeStatus

DEFAULT_DIRECTORY = Path(".kvstore/local")
DEFAULT_PORT = 7001
DEFAULT_NODES = 3

START_SECONDS = 120.0
"""A busy machine takes long to start processes; one that ends is noticed at once."""

_FILE = "cluster.json"
_POLL_SECONDS = 0.05


class NotServing(KVError):
    """A node did not come up, or not in time; the message has the last line of its log."""


class NoLocalCluster(ConfigError):
    """There is no cluster in the directory."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a local cluster is made of: its nodes' addresses and the texts of its bucket settings."""

    addresses: dict[str, str]
    buckets: tuple[str, ...]

    @property
    def members(self) -> str:
        """The text of `kvnode --initial-cluster`."""
        return ",".join(f"{name}={address}" for name, address in self.addresses.items())

    def check(self) -> None:
        """Raise ConfigError if it is no layout of a cluster."""
        for text in self.buckets:
            parse_bucket(text)
        parse_members(self.members)
        parse_endpoints([*self.addresses.values()])

    def state(self) -> ClusterState:
        """What its nodes are started with; raises ConfigError."""
        buckets = [parse_bucket(text) for text in self.buckets]
        return initial_state("", parse_members(self.members), buckets=buckets)


class LocalCluster:
    """Nodes n1, n2, ... on this machine. Made by `create` or `load`."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        self.directory = directory
        self.layout = layout
        self._processes = {node: NodeProcess(directory / node) for node in layout.addresses}

    @classmethod
    def create(
        cls,
        directory: Path = DEFAULT_DIRECTORY,
        nodes: int = DEFAULT_NODES,
        first_port: int | None = DEFAULT_PORT,
        buckets: Sequence[str] = (),
    ) -> LocalCluster:
        """Lay out a new cluster, or take the one that is there, with these settings of buckets.

        Without a `first_port` free ones are chosen, or those that are there kept. `buckets` as for
        `kvnode --bucket`. Raises ConfigError, also when the one that is there has other nodes, runs with
        other settings, or has stored something with settings that must not change.
        """
        if not 1 <= nodes <= 99:
            raise ConfigError(f"nodes={nodes} must be between 1 and 99")
        if first_port is not None and not 0 < first_port <= 65536 - nodes:
            raise ConfigError(f"port={first_port} leaves no room for {nodes} ports up to 65535")
        ports = range(first_port, first_port + nodes) if first_port is not None else free_ports(nodes)
        addresses = {f"n{i}": f"{HOST}:{port}" for i, port in enumerate(ports, 1)}
        layout = Layout(addresses, tuple(buckets))
        layout.state()  # whatever is wrong with it is said before anything is made
        if (directory / _FILE).exists():
            found = cls.load(directory)
            if first_port is None and len(found.nodes) == nodes:
                layout = Layout(found.layout.addresses, layout.buckets)
            if layout == found.layout:
                return found
            found._check_change(layout)
        else:
            _check_ports(addresses.values())
        _write(directory, layout)
        return cls(directory, layout)

    def _check_change(self, layout: Layout) -> None:
        """Raise ConfigError unless the nodes may be started with this layout the next time."""
        if layout.addresses != self.layout.addresses:
            raise ConfigError(
                f"{self.directory} holds another cluster, {self.endpoints}, not "
                f"{','.join(layout.addresses.values())}: use --dir, or remove it"
            )
        stored, given = (Identity.of("n1", each.state()) for each in (self.layout, layout))
        if changed := difference(stored, given):
            raise ConfigError(f"{self.directory} holds what was stored with {changed}")
        if self.running():
            raise ConfigError(
                f"the cluster in {self.directory} runs with {_named(self.layout.buckets)}, "
                f"not {_named(layout.buckets)}: stop it first"
            )

    @classmethod
    def load(cls, directory: Path = DEFAULT_DIRECTORY) -> LocalCluster:
        """The cluster in a directory; raises ConfigError: NoLocalCluster if there is none."""
        try:
            layout = msgspec.json.decode((directory / _FILE).read_bytes(), type=Layout)
            layout.check()
        except FileNotFoundError:
            raise NoLocalCluster(f"there is no local cluster in {directory}") from None
        except (OSError, ValueError, RecursionError, ConfigError):
            raise ConfigError(f"{directory / _FILE} cannot be read as a local cluster") from None
        return cls(directory, layout)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The ids of the nodes."""
        return tuple(self.layout.addresses)

    @property
    def endpoints(self) -> str:
        """What a client connects to."""
        return ",".join(self.layout.addresses.values())

    def pid(self, node: str) -> int | None:
        """The process id of a node, None when it does not run."""
        process = self._process(node).running()
        return process.pid if process else None

    def running(self) -> tuple[str, ...]:
        """The nodes that run."""
        return tuple(node for node in self.nodes if self.pid(node) is not None)

    def start(
        self, nodes: Iterable[str] | None = None, timeout: float = START_SECONDS, flags: Sequence[str] = ()
    ) -> None:
        """Start nodes (all, if none are named) that do not run, and wait until they serve.

        `flags` are further ones for `kvnode`.

        Raises ConfigError before anything is started when a port is taken or the directory cannot be
        written to, NotServing when a node does not come up; then those that were started are stopped.
        """
        wanted = [n for n in (self.nodes if nodes is None else nodes) if self.pid(n) is None]
        self._check_directory()
        _check_ports(self.layout.addresses[node] for node in wanted)
        try:
            for node in wanted:
                self._process(node).start([*self._arguments(node), *flags])
            self.wait_until_serving(timeout)
        except BaseException:  # an interrupt as well: what this call has started does not stay behind
            self._stop(wanted)
            raise

    def stop(self) -> tuple[str, ...]:
        """Stop all nodes; returns those that ran."""
        return self._stop(self.nodes)

    def _stop(self, nodes: Iterable[str]) -> tuple[str, ...]:
        stopped = tuple(node for node in nodes if self._process(node).terminate())
        for node in stopped:
            self._process(node).wait()
        return stopped

    def stop_node(self, node: str) -> bool:
        """Stop one node in an orderly way; whether it ran."""
        was_running = self._process(node).terminate()
        self._process(node).wait()
        return was_running

    def kill(self, node: str) -> bool:
        """End a node with SIGKILL; whether it ran."""
        return self._process(node).kill()

    def remove(self) -> None:
        """Stop all nodes and delete their data."""
        self.stop()
        shutil.rmtree(self.directory)

    def wait_until_serving(self, timeout: float = START_SECONDS) -> None:
        """Wait until every node that was started answers and is connected to all others that run.

        Raises NotServing when one has ended or the time (seconds) is over.
        """
        deadline = time.monotonic() + timeout
        started = [node for node in self.nodes if self._process(node).log.exists()]
        expected = {node for node in started if self.pid(node) is not None}
        while not self._all_connected(expected):
            for node in expected:
                if self.pid(node) is None:
                    raise NotServing(f"node {node} has stopped: {self._process(node).last_line()}")
            if time.monotonic() > deadline:
                raise NotServing(
                    f"the nodes do not serve after {timeout:g} s; see {self.directory}/*/node.log"
                )
            time.sleep(_POLL_SECONDS)
        if not expected:
            raise NotServing("no node is running")

    def _all_connected(self, nodes: set[str]) -> bool:
        statuses = self.statuses(1.0)
        return all(node in statuses and _sees(statuses[node], nodes) for node in nodes)

    def statuses(self, timeout: float = 2.0) -> dict[str, NodeStatus]:
        """What each node that answers within `timeout` seconds says of itself."""
        addresses = [self.layout.addresses[node] for node in self.running()]
        if not addresses:
            return {}
        try:
            with connect(addresses, timeout=timeout) as client:
                answers = client.status()
        except KVError:
            return {}
        return {node: a for node, a in answers.items() if not isinstance(a, KVError)}

    def _process(self, node: str) -> NodeProcess:
        try:
            return self._processes[node]
        except KeyError:
            raise ConfigError(f"there is no node {node!r} (nodes: {', '.join(self.nodes)})") from None

    def _arguments(self, node: str) -> list[str]:
        directory = self.directory.absolute() / node / "data"
        arguments = ["--node", node, "--data", str(directory), "--initial-cluster", self.layout.members]
        for bucket in self.layout.buckets:
            arguments += ["--bucket", bucket]
        return arguments

    def _check_directory(self) -> None:
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise ConfigError(f"{self.directory} cannot be written to")


def _check_ports(addresses: Iterable[str]) -> None:
    for address in addresses:
        check_port(address)


def _write(directory: Path, layout: Layout) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = directory / f"{_FILE}.new"
        unfinished.write_text(json.dumps(asdict(layout)))
        unfinished.rename(directory / _FILE)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written to: {error.strerror}") from error


def _named(buckets: Sequence[str]) -> str:
    return " ".join(f"--bucket {bucket}" for bucket in buckets) or "no --bucket"


def _sees(status: NodeStatus, nodes: set[str]) -> bool:
    """Whether a node is connected to all of these and thinks them alive."""
    good = {m.node for m in status.members if m.connected and m.alive}
    return nodes <= good | {status.node}
