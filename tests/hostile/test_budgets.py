"""Small frames that mean much work: refused as a whole, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from kvstore.config import KIB, MIB, Limits
from kvstore.errors import InvalidRequest
from kvstore.frames.dial import open_stream
from kvstore.frames.incoming import StreamEnded
from kvstore.frames.stream import FrameStream
from kvstore.local.ports import free_ports
from kvstore.protocol.client import Put
from kvstore.protocol.gossip import Ack
from kvstore.protocol.peer import ReplicaWrite
from kvstore.protocol.table import PeerMessage
from kvstore.ring import data_key, token
from kvstore.server import options
from kvstore.v1 import client_pb2 as pb
from kvstore.v1 import peer_pb2
from kvstore.versions import BucketName, Dot, EncodedVersion, InternalKey, UserKey
from kvstore.wire.budget import CALLS_OF_A_SESSION, FrameBudget
from kvstore.wire.queue import LIMITS, Batches, PeerQueue
from tests.collector import no_collector
from tests.hostile.raw_http2 import RawConnection
from tests.patience import PATIENCE
from tests.unit.server_nodes import (
    SessionClient,
    call,
    channel,
    cluster_state,
    peer_stream,
    run,
    serving,
    settings,
)

EMPTY = {
    "calls": b"\x0a\x00" * 1_000_000,
    "calls_of_a_short_frame": b"\x0a\x00" * 8193,
    "puts_of_one_key": pb.SessionRequest(
        plain_puts=pb.PlainPuts(
            ids=range(200_000),
            epochs=[0] * 200_000,
            timeouts_ms=[0] * 200_000,
            buckets=["b"] * 200_000,
            keys=[b"k"] * 200_000,
            values=[b""] * 200_000,
            contexts=[b""] * 200_000,
        )
    ).SerializeToString(),
    "columns": b"\x12\x80\x89\x7a" + b"\x2a\x00" * 1_000_000,
}
SIBLINGS = b"\x12\x80\x89\x7a" + b"\x0a\x00" * 1_000_000
PEER_FRAMES = {
    "pings": peer_pb2.Frame(pings=[peer_pb2.Ping()] * 1025).SerializeToString(),
    "pings_of_a_long_frame": b"\x4a\x00" * 2_000_000,
    "forwards": b"\x3a\x00" * 100_000,
    "reads_of_a_short_frame": b"\x1a\x00" * 8193,
    "siblings_in_a_reply": b"\x42\x84\x89\x7a" + SIBLINGS,
    "members_in_a_ping": peer_pb2.Frame(
        pings=[peer_pb2.Ping(updates=[peer_pb2.MemberUpdate()] * 65_537)]
    ).SerializeToString(),
    "acks": peer_pb2.Frame(write_acks=range(500_000)).SerializeToString(),
}


async def ends_typed(stream: Any, reason: str = "frame") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(PATIENCE):  # one that is not refused may have no answer at all
            await stream.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in (caught.value.details() or "")


async def stream_ends_typed(stream: FrameStream, reason: str = "frame") -> None:
    with pytest.raises(StreamEnded, match=reason) as ended:
        async with asyncio.timeout(PATIENCE):
            await stream.read()
    stream.break_off()
    assert ended.value.status.code == code_pb2.INVALID_ARGUMENT


@pytest.mark.parametrize("name", EMPTY)
def test_a_session_frame_of_too_many_items_is_refused_before_any_is_begun(tmp_path: Path, name: str) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        node = settings("n1", port, tmp_path, cluster_state([port]))
        async with serving(node) as (server,), channel(port) as opened:
            session = SessionClient(opened)
            await session.stream.write(EMPTY[name])
            await ends_typed(session.stream)
            assert server.clients.session_calls == 0
            got = await call(opened, "Get", pb.GetRequest(bucket="b", key=b"k"), pb.GetResponse)
            assert not got.context, "something was written"

    run(scenario())


@pytest.mark.parametrize("name", PEER_FRAMES)
def test_a_frame_of_a_peer_with_too_many_messages_is_refused(tmp_path: Path, name: str) -> None:
    async def scenario() -> None:
        ports = free_ports(2)
        state = cluster_state(ports)
        async with serving(settings("n1", ports[0], tmp_path, state)) as (server,):
            link = await peer_stream("n2", ports[0], state)
            await link.write(PEER_FRAMES[name])
            await stream_ends_typed(link)
            assert server.driver.frames_received == 0

    run(scenario())


def test_sessions_of_one_connection_have_a_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    get = [pb.Call(id=1, get=pb.GetRequest(bucket="b", key=b"k"))]

    async def scenario() -> None:
        (port,) = free_ports(1)
        node = settings("n1", port, tmp_path, cluster_state([port]))
        apart = [("grpc.use_local_subchannel_pool", 1)]
        async with (
            serving(node),
            channel(port) as opened,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=apart) as another,
        ):
            sessions = [SessionClient(opened) for _ in range(40)]
            results = await asyncio.gather(*(each.exchange(get) for each in sessions), return_exceptions=True)
            refused = [error for error in results if isinstance(error, grpc.aio.AioRpcError)]
            assert len(refused) == 8
            assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            await SessionClient(another).exchange(get)
            for each in sessions:
                each.stream.cancel()
            async with asyncio.timeout(PATIENCE):
                while isinstance(await again(SessionClient(opened)), grpc.aio.AioRpcError):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    async def again(session: SessionClient) -> object:
        (result,) = await asyncio.gather(session.exchange(get), return_exceptions=True)
        return result

    run(scenario())
    assert len([line for line in caplog.records if "sessions" in line.getMessage()]) == 1


def test_a_session_that_is_refused_while_its_client_writes_ends_with_its_status(tmp_path: Path) -> None:
    put = pb.PutRequest(bucket="b", key=b"k", value=bytes(100_000))
    frame = pb.SessionRequest(calls=[pb.Call(id=1, put=put)]).SerializeToString()

    async def write(session: SessionClient) -> grpc.StatusCode:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # its code says how it ended
            for _ in range(5):
                await session.stream.write(frame)
        code: grpc.StatusCode = await session.stream.code()
        return code

    async def scenario() -> None:
        (port,) = free_ports(1)
        node = settings("n1", port, tmp_path, cluster_state([port]))
        async with serving(node), channel(port) as opened:
            served = [SessionClient(opened) for _ in range(32)]
            await asyncio.gather(*(session.exchange([pb.Call(id=1)]) for session in served))
            refused = [write(SessionClient(opened)) for _ in range(100)]
            assert set(await asyncio.gather(*refused)) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            for session in served:
                session.stream.cancel()

    run(scenario())


def test_options_of_grpc_that_bound_what_others_may_take() -> None:
    given = dict(options.SERVER)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 0 < given.get("grpc.max_allowed_incoming_connections", 0) <= files // 2
    assert 0 < given.get("grpc.max_connection_idle_ms", 0) <= 600_000
    assert given.get("grpc.http2.bdp_probe") == 0
    assert given.get("grpc.http2.lookahead_bytes", MIB) <= MIB


@pytest.mark.parametrize("said", [b"", b"PRI * HT"], ids=["nothing at all", "nothing but how gRPC begins"])
def test_connections_that_say_nothing_end(said: bytes, tmp_path: Path) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        node = settings("n1", port, tmp_path, cluster_state([port]))
        async with serving(node), asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            await reader.read()  # perhaps the server's own settings, and then the end
            writer.close()

    run(scenario())


def test_nodes_send_no_more_messages_in_a_frame_than_half_of_what_is_taken() -> None:
    queue: Batches[int] = Batches()
    for number in range(10_000):
        queue.add(number, 0)
    assert [len(queue.take()) for _ in range(len(queue))] == [4096, 4096, 1808]


def test_a_connection_without_calls_ends_and_one_with_a_session_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {**dict(options.SERVER), "grpc.max_connection_idle_ms": 300}
    monkeypatch.setattr(options, "SERVER", list(short.items()))

    async def scenario() -> None:
        (port,) = free_ports(1)
        node = settings("n1", port, tmp_path, cluster_state([port]))
        async with serving(node), channel(port) as opened:
            session = SessionClient(opened)
            await session.exchange([pb.Call(id=1)])
            idle = await RawConnection.open(port)
            async with asyncio.timeout(PATIENCE):
                await idle.over.wait()
            await session.exchange([pb.Call(id=2)])
            await idle.close()

    run(scenario())


def test_gossip_to_a_node_that_does_not_read_goes_first_and_is_bounded_in_number() -> None:
    queue = PeerQueue(LIMITS)
    queue.open = True
    for number in (1, 2):
        assert queue.put(ReplicaWrite(number, 1, InternalKey(b"k"), EncodedVersion(b"v")), 3 * MIB)
    assert [queue.put(Ack(number, ()), 64) for number in range(1000)].count(True) == 256
    assert queue.dropped == 1000 - 256
    assert [len(queue.take()), queue.put(Ack(1, ()), 64), len(queue.take())] == [257, True, 2]


@pytest.mark.parametrize("what", ["reads", "answers to reads", "reads, one of them wrong"])
def test_a_long_frame_of_a_peer_is_checked_as_a_whole_and_handed_in_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    wrong = what == "reads, one of them wrong"

    async def scenario() -> None:
        ports = free_ports(2)
        state = cluster_state(ports)
        node = settings("n1", ports[0], tmp_path, state)
        bucket, user_key = BucketName("b"), UserKey(b"k")
        key = data_key(token(bucket, user_key), bucket, user_key)
        reads = [peer_pb2.ReplicaRead(epoch=state.epoch, key=key, digest=bytes(16)) for _ in range(2000)]
        if wrong:
            reads[-1].key = b"no key"
        frame = peer_pb2.Frame(reads=reads)
        if what == "answers to reads":
            frame = peer_pb2.Frame(read_sames=range(2000))
        async with serving(node) as (server,):
            handed_in: list[int] = []
            on_checked = server.driver.node.on_checked

            def seen(sender: str, messages: Sequence[PeerMessage], *rest: Any) -> None:
                handed_in.append(sum(len(getattr(message, "numbers", "1")) for message in messages))
                on_checked(sender, messages, *rest)

            monkeypatch.setattr(server.driver.node, "on_checked", seen)
            link = await peer_stream("n2", ports[0], state)
            await link.write(frame.SerializeToString())
            if wrong:
                await stream_ends_typed(link, "key")
                assert handed_in == []
            else:
                link.end()
                assert await link.read() is None
                link.break_off()
                assert handed_in == [512, 512, 512, 464]

    run(scenario())


def test_scans_take_bounded_steps_and_wait_for_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        state = cluster_state([port], partitions=1)
        async with serving(settings("n1", port, tmp_path, state)) as (server,), channel(port) as opened:
            session = SessionClient(opened)
            for first in range(0, 6000, 2000):
                await session.exchange(
                    [
                        pb.Call(
                            id=i, put=pb.PutRequest(bucket="b", key=b"%d" % i, value=b"v", timeout_ms=60_000)
                        )
                        for i in range(first, first + 2000)
                    ]
                )
            absent = pb.ScanRequest(bucket="absent")
            pages = 0
            while True:
                page = await call(opened, "Scan", absent, pb.ScanResponse)
                assert not page.keys
                pages += 1
                if not page.next:
                    break
                absent.cursor = page.next
            assert pages == 3, "6000 entries, 2000 a page"
            absent.cursor = b""
            async with server.clients.scans.turn:
                asked = [
                    asyncio.ensure_future(call(opened, "Scan", absent, pb.ScanResponse)) for _ in range(80)
                ]
                for _, ended in zip(range(16), asyncio.as_completed(asked, timeout=PATIENCE), strict=False):
                    with pytest.raises(grpc.aio.AioRpcError):
                        await ended
                got = await call(opened, "Get", pb.GetRequest(bucket="b", key=b"1"), pb.GetResponse)
                assert got.siblings, "others are served meanwhile"
            results = await asyncio.gather(*asked, return_exceptions=True)
            refused = [error for error in results if isinstance(error, grpc.aio.AioRpcError)]
            assert len(refused) == 16
            assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert server.driver.node.status(server.driver.now()).in_flight == 0

    run(scenario())


def held_by_the_server() -> list[str]:
    """Places in the node's code that hold large bytes, or a request, although they are left."""
    return [
        f"{frame.f_code.co_qualname}: {name}"
        for frame in gc.get_objects()
        if isinstance(frame, FrameType) and "/kvstore/" in frame.f_code.co_filename
        for name, value in frame.f_locals.items()
        if (isinstance(value, bytes) and len(value) > MIB) or isinstance(value, pb.PutRequest | Put)
    ]


