"""Real links and services, over a transport that fails at every await in turn, and clients that leave."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from google.rpc import code_pb2

from kvstore.config import QuorumSettings
from kvstore.frames.incoming import Rest, StreamEnded, StreamLost
from kvstore.frames.turn_ends import TurnEnds
from kvstore.protocol.gossip import GossipMessage
from kvstore.protocol.peer import ReplicaWrite
from kvstore.protocol.table import PeerMessage
from kvstore.server.links import Links
from kvstore.v1 import client_pb2 as pb
from kvstore.versions import EncodedVersion, InternalKey
from tests.unit.memory_client import MOST, Play, settled
from tests.unit.memory_nodes import Cluster, MemoryNode
from tests.unit.memory_streams import RUBBISH, Fault, Network, Plan, StreamSession, call
from tests.unit.server_nodes import cluster_state
from tests.unit.stepped_loop import stepped

LINK_FAULTS = [
    (side, fault)
    for side in ("client", "server")
    for fault in Fault
    # what a peer does not read waits, and the failure detector's messages with it
    if fault is not Fault.STUCK
]


SLOW = (Fault.HANG, Fault.LATE)
"""What it takes a keepalive to notice, or as long as that to pass."""


class Sender:
    """The links of n1 to the peer service of n2, and what became of each message."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.network = Network(patch)
        state = cluster_state([1, 2], "test")
        self.peer = MemoryNode(self.network, "n2", state)
        self.arrived: list[int] = []
        patch.setattr(self.peer.driver, "receive", self._receive)
        self.links = Links("n1", state)
        self.opened = self.sent = 0
        self.before: list[int] = []
        """What had arrived when a stream was opened last."""
        self.losses: list[int] = []
        """How many messages had been sent at each loss."""
        self.unsent: set[int] = set()

    def open(self) -> None:
        self.links.open(self._on_open, self._on_lost, self._on_unsent, TurnEnds())

    def _receive(self, sender: str, messages: Sequence[PeerMessage], _delay: float) -> None:
        assert sender == "n1"
        for message in messages:
            assert isinstance(message, ReplicaWrite)
            self.arrived.append(message.number)

    def _on_open(self, peer: str) -> None:
        assert peer == "n2"
        self.opened += 1
        self.before = self.arrived.copy()

    def _on_lost(self, peer: str) -> None:
        assert peer == "n2"
        self.losses.append(self.sent)

    def _on_unsent(self, peer: str, numbers: Sequence[int]) -> None:
        assert peer == "n2"
        self.unsent.update(numbers)

    def send(self, bulk: bool) -> int:
        number = self.sent
        self.sent += 1
        self.links.send(
            "n2", ReplicaWrite(number, 1, InternalKey(b"k"), EncodedVersion(b"v"), background=bulk)
        )
        return number

    async def deliver(self, bulk: bool) -> None:
        """Send until something arrives: the read under way may be the one with the fault."""
        number = self.send(bulk)
        for turn in range(1, 1000):
            await asyncio.sleep(0.01)
            if number in self.arrived:
                return
            if not turn % 100:
                number = self.send(bulk)
        raise AssertionError("the link does not come back")

    async def close(self) -> None:
        await self.links.close()
        await self.peer.stop()
        await settled(lambda: not self.network.connections)


@pytest.mark.parametrize("method", ["Link", "Bulk"])
@pytest.mark.parametrize(("side", "fault"), LINK_FAULTS, ids=lambda value: getattr(value, "name", value))
def test_each_message_arrives_once_or_its_loss_is_told_wherever_a_link_fails(
    monkeypatch: pytest.MonkeyPatch, play: Play, method: str, side: str, fault: Fault
) -> None:
    async def scenario() -> None:
        for at in range(MOST):
            sender = Sender(monkeypatch)
            plan = sender.network.plan = Plan(method, side, fault, at, armed=True)
            sender.open()
            for _ in range(6):
                for _ in range(2):
                    sender.send(method == "Bulk")
                await asyncio.sleep(0.02)
            plan.armed = False
            await asyncio.sleep(20.0 if fault in SLOW else 1.0)
            for bulk in (False, True):
                await sender.deliver(bulk)
            judge(sender, fault if plan.reached else None)
            await sender.close()
            if not plan.reached:
                break
        assert at >= 3

    play(scenario())


