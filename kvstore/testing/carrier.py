"""Carries the requests of one client to a simulated cluster, by the rules of kvstore.client.dispatcher."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import msgspec

from kvstore.client.calls import time_for_node
from kvstore.client.errors import ClientClosed
from kvstore.client.retry import may_retry, pause
from kvstore.client.routes import route
from kvstore.errors import KVError, NoNodeAvailable, Outcome, ReadTimeout, Unavailable, WriteTimeout
from kvstore.protocol.messages import ClientRequest, Failed, Found, Get, Reply, Stored
from kvstore.quorum.hedging import Hedging
from kvstore.quorum.seen import Seen
from kvstore.ring import ClusterState, partition_of, preference_list, token
from kvstore.sim.cluster import REAP_AGE, SimulatedCluster
from kvstore.testing.virtual_loop import VirtualLoop, Wait
from kvstore.wire.errors import error_from_wire, error_to_wire
from kvstore.wire.status import RepairResponse, StatusResponse, repair_to_wire, status_to_wire_response

_LONGEST_DELAY = 1.0


class SimulatedCarrier:
    """A client's connections to the nodes that it `reaches`: those that run, without any delay."""

    def __init__(
        self, name: str, cluster: SimulatedCluster, reaches: frozenset[str], rng: random.Random
    ) -> None:
        self._name = name
        self._cluster = cluster
        self._loop = VirtualLoop(cluster.scheduler)
        self._reaches = reaches
        self._rng = rng
        self._hedging = Hedging(_LONGEST_DELAY)
        self._closed = False

    @property
    def state(self) -> ClusterState:
        """See Carrier."""
        return self._cluster.state

    def check_open(self) -> None:
        """See Carrier."""
        if self._closed:
            raise ClientClosed("the client is closed")

    async def close(self) -> None:
        """See Carrier."""
        self._closed = True

    async def refresh(self) -> None:
        """See Carrier."""
        self.check_open()

    async def status(self, timeout: float) -> dict[str, StatusResponse | KVError]:
        """See Carrier."""
        self.check_open()
        return {node: self._status_of(node) for node in self._cluster.hosts}

    def _status_of(self, node: str) -> StatusResponse | KVError:
        running = self._cluster.hosts[node].node
        if running is None or node not in self._reaches:
            return self._nothing_reached([node])
        return status_to_wire_response(running.status(), self.state)

    async def repair(self, start: bool, timeout: float) -> dict[str, RepairResponse | KVError]:
        """See Carrier."""
        self.check_open()
        return {node: self._repair_of(node, start) for node in self._cluster.hosts}

    def _repair_of(self, node: str, start: bool) -> RepairResponse | KVError:
        host = self._cluster.hosts[node]
        if host.node is None or node not in self._reaches:
            return self._nothing_reached([node])
        if start:
            host.repair_now()
        return repair_to_wire(host.node.status().anti_entropy)

    # requests

    def seen(self) -> Seen:
        """See Carrier: simulated clusters reap earlier, so less time may be remembered."""
        return Seen(lambda: self._loop.now, REAP_AGE / 2)

    async def execute(self, request: ClientRequest) -> Found | Stored:
        """See Carrier."""
        self.check_open()
        deadline = self._loop.now + request.timeout
        partition = partition_of(token(request.bucket, request.key), self.state.ring.partitions)
        failed: list[str] = []
        read = isinstance(request, Get)
        if read:
            self._try_slow(request, partition)
        while True:
            node = await self._next_node(partition, failed, deadline)
            until = deadline
            if not failed and read:
                until -= request.timeout / 2  # so that another replica can be asked
            try:
                return await self._attempt(node, request, until)
            except KVError as error:
                failed.append(node)
                await self._before_next(request, error, len(failed), deadline)

    async def _next_node(self, partition: int, failed: list[str], deadline: float) -> str:
        """A node that runs, one that has not failed if there is one; raises NoNodeAvailable."""
        nodes = [node for node in route(self.state, partition) if node in self._reaches]
        hosts = self._cluster.hosts
        await Wait(lambda: any(hosts[node].up for node in nodes), deadline)
        running = [node for node in nodes if hosts[node].up]
        if not running:
            raise self._nothing_reached(nodes)
        return min(running, key=lambda node: (node in failed, node in self._hedging.slow))

    def _try_slow(self, request: ClientRequest, partition: int) -> None:
        """Send a read to a slow replica as well, now and then."""
        hedging, began = self._hedging, self._loop.now
        hedging.earn()
        for node in self.state.ring.replica_lists[partition]:
            if node in hedging.slow and node in self._reaches:
                if hedging.may_try(node, began):
                    self._cluster.request(self._name, node, request, partial(self._tried, node, began))
                return

    def _tried(self, node: str, began: float, reply: Reply | None) -> None:
        if isinstance(reply, Found):
            self._hedging.answered(node, self._loop.now - began)

    def _nothing_reached(self, nodes: Sequence[str]) -> NoNodeAvailable:
        return NoNodeAvailable(dict.fromkeys(nodes, "cannot be reached"))

    async def _attempt(self, node: str, request: ClientRequest, until: float) -> Found | Stored:
        """One request to one node; raises what it answers, or what no answer means."""
        began = self._loop.now
        replies: list[Reply | None] = []
        timeout = time_for_node(until - self._loop.now) / 1000
        call = msgspec.structs.replace(request, timeout=timeout)
        self._cluster.request(self._name, node, call, replies.append)
        await Wait(lambda: bool(replies), until)
        if isinstance(request, Get) and (not replies or isinstance(replies[0], Found)):
            self._hedging.answered(node, self._loop.now - began)
        if not replies:
            raise self._timed_out(request)
        reply = replies[0]
        if reply is None:
            known = isinstance(request, Get)
            outcome = Outcome.NOT_APPLIED if known else Outcome.UNKNOWN
            raise NoNodeAvailable({node: "the connection broke"}, outcome)
        if isinstance(reply, Failed):
            raise error_from_wire(error_to_wire(reply.error))
        return reply

    def _timed_out(self, request: ClientRequest) -> KVError:
        bucket = self.state.bucket(request.bucket)
        if isinstance(request, Get):
            return ReadTimeout(0, request.r or bucket.r)
        return WriteTimeout(0, request.w or bucket.w)

    async def _before_next(
        self, request: ClientRequest, error: KVError, attempt: int, deadline: float
    ) -> None:
        """Wait as long as is right before another attempt, or raise `error`."""
        if not may_retry(request, error, attempt):
            raise error
        again = self._loop.now + pause(attempt, error, self._rng.uniform)
        if again >= deadline:
            raise error
        await Wait(lambda: False, again)

    async def execute_many(self, requests: Sequence[ClientRequest]) -> list[Found | Stored | KVError]:
        """See Carrier."""
        self.check_open()
        return self._loop.run_all([self.execute(request) for request in requests])

    async def scan_partition(self, bucket: str, w: int, partition: int, timeout: float) -> list[bytes]:
        """See Carrier."""
        self.check_open()
        primaries = preference_list(self.state.ring, partition, self.state.bucket(bucket).n)
        hosts = self._cluster.hosts
        running = [node for node in primaries if node in self._reaches and hosts[node].up]
        required = max(1, len(primaries) - w + 1)
        if len(running) < required:
            raise Unavailable(required, len(running))
        keys: set[bytes] = set()
        for node in running[:required]:
            keys.update(hosts[node].keys(bucket, partition))
        return sorted(keys)
