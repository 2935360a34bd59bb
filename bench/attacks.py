"""What `make bench-hostile` does to a node: each attack takes a few seconds and tells how it was answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import code_pb2

from kvstore.client.unary import fetch_state
from kvstore.config import MAX_REQUEST_BYTES, MIB
from kvstore.frames.dial import open_stream
from kvstore.frames.incoming import StreamEnded, StreamLost
from kvstore.frames.stream import FrameStream
from kvstore.ring import ClusterState, data_key, token
from kvstore.server.handshake import introduction
from kvstore.server.stream import LINK
from kvstore.v1 import client_pb2 as pb
from kvstore.v1 import peer_pb2
from kvstore.versions import BucketName, UserKey
from kvstore.wire.parts import parts_of
from tests.hostile.raw_http2 import RawConnection

BUCKET = "hostile"
LARGE_KEY, SIBLINGS_KEY = b"large", b"siblings"
_PATIENCE = 5.0
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
]


@dataclass(slots=True)
class Target:
    """The node that is attacked, until when, and what it has answered."""

    address: str
    state: ClusterState
    node: str
    end: float
    answers: Counter[str]

    @property
    def over(self) -> bool:
        """Whether the attack is over."""
        return asyncio.get_running_loop().time() >= self.end

    def channel(self) -> grpc.aio.Channel:
        """Another connection."""
        return grpc.aio.insecure_channel(self.address, options=_OPTIONS)

    def count(self, reply: Any) -> None:
        """How one request was answered."""
        self.answers[reply.code().name if isinstance(reply, grpc.aio.AioRpcError) else "answered"] += 1

    async def exchange(self, stream: Any, frame: bytes) -> bool:
        """Send a frame on a stream and wait a little for what comes; whether the stream goes on."""
        try:
            await stream.write(frame)
            async with asyncio.timeout(_PATIENCE):
                reply = await stream.read()
        except TimeoutError:
            self.answers["silence"] += 1
            return True
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            self.count(error)
            return False
        self.count(reply)
        return reply is not grpc.aio.EOF

    async def session_frames(self, frame: bytes) -> None:
        """The same frame on one Session after the other."""
        while not self.over:
            stream = session(self.channel())
            while await self.exchange(stream, frame) and not self.over:
                pass

    async def link(self) -> FrameStream:
        """A stream as another member has it."""
        other = next(member.node for member in self.state.members if member.node != self.node)
        stream = await open_stream(
            self.address, LINK, MAX_REQUEST_BYTES, metadata=introduction(other, self.state)
        )
        await stream.read()
        return stream

    async def peer_frames(self, frames: Iterable[bytes]) -> None:
        """Frames on one link after the other; they have no answer, but that the link ends."""
        frames = list(frames)
        while not self.over:
            stream = await self.link()
            try:
                while not self.over:
                    for frame in frames:
                        await stream.write(frame)
                    self.answers["taken"] += 1
                    await asyncio.sleep(0.001)
            except StreamLost:
                self.answers[await _end_of(stream)] += 1
            finally:
                stream.break_off()

    async def unary(self, method: str, request: Any, at_once: int) -> None:
        """Calls, so many at a time."""
        call: Any = self.channel().unary_unary(f"/kvstore.v1.KV/{method}")
        data = request.SerializeToString()
        while not self.over:
            calls = [call(data, timeout=_PATIENCE) for _ in range(at_once)]
            for reply in await asyncio.gather(*calls, return_exceptions=True):
                self.count(reply)


async def _end_of(stream: FrameStream) -> str:
    """How a stream has ended that can be written no more."""
    try:
        await stream.read()
    except StreamEnded as error:
        return str(code_pb2.Code.Name(error.status.code))
    except StreamLost:
        pass
    return "lost"


def session(channel: grpc.aio.Channel) -> Any:
    """A new Session."""
    stub: Any = channel.stream_stream("/kvstore.v1.KV/Session")
    return stub()


Attack = Callable[[Target], Awaitable[None]]
ATTACKS: dict[str, Attack] = {}


def attack(name: str) -> Callable[[Attack], Attack]:
    """Put an attack into the table."""

    def add(function: Attack) -> Attack:
        ATTACKS[name] = function
        return function

    return add


def _puts(count: int, key: bytes) -> bytes:
    zeros, empty = [0] * count, [b""] * count
    columns = pb.PlainPuts(ids=range(count), epochs=zeros, timeouts_ms=zeros, buckets=[BUCKET] * count)
    columns.keys.extend([key] * count)
    columns.values.extend(empty)
    columns.contexts.extend(empty)
    return pb.SessionRequest(plain_puts=columns).SerializeToString()


@attack("1,000,000 empty calls in 2 MB")
async def _empty_calls(target: Target) -> None:
    await target.session_frames(b"\x0a\x00" * 1_000_000)


@attack("600,000 puts of one key in 15 MB")
async def _puts_of_one_key(target: Target) -> None:
    await target.session_frames(_puts(600_000, b"many"))


@attack("8,192 puts of one key, again and again")
async def _allowed_puts(target: Target) -> None:
    await target.session_frames(_puts(8192, b"allowed"))


@attack("4 MB of empty pings")
async def _empty_pings(target: Target) -> None:
    await target.peer_frames([b"\x4a\x00" * 2_000_000])


@attack("1,024 pings, again and again")
async def _allowed_pings(target: Target) -> None:
    await target.peer_frames([peer_pb2.Frame(pings=[peer_pb2.Ping()] * 1024).SerializeToString()])


@attack("8,192 reads in a frame, again and again")
async def _allowed_reads(target: Target) -> None:
    read = peer_pb2.ReplicaRead(epoch=target.state.epoch, key=_internal_key(), digest=bytes(16))
    await target.peer_frames([peer_pb2.Frame(reads=[read] * 8192).SerializeToString()])


def _internal_key() -> bytes:
    bucket, key = BucketName(BUCKET), UserKey(b"small")
    return data_key(token(bucket, key), bucket, key)


@attack("four messages of 200 MiB")
async def _large_messages(target: Target) -> None:
    put = pb.PutRequest(bucket=BUCKET, key=b"k", value=bytes(200 * MIB))
    frame = pb.SessionRequest(calls=[pb.Call(id=1, put=put)]).SerializeToString()
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(target.session_frames(frame))
            group.create_task(target.unary("Put", put, 1))


@attack("four puts of 16 MiB at a time")
async def _largest_values(target: Target) -> None:
    put = pb.PutRequest(bucket=BUCKET, key=b"k", value=bytes(16 * MIB))
    await target.unary("Put", put, 4)


@attack("200 MiB in parts, by two peers, never complete")
async def _parts(target: Target) -> None:
    parts = list(parts_of(bytes(200 * MIB)))[:-1]
    streams = [await target.link() for _ in range(2)]
    await asyncio.gather(*(_write(target, stream, parts) for stream in streams))
    await asyncio.sleep(max(0.0, target.end - asyncio.get_running_loop().time()))


async def _write(target: Target, stream: FrameStream, frames: Iterable[bytes]) -> None:
    try:
        for frame in frames:
            await stream.write(frame)
        target.answers["taken"] += 1
    except StreamLost:
        target.answers[await _end_of(stream)] += 1


@attack("2,048 unary gets of 1 MiB, never read")
async def _unread_gets(target: Target) -> None:
    port = int(target.address.rpartition(":")[2])
    connections = [await RawConnection.open(port) for _ in range(4)]
    request = pb.GetRequest(bucket=BUCKET, key=LARGE_KEY).SerializeToString()
    for _ in range(512):
        for connection in connections:
            await connection.call("/kvstore.v1.KV/Get", request)
    await asyncio.sleep(max(0.0, target.end - asyncio.get_running_loop().time()))
    for connection in connections:
        connection.read_all()
    await asyncio.sleep(1.0)
    for connection in connections:
        target.answers["refused"] += len(connection.ended - set(connection.bytes))
        target.answers["answered when read"] += len(connection.bytes)
        await connection.close()


@attack("40 sessions that are not read, 4,096 gets of 1 MiB each")
async def _slow_readers(target: Target) -> None:
    call = pb.GetRequest(bucket=BUCKET, key=LARGE_KEY, timeout_ms=60_000)
    frame = pb.SessionRequest(calls=[pb.Call(id=i, get=call) for i in range(4096)]).SerializeToString()
    for _ in range(40):
        await session(target.channel()).write(frame)
        target.answers["taken"] += 1
    await asyncio.sleep(max(0.0, target.end - asyncio.get_running_loop().time()))


@attack("30 scans of a bucket that is not there")
async def _scans(target: Target) -> None:
    scan: Any = target.channel().unary_unary(
        "/kvstore.v1.KV/Scan",
        request_serializer=pb.ScanRequest.SerializeToString,
        response_deserializer=pb.ScanResponse.FromString,
    )

    async def scans() -> None:
        while not target.over:
            request = pb.ScanRequest(bucket="absent")
            more = True
            while more and not target.over:
                try:
                    reply = await scan(request, timeout=_PATIENCE)
                except grpc.aio.AioRpcError as error:
                    target.count(error)
                    break
                target.count(reply)
                request.cursor = reply.next
                more = bool(reply.next)

    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(scans())


@attack("gets of a key with 22 siblings of 1 MiB, 8 at a time")
async def _many_siblings(target: Target) -> None:
    await target.unary("Get", pb.GetRequest(bucket=BUCKET, key=SIBLINGS_KEY), 8)


@attack("2,000 connections, 4 of them with 512 sessions")
async def _connections(target: Target) -> None:
    host, _, port = target.address.rpartition(":")
    opened = []
    try:
        for _ in range(2000):
            opened.append(await asyncio.open_connection(host, int(port)))  # noqa: PERF401  (until it fails)
    except OSError as error:
        target.answers[type(error).__name__] += 1
    frame = pb.SessionRequest(calls=[pb.Call(id=1)]).SerializeToString()
    for _ in range(4):
        channel = target.channel()
        streams = [session(channel) for _ in range(512)]
        await asyncio.gather(*(target.exchange(stream, frame) for stream in streams))
    await asyncio.sleep(max(0.0, target.end - asyncio.get_running_loop().time()))
    for _, writer in opened:
        writer.close()


async def carry_out(name: str, address: str, node: str, seconds: float) -> dict[str, int]:
    """One attack on the node at an address; how often it was answered how."""
    state = await fetch_state(address, _PATIENCE)
    target = Target(address, state, node, asyncio.get_running_loop().time() + seconds, Counter())
    await ATTACKS[name](target)
    return dict(target.answers)