def judge(sender: Sender, fault: Fault | None) -> None:
    assert sender.links.connected("n2"), "it does not come back"
    assert sender.opened == 2 + len(sender.losses), "a break that nobody was told of, or one too many"
    assert len(sender.losses) <= 1, "the other stream broke as well"
    times = Counter(sender.arrived)
    assert max(times.values(), default=0) <= (2 if fault is Fault.TWICE else 1), "sent again"
    assert list(dict.fromkeys(sender.arrived)) == sorted(times), "out of order"
    if sender.losses:
        assert min(sender.arrived[len(sender.before) :]) >= sender.losses[0], "what was given up came first"
    lost = {number for number in range(sender.sent) if number not in times}
    assert not sender.unsent & set(times), "said to be unsent"
    told = sender.unsent | set(range(max(sender.losses, default=0)))
    assert lost <= told, "nobody is told that it is lost"


@pytest.mark.parametrize("method", ["Link", "Bulk"])
def test_a_peer_that_does_not_welcome_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, play: Play, method: str
) -> None:
    async def scenario() -> None:
        sender = Sender(monkeypatch)
        plan = sender.network.plan = Plan(method, "server", Fault.STUCK, 0, armed=True)
        sender.open()
        await asyncio.sleep(4.0)
        assert plan.reached
        assert sender.links.connected("n2")
        assert not sender.losses
        await sender.close()

    play(scenario())


def test_links_that_are_closed_at_any_step_end(monkeypatch: pytest.MonkeyPatch, play: Play) -> None:
    async def close_at(step: int) -> bool:
        sender = Sender(monkeypatch)
        sender.open()
        closing: list[asyncio.Task[None]] = []
        stepped().at_step(step, lambda: closing.append(asyncio.ensure_future(sender.close())))
        await settled(lambda: sender.links.connected("n2") or bool(closing))
        in_time = bool(closing)
        sender.send(bulk=False)
        await settled(lambda: bool(closing))
        begun = stepped().now
        await closing[0]
        assert stepped().now - begun < 1.0
        return in_time

    async def scenario() -> None:
        step = 0
        while await close_at(step):
            step += 1
        assert 5 <= step < MOST

    play(scenario())


_WRITE_PATIENCE = QuorumSettings().write_patience + 0.1
"""Seconds that a write goes on when its client has left: the replicas have the work before them."""


def requests() -> list[tuple[str, Any, Any]]:
    return [
        ("Get", pb.GetRequest(bucket="b", key=b"k", timeout_ms=60_000), pb.GetResponse.FromString),
        (
            "Put",
            pb.PutRequest(bucket="b", key=b"k", value=b"v", timeout_ms=60_000),
            pb.WriteResponse.FromString,
        ),
        ("Delete", pb.DeleteRequest(bucket="b", key=b"k", timeout_ms=60_000), pb.WriteResponse.FromString),
    ]


def gossip_only(receive: Callable[..., Rest]) -> Callable[..., Rest]:
    def filtered(sender: str, messages: Sequence[PeerMessage], delay: float) -> Rest:
        return receive(sender, [each for each in messages if isinstance(each, GossipMessage)], delay)

    return filtered


async def deaf(patch: pytest.MonkeyPatch) -> tuple[Cluster, str]:
    """A node of three, and its address; the others are alive and answer no request."""
    cluster = Cluster(patch, 3)
    await cluster.connected()
    for node in cluster.nodes[1:]:
        patch.setattr(node.driver, "receive", gossip_only(node.driver.receive))
    return cluster, cluster.nodes[0].address


