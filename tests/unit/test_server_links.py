"""Streams between nodes: who may talk to whom, what is dropped, how a broken one comes back."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from google.rpc import code_pb2

from kvstore.config import BucketSettings, Limits
from kvstore.frames.dial import open_stream
from kvstore.frames.incoming import StreamEnded
from kvstore.frames.stream import FrameStream
from kvstore.frames.turn_ends import TurnEnds
from kvstore.gossip import GossipSettings
from kvstore.local.ports import free_ports
from kvstore.node.settings import NodeSettings
from kvstore.protocol.gossip import Ack, Status, Update
from kvstore.protocol.peer import ReadReply, ReplicaWrite
from kvstore.protocol.sizes import size_of
from kvstore.protocol.table import PeerMessage
from kvstore.ring import ClusterState, Member, initial_state, parse_members
from kvstore.server import peer_service
from kvstore.server.configuration import Configuration
from kvstore.server.handshake import Refused, check_caller, check_welcome, introduction, welcome
from kvstore.server.links import Links
from kvstore.server.listener import Listener, metadata_of
from kvstore.server.stream import BULK, LINK, Stream
from kvstore.v1.peer_pb2 import Welcome
from kvstore.v1.stream_pb2 import Open
from kvstore.versions import NO_VERSION, EncodedVersion, InternalKey
from kvstore.wire.queue import Batches
from tests.patience import PATIENCE
from tests.resolver import Resolver
from tests.unit.server_nodes import cluster_state, peer_stream, run, serving, settings

STATE = cluster_state([1, 2, 3])
MIB = 1024 * 1024


def test_a_member_with_the_same_settings_is_welcome() -> None:
    assert check_caller(introduction("n2", STATE), "n1", cluster_state([1, 2, 3])) == ("n2", "")


def test_a_member_whose_address_or_limits_differ_is_welcome_and_the_difference_has_a_name() -> None:
    gossip = GossipSettings(probe_interval=2.5)
    theirs = Configuration(NodeSettings(limits=Limits(value=2000), gossip=gossip))
    caller = check_caller(introduction("n2", cluster_state([1, 2, 4]), theirs), "n1", STATE)
    assert caller.node == "n2"
    assert caller.differences == (
        "gossip probe-interval: '2.5' there, 'not set' here; "
        "max-value: '2000' there, '1048576' here; "
        "member n3: '127.0.0.1:4' there, '127.0.0.1:3' here"
    )


def test_a_node_of_before_addresses_could_change_is_welcome_with_the_same_ones_only() -> None:
    old = {"kvstore-shape", "kvstore-configuration-bin"}
    of = {ports: introduction("n2", cluster_state(ports)) for ports in ((1, 2, 3), (1, 2, 4))}
    before = {ports: [(name, text) for name, text in given if name not in old] for ports, given in of.items()}
    assert check_caller(before[1, 2, 3], "n1", STATE) == ("n2", "")
    with pytest.raises(Refused, match="other members"):
        check_caller(before[1, 2, 4], "n1", STATE)


def test_a_node_that_was_given_other_hosts_is_refused_and_the_difference_has_a_name() -> None:
    theirs = cluster_state([1, 2, 3], STATE.cluster_id, hosts=["m1", "m2", "m3"])
    with pytest.raises(
        Refused, match=r"other members.*member n1: '127.0.0.1:1//m1' there, '127.0.0.1:1' here"
    ):
        check_caller(introduction("n2", theirs), "n1", STATE)


@pytest.mark.parametrize("sent", [b"", b"\xff", b"[1]", b'{"a": 1}', b"[" * 100_000])
def test_a_configuration_that_cannot_be_read_differs_in_nothing_known(sent: bytes) -> None:
    given = dict(introduction("n2", STATE)) | {"kvstore-configuration-bin": sent}
    assert check_caller(given.items(), "n1", STATE) == ("n2", "")


def test_a_configuration_that_is_too_large_for_metadata_is_not_sent() -> None:
    many = [BucketSettings(f"bucket-{i}", 2, 1, 1) for i in range(200)]
    assert dict(introduction("n2", cluster_state([1, 2], buckets=many)))["kvstore-configuration-bin"] == b""


@pytest.mark.parametrize(
    ("node", "state", "reason"),
    [
        ("n2", cluster_state([1, 2, 3], cluster_id="other"), "is of cluster 'other'"),
        ("n9", STATE, "'n9' is no member"),
        ("n1", STATE, "'n1' is this one"),
        ("", STATE, "'' is no member"),
        ("n2", cluster_state([1, 2, 3], STATE.cluster_id, partitions=16), "partitions: '16' there, '8' here"),
        (
            "n2",
            cluster_state([1, 2, 3], STATE.cluster_id, buckets=[BucketSettings("b")]),
            "or buckets: bucket b",
        ),
        (
            "n2",
            cluster_state([1, 2, 3, 4], STATE.cluster_id),
            "member n4: '127.0.0.1:4' there, 'not set' here",
        ),
    ],
)
def test_a_stranger_is_refused(node: str, state: ClusterState, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        check_caller(introduction(node, state), "n1", STATE)


def test_a_caller_that_does_not_introduce_itself_is_refused() -> None:
    with pytest.raises(Refused):
        check_caller((), "n1", STATE)


def test_another_node_at_a_peers_address_is_noticed() -> None:
    check_welcome(welcome("n2", STATE), "n2")
    with pytest.raises(Refused, match="at the address of node 'n2' answers node 'n3'"):
        check_welcome(welcome("n3", STATE), "n2")
    with pytest.raises(Refused, match="something that is no node"):
        check_welcome(b"\xff", "n2")


def write(size: int) -> ReplicaWrite:
    return ReplicaWrite(1, 1, InternalKey(b"k"), EncodedVersion(b"v" * size))


def test_frames_are_split_at_their_limit_and_lose_nothing() -> None:
    messages: list[PeerMessage] = [write(size) for size in (10, 3 * MIB, 2 * MIB, 9 * MIB, 10, 10)]
    queue: Batches[PeerMessage] = Batches()
    for message in messages:
        queue.add(message, size_of(message))
    assert queue.bytes == sum(map(size_of, messages))
    batches = [queue.take() for _ in range(len(queue))]
    assert [message for batch in batches for message in batch] == messages
    assert [len(batch) for batch in batches] == [2, 1, 1, 2]
    assert all(len(batch) == 1 or sum(map(size_of, batch)) <= 4 * MIB for batch in batches)
    assert (len(queue), queue.bytes) == (0, 0)


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (a stream has no event for it)
            await asyncio.sleep(0.005)


def link(peer: str, port: int, me: str, state: ClusterState) -> tuple[Stream, list[str]]:
    lost: list[str] = []
    member = Member(peer, f"127.0.0.1:{port}")

    def unsent(node: str, numbers: Sequence[int]) -> None:
        lost.extend(f"{node}:{number}" for number in numbers)

    def opened(_node: str) -> None:
        pass

    return Stream(
        LINK, member, lambda: introduction(me, state), opened, lost.append, unsent, TurnEnds()
    ), lost


def test_what_cannot_be_sent_is_dropped_counted_and_told() -> None:
    async def scenario() -> None:
        stream, lost = link("n2", 1, "n1", STATE)
        stream.send(Ack(1, (Update("n1", Status.ALIVE, 1),)), 64)
        await asyncio.sleep(0)
        assert (stream.queue.dropped, lost) == (1, [])  # probes find out by themselves
        stream.send(ReadReply(7, NO_VERSION), 64)  # nobody here waits for an answer to it
        for number in range(3):
            stream.send(ReplicaWrite(number, 1, InternalKey(b"k"), EncodedVersion(b"v")), 64)
        assert lost == []  # never while the node is still in the middle of something
        await asyncio.sleep(0)
        assert (stream.queue.dropped, lost) == (5, ["n2:0", "n2:1", "n2:2"])

    run(scenario())


def test_a_stream_comes_back_after_its_peer(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = free_ports(2)
        state = cluster_state(ports)
        node = settings("n2", ports[1], tmp_path, state)
        stream, lost = link("n2", ports[1], "n1", state)
        running = asyncio.create_task(stream.run())
        async with serving(node) as (server,):
            await until(lambda: stream.connected)
            for number in range(100):
                stream.send(ReadReply(number, NO_VERSION), 64)
            await until(lambda: server.driver.messages_received == 100)
            assert server.driver.frames_received == 1
            assert lost == []
        await until(lambda: not stream.connected)
        await until(lambda: lost == ["n2"])
        async with serving(node) as (server,):
            await until(lambda: stream.connected)
            stream.send(ReadReply(1, NO_VERSION), 64)
            await until(lambda: server.driver.messages_received == 1)
        running.cancel()
        await asyncio.wait([running])

    run(scenario())


def test_a_stream_that_is_opened_again_introduces_its_node_with_the_state_of_now() -> None:
    """With that of when the peer became a member, nobody noticed two states of the same epoch."""
    epochs: set[str | bytes] = set()

    async def receive(stream: FrameStream, opened: Open) -> None:
        epochs.add(dict(metadata_of(opened))["kvstore-epoch"])
        await stream.write(Welcome(node="n2").SerializeToString())

    async def scenario() -> None:
        ports = free_ports(2)
        state = cluster_state(ports)
        peer = Listener(dict.fromkeys((LINK, BULK), receive))
        await peer.start(socket.create_server(("127.0.0.1", ports[1])), grpc_port=1)
        links = Links("n1", state)
        links.open(lambda _: None, lambda _: None, lambda _node, _numbers: None, TurnEnds())
        await until(lambda: epochs == {"1"})
        links.on_state(replace(state, epoch=2))
        await until(lambda: "2" in epochs)
        await links.close()
        await peer.stop(1.0)
        peer.close()

    run(scenario())


def test_a_link_passes_other_nodes_over_and_follows_its_peers_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch)
    calls: list[str] = []
    (port,) = free_ports(1)

    def node(name: str, host: str) -> Callable[[FrameStream, Open], Awaitable[None]]:
        async def receive(stream: FrameStream, _: Open) -> None:
            await stream.write(Welcome(node=name).SerializeToString())
            calls.append(host)
            await stream.read()

        return receive

    async def scenario() -> None:
        listeners = {}
        for host, name in (("127.0.0.2", "n3"), ("127.0.0.3", "n2"), ("127.0.0.4", "n2")):
            listeners[host] = Listener(dict.fromkeys((LINK, BULK), node(name, host)))
            await listeners[host].start(socket.create_server((host, port)), grpc_port=1)
        state = initial_state("c", parse_members(f"n1=127.0.0.1:1,n2=db.test:{port}"), 8, 2)
        resolver.names["db.test"] = ["127.0.0.2", "127.0.0.3"]
        links = Links("n1", state)
        links.open(lambda _: None, lambda _: None, lambda _node, _numbers: None, TurnEnds())
        await until(lambda: links.connected("n2") and calls.count("127.0.0.3") == 2)
        resolver.names["db.test"] = ["127.0.0.2", "127.0.0.4"]
        await listeners["127.0.0.3"].stop(0.0)
        await until(lambda: links.connected("n2") and calls.count("127.0.0.4") == 2)
        await links.close()
        for listener in listeners.values():
            await listener.stop(0.0)
            listener.close()

    run(scenario())


def test_a_stranger_is_told_why_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)

    async def scenario() -> None:
        node = settings("n1", port, tmp_path, cluster_state([port], cluster_id="ours"))
        stream, _ = link("n1", port, "n2", cluster_state([port, 1], cluster_id="theirs"))
        async with serving(node):
            running = asyncio.create_task(stream.run())
            await until(lambda: sum("'theirs'" in record.getMessage() for record in caplog.records) >= 2)
            await asyncio.sleep(0.3)  # several attempts
            assert not stream.connected
            running.cancel()
            await asyncio.wait([running])

    with caplog.at_level(logging.WARNING, "kvstore"):
        run(scenario())
    text = "node 'n2' is of cluster 'theirs', this one of cluster 'ours'"
    messages = [record.getMessage() for record in caplog.records]
    # a node of another test's cluster may look for its dead peer at what is this port now
    assert [message for message in messages if "'theirs'" in message] == [
        f"refused a stream: {text}",
        f"not connected to node n1 at 127.0.0.1:{port}: {text}",
    ]


def test_strangers_who_make_up_names_fill_neither_memory_nor_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """2,600 of 60 KB together took 61 MB; after a thousand of any length nobody had a line any more."""
    monkeypatch.setattr(peer_service, "_MOST_TOLD", 3)

    async def scenario() -> None:
        (port,) = free_ports(1)
        async with serving(settings("n1", port, tmp_path, cluster_state([port], cluster_id="ours"))):
            for number in (*range(5), 0):
                name = f"{number}-" + "x" * 30_000
                metadata = [("kvstore-node", name), ("kvstore-cluster", name)]
                stream = await open_stream(f"127.0.0.1:{port}", LINK, 1 << 20, metadata=metadata)
                with pytest.raises(StreamEnded, match="this one of cluster 'ours'") as ended:
                    await stream.read()
                assert len(str(ended.value)) < 300
                await stream.leave()

    with caplog.at_level(logging.WARNING, "kvstore"):
        run(scenario())
    lines = [record.getMessage() for record in caplog.records if "-xxx" in record.getMessage()]
    assert [line[len("refused a stream: node '")] for line in lines] == ["0", "1", "2", "3", "4", "0"]
    assert all(len(line) < 300 for line in lines)


def test_a_bad_frame_ends_the_stream_and_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        ports = free_ports(2)
        state = cluster_state(ports)
        async with serving(settings("n2", ports[1], tmp_path, state)):
            stream = await peer_stream("n1", ports[1], state)
            await stream.write(b"\xff\xff")
            with pytest.raises(StreamEnded, match="frame") as ended:
                await stream.read()
            assert ended.value.status.code == code_pb2.INVALID_ARGUMENT
            stream.break_off()

    run(scenario())
    assert "node 'n1' sent a frame that is wrong" in caplog.text
