"""What comes at once has a bound near the largest value; what is larger comes in parts, and is counted."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from kvstore.config import FRAME_BYTES, MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, MIB, Limits
from kvstore.errors import InvalidRequest, Overloaded
from kvstore.frames.incoming import StreamEnded, StreamLost
from kvstore.local.ports import free_ports
from kvstore.node.settings import NodeSettings
from kvstore.protocol.peer import ReplicaWrite
from kvstore.server import frame_parts
from kvstore.server.frame_parts import FrameParts, PartsRoom
from kvstore.server.server import NodeServer
from kvstore.v1 import client_pb2 as pb
from kvstore.v1.peer_pb2 import FramePart
from kvstore.versions import EncodedVersion, InternalKey
from kvstore.wire.parts import parts_of
from kvstore.wire.peer import encode_frame
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

ABSURD = bytes(MAX_REQUEST_BYTES + 1)


def part(data: bytes, left: int) -> bytes:
    return FramePart(part=data, left=left).SerializeToString()


def frame_of(size: int) -> bytes:
    return encode_frame([ReplicaWrite(1, 1, InternalKey(b"key"), EncodedVersion(bytes(size)))])


@pytest.mark.parametrize("size", [0, 1000, MAX_REQUEST_BYTES, MAX_REQUEST_BYTES + 1, 5 * FRAME_BYTES])
def test_a_frame_comes_whole_or_in_parts_and_is_the_same(size: int) -> None:
    frame, room = frame_of(size), PartsRoom()
    sent = list(parts_of(frame))
    assert (len(sent) == 1) == (len(frame) <= MAX_REQUEST_BYTES)
    assert max(map(len, sent)) <= MAX_REQUEST_BYTES

    async def scenario() -> None:
        parts = FrameParts(room)
        for _ in range(2):
            assert all(parts.concern(each) for each in sent) == (len(sent) > 1)
            if len(sent) > 1:
                assert [await parts.add(each) for each in sent] == [b""] * (len(sent) - 1) + [frame]
            assert room.bytes == 0

    run(scenario())


@pytest.mark.parametrize(
    "wrong",
    [
        [part(b"a", 2), part(b"b", 2)],
        [part(b"a", 2), part(b"b", 0)],
        [part(b"a", 1), frame_of(10)],
        [part(b"a", 2), part(b"", 1)],
        [part(b"a", 1)[:-2]],
        [part(b"a", 64)],
    ],
    ids=["repeated", "left out", "a frame between", "empty", "cut off", "too many"],
)
def test_parts_that_do_not_follow_are_refused(wrong: Sequence[bytes]) -> None:
    async def scenario() -> None:
        parts = FrameParts(PartsRoom())
        for each in wrong[:-1]:
            assert await parts.add(each) == b""
        with pytest.raises(InvalidRequest):
            await parts.add(wrong[-1])
        parts.drop()

    run(scenario())


def files(directory: Path) -> list[str]:
    """Open files of this process in a directory; one without a name has that of its directory in its path."""
    opened = (os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink())
    return [each for each in opened if each.startswith(str(directory))]


def test_unfinished_frames_have_a_bound_for_all_streams_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_parts, "_MOST_BYTES", 2 * MIB)

    async def scenario() -> None:
        room, data = PartsRoom(tmp_path), part(bytes(MIB), 2)
        first, second = FrameParts(room), FrameParts(room)
        assert await first.add(data) == await second.add(data) == b""
        assert len(files(tmp_path)) == 2
        assert os.listdir(tmp_path) == [], "they have no names"
        with pytest.raises(Overloaded):
            await second.add(part(b"b", 1))
        second.drop()
        assert await first.add(part(b"b", 1)) == b""
        first.drop()
        assert room.bytes == 0
        await asyncio.sleep(0)
        assert files(tmp_path) == []

    run(scenario())


def test_a_frame_that_is_not_completed_makes_room_for_others_and_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_parts, "_MOST_BYTES", 2 * MIB)
    monkeypatch.setattr(frame_parts, "_STALE", 0.0)

    async def scenario(stack: ExitStack) -> None:
        room, data = PartsRoom(tmp_path), part(bytes(MIB), 2)
        first, second, third = (FrameParts(room) for _ in range(3))
        for each in (first, second, third):
            stack.callback(each.drop)
        for each in (first, second, third):
            assert await each.add(data) == b""
        assert room.bytes == 2 * MIB
        with pytest.raises(Overloaded):
            await first.add(part(b"b", 1))
        monkeypatch.setattr(frame_parts, "_LONGEST", 0.0)
        second.drop()
        assert await second.add(data) == b""
        async with asyncio.timeout(PATIENCE):
            while room.bytes > MIB:  # noqa: ASYNC110  (it sets no event)
                await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await second.add(part(b"b", 1))
        third.drop()
        assert room.bytes == 0
        assert room.unfinished == {}

    async def closing() -> None:
        with ExitStack() as stack:
            await scenario(stack)

    run(closing())


def test_parts_for_which_the_disk_has_no_room_are_refused_with_a_type(tmp_path: Path) -> None:
    async def scenario() -> None:
        parts = FrameParts(PartsRoom(tmp_path / "is not there"))
        with pytest.raises(Overloaded):
            await parts.add(part(b"a", 1))
        parts.drop()

    run(scenario())


def of_values_up_to(most: int, node: Any) -> Any:
    return replace(node, node_settings=NodeSettings(limits=Limits(value=most)))


def test_a_key_with_more_siblings_than_come_at_once_is_replicated_and_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = free_ports(2)
        state = cluster_state(ports)
        nodes = [
            of_values_up_to(Limits.MAX_VALUE, settings(f"n{i}", port, tmp_path, state))
            for i, port in enumerate(ports, 1)
        ]
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        async with (
            serving(*nodes) as servers,
            grpc.aio.insecure_channel(f"127.0.0.1:{ports[0]}", options=options) as one,
            grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}", options=options) as other,
        ):
            await connected(servers)
            for i in range(3):
                value = b"%d" % i * Limits.MAX_VALUE
                put = pb.PutRequest(bucket="b", key=b"k", value=value, w=2, timeout_ms=50_000)
                await call(one, "Put", put, pb.WriteResponse)
            for opened in (one, other):
                got = await call(
                    opened, "Get", pb.GetRequest(bucket="b", key=b"k", r=2, timeout_ms=50_000), pb.GetResponse
                )
                assert [len(sibling.value) for sibling in got.siblings] == [Limits.MAX_VALUE] * 3

    run(scenario())


async def connected(servers: Sequence[NodeServer]) -> None:
    links = [(server.driver._links, member) for server, member in zip(servers, ("n2", "n1"), strict=True)]
    async with asyncio.timeout(PATIENCE):
        while not all(link.connected(member) for link, member in links):  # noqa: ASYNC110  (they set no event)
            await asyncio.sleep(0.02)


def test_who_sends_more_at_once_is_refused_and_the_log_stays_quiet(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        ports = free_ports(2)
        state = cluster_state(ports)
        async with (
            serving(settings("n1", ports[0], tmp_path, state)) as (server,),
            channel(ports[0]) as opened,
            channel(ports[0]) as another,
        ):
            session = SessionClient(another)
            await session.stream.write(pb.SessionRequest(calls=[pb.Call(id=1)]).SerializeToString())
            await session.results(1)
            link = await peer_stream("n2", ports[0], state)
            await session.stream.write(ABSURD)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await session.stream.read()
            assert_too_large(caught.value)
            with suppress(StreamLost):  # reading tells why
                await link.write(ABSURD)
            with pytest.raises(StreamEnded, match=str(MAX_REQUEST_BYTES)) as ended:
                await link.read()
            assert ended.value.status.code == code_pb2.RESOURCE_EXHAUSTED
            link.break_off()
            put = pb.PutRequest(bucket="b", key=b"k", value=ABSURD)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(opened, "Put", put, pb.WriteResponse)
            assert_too_large(caught.value)
            assert server.driver.status().counters.defects == 0

    run(scenario())
    assert [record for record in caplog.records if record.levelno > logging.WARNING or record.exc_info] == []


def assert_too_large(error: grpc.aio.AioRpcError) -> None:
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_REQUEST_BYTES) in (error.details() or ""), "the limit is in the message"


def test_parts_of_a_peer_beyond_the_room_end_its_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = free_ports(2)
        state = cluster_state(ports)
        async with serving(settings("n1", ports[0], tmp_path, state)) as (server,):
            server.peers.parts.bytes = 2 * MAX_MESSAGE_BYTES - MIB
            link = await peer_stream("n2", ports[0], state)
            await link.write(part(bytes(2 * MIB), 5))
            with pytest.raises(StreamEnded) as ended:
                async with asyncio.timeout(PATIENCE):
                    await link.read()
            assert ended.value.status.code == code_pb2.RESOURCE_EXHAUSTED
            link.break_off()
            assert server.peers.parts.bytes == 2 * MAX_MESSAGE_BYTES - MIB

    run(scenario())
