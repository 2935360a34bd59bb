"""Connecting: what cannot be connected to has one reason, in words; the loop may be any."""

from __future__ import annotations

import asyncio
import errno
import importlib
import importlib.util
import socket
from typing import Any

import pytest

from kvstore.frames import dial, proxy
from kvstore.frames.incoming import StreamLost
from kvstore.frames.stream import FrameStream, reason
from kvstore.server.listener import Listener

METHOD = "a/B"


def problem(address: str) -> str:
    async def scenario() -> None:
        await dial.open_stream(address, METHOD, 100)

    with pytest.raises(StreamLost) as lost:
        asyncio.run(scenario())
    return str(lost.value)


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "a\0b", "\ud800"])
def test_what_is_no_host_name_is_told(host: str) -> None:
    assert problem(f"{host}:7001") == "is no address that can be looked up"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("proxy", "KVSTORE_PROXY='proxy' is not of the form host:port"),
        ("proxy:0", "KVSTORE_PROXY='proxy:0' is not of the form host:port"),
        ("127.0.0.1:65536", "KVSTORE_PROXY='127.0.0.1:65536' is not of the form host:port"),
        ("127.0.0.1:\uff17\uff10", "KVSTORE_PROXY='127.0.0.1:\uff17\uff10' is not of the form host:port"),
        ("a..b:80", "is no address that can be looked up"),
    ],
)
def test_a_proxy_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, named: str, said: str) -> None:
    monkeypatch.setenv(proxy._VARIABLE, named)
    assert problem("127.0.0.1:1") == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('h', 1)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("the proxy says no"), "the proxy says no"),
    ],
)
def test_a_reason_is_in_words(error: OSError, said: str) -> None:
    assert reason(error) == said


async def answer(stream: FrameStream, _opened: object) -> None:
    while (message := await stream.read()) is not None:
        await stream.write(message)


async def talk() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    listener = Listener({METHOD: answer})
    await listener.start(listening, grpc_port=1)
    stream = await dial.open_stream(f"127.0.0.1:{listening.getsockname()[1]}", METHOD, 10_000_000)
    for size in (1, 3_000_000):
        await stream.write(bytes(size))
        assert await stream.read() == bytes(size)
    await stream.leave()
    assert stream.lost
    while listener._connections:  # noqa: ASYNC110  (a listener sets no event)
        await asyncio.sleep(0.01)
    await listener.stop(1.0)


@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
def test_streams_work_on_the_loops_of_programs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    loops: Any = importlib.import_module(module)
    loops.run(talk())