@pytest.mark.parametrize("number", range(3), ids=["get", "put", "delete"])
def test_a_unary_call_that_is_cancelled_at_any_step_leaves_nothing_under_way(
    monkeypatch: pytest.MonkeyPatch, play: Play, number: int
) -> None:
    async def scenario() -> None:
        cluster, address = await deaf(monkeypatch)
        node = cluster.nodes[0]
        method, request, answer = requests()[number]
        most = 0.1 if method == "Get" else _WRITE_PATIENCE
        was_busy = 0
        for step in range(MOST):
            task = asyncio.ensure_future(call(address, method, request, answer))
            cancelled = asyncio.Event()

            def cancel(task: asyncio.Task[Any] = task, cancelled: asyncio.Event = cancelled) -> None:
                task.cancel()
                cancelled.set()

            stepped().at_step(step, cancel)
            await cancelled.wait()
            busy = not node.idle()
            was_busy += busy
            await asyncio.wait([task])
            assert task.cancelled()
            begun = stepped().now
            await settled(node.idle)
            assert stepped().now - begun < most, "only its own deadline ended it"
            if was_busy >= 3:
                break
        assert was_busy
        await cluster.stop()

    play(scenario())


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_session_that_ends_at_any_step_leaves_nothing_under_way(
    monkeypatch: pytest.MonkeyPatch, play: Play, twice: bool
) -> None:
    async def scenario() -> None:
        cluster, address = await deaf(monkeypatch)
        node = cluster.nodes[0]
        was_busy = 0
        links = set(node.listener.tasks)
        calls = [pb.Call(id=1, get=requests()[0][1]), pb.Call(id=2, put=requests()[1][1])]
        for step in range(MOST):
            session = await StreamSession.open(address)
            (handling,) = node.listener.tasks - links
            sending = asyncio.ensure_future(session.send(calls))
            ended = asyncio.Event()

            def end(session: StreamSession = session, ended: asyncio.Event = ended) -> None:
                session.stream.break_off()
                ended.set()

            stepped().at_step(step, end)
            if twice:
                stepped().at_step(step + 1, handling.cancel)
            await ended.wait()
            was_busy += not node.idle()
            await asyncio.wait([sending, handling])
            assert isinstance(sending.exception(), StreamLost | None)
            begun = stepped().now
            await settled(node.idle)
            assert stepped().now - begun < _WRITE_PATIENCE, "only its own deadline ended it"
            if was_busy >= 3:
                break
        assert was_busy
        await cluster.stop()

    play(scenario())


def test_a_session_that_is_refused_takes_no_other_stream_down(
    monkeypatch: pytest.MonkeyPatch, play: Play
) -> None:
    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        await cluster.connected()
        address = cluster.nodes[0].address
        good, bad = await StreamSession.open(address), await StreamSession.open(address)
        streams = cluster.network.connections.copy()
        await good.send([pb.Call(id=1, get=requests()[0][1])])
        await bad.stream.write(RUBBISH)
        with pytest.raises(StreamEnded) as caught:
            await bad.stream.read()
        assert caught.value.status.code == code_pb2.INVALID_ARGUMENT
        bad.stream.break_off()
        assert (await good.results(1))[1].WhichOneof("reply") == "found"
        result = await good.exchange([pb.Call(id=2, put=requests()[1][1])])
        assert result[2].WhichOneof("reply") == "stored"
        await settled(lambda: len(streams - cluster.network.connections) == 1)
        good.stream.break_off()
        await cluster.stop()

    play(scenario())


@pytest.mark.parametrize("fault", [Fault.BREAK, Fault.BREAK_AT_END], ids=lambda fault: fault.name)
def test_a_node_is_told_of_a_broken_link_and_does_not_wait_for_the_deadline(
    monkeypatch: pytest.MonkeyPatch, play: Play, fault: Fault
) -> None:
    """A read of all replicas asks the one anew whose question was lost with its link.

    Two reads, one after the other, put two questions each: the link breaks at one of these in turn, and at
    whatever else the nodes say to each other meanwhile.
    """

    async def scenario() -> None:
        cluster = Cluster(monkeypatch, 3)
        await cluster.connected()
        address = cluster.nodes[0].address
        request = pb.GetRequest(bucket="b", key=b"k", r=3, timeout_ms=60_000)
        for at in range(MOST):
            plan = Plan("Link", "client", fault, at, armed=True, spared=cluster.nodes[0].address)
            cluster.network.plan = plan
            for _ in range(2):
                begun = stepped().now
                await call(address, "Get", request, pb.GetResponse.FromString)
                assert stepped().now - begun < 5.0
            if not plan.reached:
                break
        assert at >= 4
        await cluster.stop()

    play(scenario())
