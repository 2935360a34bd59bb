"""Three real servers on real disks, attacked through their ports, and what must hold of them afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.config import MAX_MESSAGE_BYTES
from kvstore.frames.dial import open_stream
from kvstore.frames.incoming import StreamEnded, StreamLost
from kvstore.frames.stream import FrameStream
from kvstore.local.ports import free_ports
from kvstore.lsm import Engine
from kvstore.ring import DATA_KEYSPACE
from kvstore.server.server import NodeServer
from kvstore.store import DiskFileSystem
from kvstore.v1 import client_pb2 as pb
from tests.patience import PATIENCE
from tests.unit.server_nodes import call, channel, cluster_state, peer_stream, serving, settings

CANARIES = {b"canary %d" % i: b"value %d" % i for i in range(30)}
_AT_A_TIME = 8
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_DEFECTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}


class LiveNodes:
    """A cluster in `directory`; it may be started more than once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports = free_ports(3)
        self.state = cluster_state(self._ports)
        self.names = [member.node for member in self.state.members]
        self.channels: list[grpc.aio.Channel] = []
        self._servers: list[NodeServer] = []
        self._sessions = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """While it serves."""
        nodes = zip(self.names, self._ports, strict=True)
        started = [settings(name, port, self._directory, self.state) for name, port in nodes]
        async with (
            serving(*started) as self._servers,
            channel(self._ports[0]) as a,
            channel(self._ports[1]) as b,
            channel(self._ports[2]) as c,
        ):
            self.channels = [a, b, c]
            await self.until(self._all_well)
            yield

    # attacks

    async def peer(self, attacked: int, frame: bytes) -> grpc.StatusCode:
        """Send a frame as another member does; how the stream has ended."""
        sender = self.names[attacked - 1]
        return await _ended(await peer_stream(sender, self._ports[attacked], self.state), frame)

    async def session(self, attacked: int, frame: bytes) -> grpc.StatusCode:
        """Send a frame of calls, as our client does and as others do in turn; how the session has ended."""
        self._sessions += 1
        if self._sessions % 2:
            return await _call_ended(self.channels[attacked].stream_stream("/kvstore.v1.KV/Session"), frame)
        address = f"127.0.0.1:{self._ports[attacked]}"
        stream = await open_stream(address, "kvstore.v1.KV/Session", MAX_MESSAGE_BYTES)
        await stream.read()
        return await _ended(stream, frame)

    async def unary(self, attacked: int, method: str, request: bytes) -> grpc.StatusCode:
        """Call a method; with which status."""
        stub: Any = self.channels[attacked].unary_unary(method)
        code: grpc.StatusCode = await stub(request, timeout=PATIENCE).code()
        return code

    # what must hold

    async def plant_canaries(self) -> None:
        for key, value in CANARIES.items():
            await call(
                self.channels[0],
                "Put",
                pb.PutRequest(bucket="b", key=key, value=value, w=3),
                pb.WriteResponse,
            )

    async def check(self) -> None:
        """All nodes serve, think each other alive, met no defect, and have all canaries."""
        await self.until(self._all_well)
        assert [server.driver.status().counters.defects for server in self._servers] == [0, 0, 0]
        for opened in self.channels:
            for key, value in CANARIES.items():
                got = await call(opened, "Get", pb.GetRequest(bucket="b", key=key, r=3), pb.GetResponse)
                assert [sibling.value for sibling in got.siblings] == [value]
            put = pb.PutRequest(bucket="b", key=b"after", value=b"v", w=3)
            await call(opened, "Put", put, pb.WriteResponse)

    async def repair(self) -> None:
        """Until each node has found all it holds equal to what the others have."""
        for server in self._servers:
            server.driver.node.repair_now(server.driver.now())
        await self.until(lambda: not any(s.driver.status().anti_entropy.wanted for s in self._servers))

    def on_disk(self) -> list[dict[bytes, bytes]]:
        """What the stopped nodes hold, as their disks say and not their trees."""
        found = []
        for name in self.names:
            engine = Engine.open(DiskFileSystem(), str(self._directory / name / "engine"))
            try:
                found.append(dict(engine.scan_prefix(DATA_KEYSPACE)))
            finally:
                engine.close()
        return found

    def _all_well(self) -> bool:
        """Each is connected to all others, and thinks them alive."""
        drivers = [server.driver for server in self._servers]
        members = [(driver, member) for driver in drivers for member in driver.status().members]
        return all(
            member.alive and (member.node == driver.node.name or driver._links.connected(member.node))
            for driver, member in members
        )

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(3 * PATIENCE):
            while not condition():  # noqa: ASYNC110  (the nodes' own states set no event)
                await asyncio.sleep(0.02)


async def _ended(stream: FrameStream, frame: bytes) -> grpc.StatusCode:
    try:
        async with asyncio.timeout(PATIENCE):
            with suppress(StreamLost):  # reading tells why
                await stream.write(frame)
                stream.end()
            while await stream.read() is not None:
                pass
    except StreamEnded as error:
        return _CODES[error.status.code]
    except StreamLost:
        return grpc.StatusCode.UNAVAILABLE
    finally:
        stream.break_off()
    return grpc.StatusCode.OK


async def _call_ended(method: Any, frame: bytes) -> grpc.StatusCode:
    """Likewise, of a call of gRPC."""
    call = method(timeout=PATIENCE)
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # its code says how it has ended
        await call.write(frame)
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
    code: grpc.StatusCode = await call.code()
    return code


Attack = Callable[[], Any]


async def launch(attacks: Sequence[tuple[str, Attack]]) -> dict[str, str]:
    """Carry them out, some at a time; the status of each. None of these may tell of a defect."""
    found: dict[str, str] = {}
    waiting = iter(attacks)

    async def attack() -> None:
        for name, carry_out in waiting:
            code = await carry_out()
            assert code not in _DEFECTS, f"{name}: {code}"
            found[name] = code.name

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_A_TIME):
            group.create_task(attack())
    return found


def assert_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was logged with an exception."""
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert max((record.levelno for record in caplog.records), default=0) < logging.ERROR
