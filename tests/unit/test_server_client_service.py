"""What clients of a node see: unary calls, sessions, errors, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_status import rpc_status

from kvstore.errors import InvalidRequest, ReadTimeout, Unavailable
from kvstore.local.ports import free_ports
from kvstore.lsm import Options
from kvstore.quorum.request import Request
from kvstore.server.server import NodeServer
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.errors import error_from_status
from kvstore.wire.ring import encoded_state
from tests.patience import PATIENCE
from tests.unit.memory_streams import StreamSession
from tests.unit.server_nodes import (
    SessionClient,
    call,
    channel,
    cluster_state,
    run,
    serving,
    settings,
)


@asynccontextmanager
async def one_node(directory: Path) -> AsyncIterator[tuple[NodeServer, grpc.aio.Channel]]:
    (port,) = free_ports(1)
    node = settings("n1", port, directory, cluster_state([port]))
    async with serving(node) as (server,), channel(port) as opened:
        yield server, opened


def get_call(number: int) -> pb.Call:
    return pb.Call(id=number, get=pb.GetRequest(bucket="b", key=b"%d" % number, timeout_ms=60_000))


def typed(error: grpc.aio.AioRpcError) -> Exception:
    status = rpc_status.from_call(cast(grpc.Call, error))
    assert status is not None, error
    return error_from_status(status)


def test_unary_put_get_delete(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_node(tmp_path) as (_, opened):
            stored = await call(
                opened, "Put", pb.PutRequest(bucket="b", key=b"k", value=b"v"), pb.WriteResponse
            )
            assert stored.siblings == 1
            got = await call(opened, "Get", pb.GetRequest(bucket="b", key=b"k"), pb.GetResponse)
            assert [sibling.value for sibling in got.siblings] == [b"v"]
            delete = pb.DeleteRequest(bucket="b", key=b"k", context=got.context)
            await call(opened, "Delete", delete, pb.WriteResponse)
            got = await call(opened, "Get", pb.GetRequest(bucket="b", key=b"k"), pb.GetResponse)
            assert not got.siblings
            assert got.context

    run(scenario())


def test_the_cluster_state_is_encoded_once_for_all_who_connect(tmp_path: Path) -> None:
    """It takes 1 ms: thousands of clients that came and went stopped a node for seconds."""

    async def scenario() -> None:
        async with one_node(tmp_path) as (server, opened):
            before = encoded_state.cache_info().misses
            address = f"127.0.0.1:{server._settings.port}"
            for _ in range(5):
                session = await StreamSession.open(address)
                await session.stream.leave()
                await call(opened, "GetRing", pb.GetRingRequest(), pb.GetRingResponse)
            assert encoded_state.cache_info().misses <= before + 1

    run(scenario())


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.PutRequest(bucket="b", key=b"", value=b"v"), "key"),
        (pb.PutRequest(bucket="b", key=b"k" * 4097, value=b"v"), "key"),
        (pb.PutRequest(bucket="b", key=b"k", value=b"v" * 1001), "value"),
        (pb.PutRequest(bucket="b", key=b"k", value=b"v" * (16 * 1024 * 1024)), "value"),
        (pb.PutRequest(bucket="B", key=b"k", value=b"v"), "bucket"),
        (pb.PutRequest(bucket="b", key=b"k", value=b"v", context=b"rubbish"), "context"),
        (pb.PutRequest(bucket="b", key=b"k", value=b"v", w=2), "w"),
        (pb.PutRequest(bucket="b", key=b"k", value=b"v", quorum=9), "quorum"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_typed_and_names_the_field(tmp_path: Path, request_: pb.PutRequest, field: str) -> None:
    async def scenario() -> None:
        async with one_node(tmp_path) as (server, opened):
            before = server.driver.node.status(server.driver.now()).engine.entries
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(opened, "Put", request_, pb.WriteResponse)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            error = typed(caught.value)
            assert isinstance(error, InvalidRequest)
            assert error.field == field
            assert server.driver.node.status(server.driver.now()).engine.entries == before

    run(scenario())


def test_the_engine_is_opened_with_the_settings_of_the_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        state = cluster_state([port])
        node = replace(settings("n1", port, tmp_path, state), engine=Options(memtable_bytes=1))
        async with serving(node) as (server,):
            engine = server.driver.node.status(server.driver.now()).engine
            assert engine.sealed_memtables + engine.flushes > 0

    run(scenario())


def test_a_deadline_bounds_the_request_and_the_verdict_arrives_before_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = free_ports(3)
        state = cluster_state(ports)
        async with serving(settings("n1", ports[0], tmp_path, state)), channel(ports[0]) as opened:
            # the others were never there, but that takes longer to find out
            request = pb.GetRequest(bucket="b", key=b"k", timeout_ms=30_000)
            for timeout in (0.5, 4.0, PATIENCE):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(opened, "Get", request, pb.GetResponse, timeout=timeout)
                if rpc_status.from_call(cast(grpc.Call, caught.value)) is not None:
                    break  # else a busy machine did not get it there in the tenth that is left for it
            assert isinstance(typed(caught.value), ReadTimeout | Unavailable)

    run(scenario())


def test_a_session_answers_each_call_in_its_own_kind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_node(tmp_path) as (_, opened):
            session = SessionClient(opened)
            calls = [
                pb.Call(id=1, put=pb.PutRequest(bucket="b", key=b"k", value=b"v")),
                pb.Call(id=2, get=pb.GetRequest(bucket="b", key=b"other")),
                pb.Call(id=3, delete=pb.DeleteRequest(bucket="b", key=b"third")),
                pb.Call(id=4, get=pb.GetRequest(bucket="b")),
                pb.Call(id=5),
            ]
            results = await session.exchange(calls)
            kinds = {number: result.WhichOneof("reply") for number, result in results.items()}
            assert kinds == {1: "stored", 2: "found", 3: "stored", 4: "failed", 5: "failed"}
            assert results[4].failed.field == "key"
            assert results[5].failed.reason == pb.Error.INVALID_REQUEST
            await session.stream.done_writing()
            assert await session.stream.read() is grpc.aio.EOF
            assert await session.stream.code() is grpc.StatusCode.OK

    run(scenario())


def test_a_session_takes_any_number_of_calls_and_splits_what_is_large(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_node(tmp_path) as (_, opened):
            session = SessionClient(opened)
            for first in range(0, 6000, 2000):
                puts = [
                    pb.Call(
                        id=i,
                        put=pb.PutRequest(bucket="b", key=b"%d" % i, value=b"v" * 1000, timeout_ms=60_000),
                    )
                    for i in range(first, first + 2000)
                ]
                results = await session.exchange(puts)
                assert {result.WhichOneof("reply") for result in results.values()} == {"stored"}
            # 6 MB of replies, to a client that takes no frame over 4 MiB
            found = await session.exchange([get_call(number) for number in range(6000)])
            assert all(len(result.found.siblings) == 1 for result in found.values())

    run(scenario())


def test_a_defect_in_one_call_does_not_take_the_others_of_its_frame_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with one_node(tmp_path) as (server, opened):
            coordinator = server.driver.node._coordinator
            start = coordinator._start

            def fail(request: Request, *rest: Any) -> None:
                if request.call.key in (b"1", b"3"):
                    raise ZeroDivisionError
                start(request, *rest)

            monkeypatch.setattr(coordinator, "_start", fail)
            results = await SessionClient(opened).exchange([get_call(number) for number in range(4)])
            kinds = {number: result.WhichOneof("reply") for number, result in results.items()}
            assert kinds == {0: "found", 1: "failed", 2: "found", 3: "failed"}
            assert results[1].failed.reason == pb.Error.INTERNAL

    run(scenario())


def test_rubbish_on_a_session_ends_it_with_a_typed_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_node(tmp_path) as (_, opened):
            session = SessionClient(opened)
            await session.stream.write(b"\xff\xff\xff")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await session.stream.read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert await call(opened, "Get", pb.GetRequest(bucket="b", key=b"k"), pb.GetResponse) is not None

    run(scenario())


@pytest.mark.parametrize("method", ["KV/Put", "KV/Get", "KV/Scan", "Admin/GetStatus"])
def test_unary_rubbish_gets_a_typed_status_and_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """12,000 such calls were 5,000 tracebacks."""

    async def scenario() -> None:
        async with one_node(tmp_path) as (server, opened):
            raw: Any = opened.unary_unary(f"/kvstore.v1.{method}")
            for _ in range(20):  # no more at a time than a connection has streams
                calls = (raw(b"\xff" * 20, timeout=PATIENCE) for _ in range(50))
                for error in await asyncio.gather(*calls, return_exceptions=True):
                    assert isinstance(error, grpc.aio.AioRpcError)
                    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                    assert isinstance(typed(error), InvalidRequest)
            assert await call(opened, "Get", pb.GetRequest(bucket="b", key=b"k"), pb.GetResponse) is not None
            assert server.driver.status().counters.defects == 0

    run(scenario())
    (record,) = caplog.records
    assert record.exc_info is None
    assert "20 bytes that are no" in record.getMessage()


def test_a_client_that_leaves_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_node(tmp_path) as (server, opened):
            session = SessionClient(opened)
            calls = [get_call(number) for number in range(1000)]
            await session.send(calls)
            session.stream.cancel()
            async with asyncio.timeout(PATIENCE):
                while True:
                    tasks = [task for task in asyncio.all_tasks() if "session" in repr(task.get_coro())]
                    if not tasks and server.driver.executor.idle:
                        break
                    await asyncio.sleep(0.01)
            assert await call(opened, "Get", pb.GetRequest(bucket="b", key=b"k"), pb.GetResponse) is not None

    run(scenario())