def test_what_was_refused_does_not_wait_for_the_garbage_collector(tmp_path: Path) -> None:
    """A node collects seldom: 40 refused puts of 16 MiB were 2 GB."""

    async def scenario() -> None:
        ports = free_ports(2)
        state = cluster_state(ports)
        node = settings("n1", ports[0], tmp_path, state)
        async with serving(node), channel(ports[0]) as opened:
            put = pb.PutRequest(bucket="b", key=b"k", value=bytes(2 * MIB))
            with pytest.raises(grpc.aio.AioRpcError):
                await call(opened, "Put", put, pb.WriteResponse)
            for method, begins in (("Put", False), ("Session", True)):
                stream = await open_stream(f"127.0.0.1:{ports[0]}", f"kvstore.v1.KV/{method}", MIB)
                assert not begins or await stream.read()
                await stream.write(put.SerializeToString())
                await stream_ends_typed(stream, "value|frame")
            session = SessionClient(opened)
            await session.stream.write(bytes(2 * MIB))
            await ends_typed(session.stream)
            link = await peer_stream("n2", ports[0], state)
            await link.write(bytes(2 * MIB))
            await stream_ends_typed(link)
            assert held_by_the_server() == []

    with no_collector():
        run(scenario())


SESSION = FrameBudget(
    pb.SessionRequest.DESCRIPTOR, CALLS_OF_A_SESSION, {pb.SessionRequest.PLAIN_PUTS_FIELD_NUMBER}
)
LARGE = pb.SessionRequest(calls=[pb.Call(id=1, put=pb.PutRequest(value=bytes(16 * MIB)))]).SerializeToString()


