"""Whole nodes in memory: real driver, node, engine, links and services, and neither sockets nor a disk."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvstore.lsm import Engine
from kvstore.lsm.memory_filesystem import MemoryFileSystem
from kvstore.node.settings import NodeSettings
from kvstore.ring import ClusterState
from kvstore.server import stream_calls
from kvstore.server.admin_service import AdminService
from kvstore.server.client_service import ClientService
from kvstore.server.driver import Driver
from kvstore.server.links import Links
from kvstore.server.listener import Listener
from kvstore.server.peer_service import PeerService
from tests.unit.memory_client import settled
from tests.unit.memory_streams import Network
from tests.unit.server_nodes import cluster_state


class MemoryNode:
    """One node; `fatal` is what would have ended its process."""

    def __init__(self, network: Network, name: str, state: ClusterState) -> None:
        member = state.member(name)
        assert member is not None
        self.address = member.address
        self.fatal: list[BaseException] = []
        engine = Engine.open(MemoryFileSystem(), name)
        self.links = Links(name, state)
        self.driver = Driver(name, state, engine, self.links, NodeSettings(), self.fatal.append)
        self.clients = ClientService(self.driver)
        admin = AdminService(self.driver, self.links, self.clients)
        self.peers = peers = PeerService(self.driver, self.links)
        streams = peers.handlers() | stream_calls.handlers((self.clients.service(), admin.service()))
        self.listener = Listener(streams)
        network.serve(self.address, self.listener)
        self.driver.start()

    def idle(self) -> bool:
        """Whether no request is under way, and nobody waits for one."""
        return not self.driver.status().in_flight and self.driver.executor.idle

    async def stop(self) -> None:
        await self.driver.stop()
        assert not self.fatal, self.fatal


class Cluster:
    """So many nodes and their network, which every connection that is opened meanwhile leads to."""

    def __init__(self, patch: pytest.MonkeyPatch, count: int) -> None:
        self.network = Network(patch)
        self.state = cluster_state(range(1, count + 1), "test")
        self.nodes = [MemoryNode(self.network, member.node, self.state) for member in self.state.members]

    @property
    def endpoints(self) -> Sequence[str]:
        return [node.address for node in self.nodes]

    async def connected(self) -> None:
        """Wait until each node has streams to all others."""
        await settled(lambda: all(all(map(each.links.connected, each.links.peers)) for each in self.nodes))

    async def stop(self) -> None:
        """Stop all nodes; fails when a client has not closed a connection."""
        for node in self.nodes:
            await node.stop()
        await settled(lambda: not self.network.methods())
        self.network.lose(list(self.network.connections))
