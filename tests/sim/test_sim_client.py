"""The client's core over the simulated transport: connections break, close, and are not read from."""

from __future__ import annotations

import random

import pytest

from kvstore.client.core.waiter import Answer
from kvstore.config import BucketSettings
from kvstore.errors import NoNodeAvailable, Outcome, WriteTimeout
from kvstore.lsm import Fate
from kvstore.protocol.client import ClientRequest, Found, Stored
from kvstore.protocol.instant import Instant
from kvstore.quorum.forward import ForwardOperation
from kvstore.sim.client import Pending, SimulatedClient
from kvstore.sim.cluster import SimulatedCluster
from tests.plain import Get, Put

PUT = Put("b", b"k", b"v", timeout=5.0)
GET = Get("b", b"k", timeout=5.0)


class Scene:
    """A client of five nodes, connected to all."""

    def __init__(self) -> None:
        self.cluster = SimulatedCluster(1, 5, (BucketSettings("b"), BucketSettings("alone", n=1, r=1, w=1)))
        self.cluster.start()
        self.cluster.run(1.0)
        self.client = SimulatedClient("Ann", self.cluster, random.Random(1))
        self.primaries = self.cluster.replicas("b", b"k")
        (*_, self.other) = [node for node in self.cluster.hosts if node not in self.primaries]
        self.cluster.run(0.1)

    def begin(self, request: ClientRequest) -> Pending:
        pending = Pending()
        self.client.begin(request, pending)
        return pending

    def carry_out(self, request: ClientRequest) -> Answer:
        pending = self.begin(request)
        self.cluster.run(request.timeout)
        assert pending.answer is not None, "it has an answer by its deadline"
        return pending.answer


def test_a_client_that_reaches_no_replica_has_its_requests_forwarded() -> None:
    scene = Scene()
    other = scene.cluster.hosts[scene.other]
    assert isinstance(scene.carry_out(PUT), Stored)
    assert other.shell.status().counters.forwards == 0, "the first replica was asked"
    scene.client.reach([scene.other])
    answer = scene.carry_out(GET)
    assert isinstance(answer, Found)
    assert answer.siblings[0].value == b"v"
    assert other.shell.status().counters.forwards == 1


def test_a_connection_that_breaks_leaves_a_write_unknown_and_a_read_is_sent_again() -> None:
    scene = Scene()
    for node in scene.primaries:
        scene.cluster.hosts[node].process.pause(1.0)
    write, read = scene.begin(PUT), scene.begin(GET)
    scene.cluster.run(0.1)
    scene.client.break_connections()
    assert isinstance(write.answer, NoNodeAvailable)
    assert write.answer.outcome is Outcome.UNKNOWN
    scene.cluster.run(5.0)
    assert isinstance(read.answer, Found)
    assert scene.client.core.retries == {"NoNodeAvailable": 1}


def test_a_host_that_returns_is_connected_to_again() -> None:
    scene = Scene()
    (first,) = scene.cluster.replicas("alone", b"k")
    scene.client.reach([first])
    scene.cluster.crash(first, Fate.ALL)
    scene.cluster.run(0.1)
    pending = scene.begin(Put("alone", b"k", b"v", timeout=5.0))
    scene.cluster.run(1.0)
    assert pending.answer is None
    scene.cluster.restart(first)
    scene.cluster.run(1.5)
    assert isinstance(pending.answer, Stored)
    assert not scene.client.core.retries, "what waits for a node was not tried yet"


def test_a_client_that_is_closed_frees_what_is_done_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[ForwardOperation] = []

    def on_cancelled(self: ForwardOperation, _: Instant) -> None:
        cancelled.append(self)

    monkeypatch.setattr(ForwardOperation, "on_cancelled", on_cancelled)
    scene = Scene()
    scene.client.reach([scene.other])
    scene.cluster.split([scene.other])
    pending = scene.begin(GET)
    scene.cluster.run(0.1)
    assert not cancelled
    scene.client.close()
    assert len(cancelled) == 1
    assert pending.done()
    scene.cluster.crash(scene.other)
    scene.cluster.run(5.0)
    assert not scene.cluster.on_death, "it is told of nothing any more"


def test_replies_that_are_not_read_are_not_taken_for_those_of_the_next_connection() -> None:
    scene = Scene()
    assert isinstance(scene.carry_out(PUT), Stored)
    scene.cluster.stop_reading("Ann")
    assert isinstance(scene.carry_out(PUT), WriteTimeout)
    scene.cluster.read_again("Ann")
    scene.cluster.run(2.0)
    assert isinstance(scene.carry_out(GET), Found)