@pytest.mark.parametrize("frame", [EMPTY["calls"], b"\x12\x80\xc8\xd0\x07" + b"\x2a\x00" * (8 * MIB)])
def test_a_long_frame_is_refused_without_being_parsed(frame: bytes) -> None:
    with pytest.raises(InvalidRequest, match="more than"):
        SESSION.check(frame)


@pytest.mark.parametrize("end", [b"\x0a", b"\x80", b"\x0b" * 9, b"\x08" + b"\xff" * 11])
def test_a_long_frame_that_is_none_is_refused(end: bytes) -> None:
    SESSION.check(LARGE)
    with pytest.raises(InvalidRequest):
        SESSION.check(LARGE + end)


def test_a_call_that_holds_too_large_a_value_is_refused_without_being_parsed(tmp_path: Path) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        node = settings("n1", port, tmp_path, cluster_state([port]))
        async with serving(node), channel(port) as opened:
            method: Any = opened.unary_unary("/kvstore.v1.KV/Put")
            # bytes that are no request: parsed, they would be refused for that
            with pytest.raises(
                grpc.aio.AioRpcError, match="value: is over its limit of 1000 bytes"
            ) as caught:
                await method(b"\xff" * (MIB + KIB), timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            longest = pb.PutRequest(
                bucket="b", key=b"k" * Limits.key, value=bytes(1000), context=bytes(16 * KIB)
            )
            with pytest.raises(grpc.aio.AioRpcError, match="context"):
                await call(opened, "Put", longest, pb.WriteResponse)

    run(scenario())


def test_what_was_read_can_be_deleted_by_a_call_however_long_the_history_of_the_key_is(
    tmp_path: Path,
) -> None:
    """A context has no bound of its own, and a node with small values must not take it for a large one."""

    async def scenario() -> None:
        (port,) = free_ports(1)
        node = settings("n1", port, tmp_path, cluster_state([port]))
        async with serving(node) as (server,), channel(port) as opened:
            bucket, user_key = BucketName("b"), UserKey(b"k")
            place = data_key(token(bucket, user_key), bucket, user_key)
            history = tuple(Dot(f"n1.gone.{number:06}", number + 1) for number in range(10_000))
            context = server.driver.node.base.context_keys.sign(history, place)
            assert len(context) > 100 * KIB
            delete = pb.DeleteRequest(bucket=bucket, key=user_key, context=context)
            await call(opened, "Delete", delete, pb.WriteResponse)

    run(scenario())
