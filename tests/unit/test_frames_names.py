"""Names of nodes: resolved at each attempt, all their addresses tried, and no resolver holds others up."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

import pytest

from kvstore.frames import dial
from kvstore.frames.incoming import StreamLost
from kvstore.frames.resolve import resolve
from kvstore.frames.stream import FrameStream
from kvstore.local.ports import free_ports
from kvstore.server.listener import Listener
from tests.patience import PATIENCE
from tests.resolver import Resolver

METHOD = "a/B"


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    return Resolver(monkeypatch)


class Nodes:
    """One port at some addresses: at each of `serving` is a node, at `silent` ones that stand still."""

    def __init__(self, serving: Sequence[str], silent: Sequence[str] = ()) -> None:
        (self.port,) = free_ports(1)
        self._serving, self._silent = serving, silent
        self.open: list[str] = []

    async def __aenter__(self) -> Self:
        self._sockets = ExitStack()
        for host in self._silent:
            self._sockets.enter_context(self._socket(host))
        self._listeners = []
        for host in self._serving:
            listener = Listener({METHOD: lambda stream, _, host=host: self._serve(host, stream)})  # type: ignore[misc]
            await listener.start(self._socket(host), grpc_port=1)
            self._listeners.append(listener)
        return self

    def _socket(self, host: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, self.port), family=family)

    async def _serve(self, host: str, stream: FrameStream) -> None:
        self.open.append(host)
        try:
            await stream.write(host.encode())
            await stream.read()
        finally:
            self.open.remove(host)

    async def __aexit__(self, *_: object) -> None:
        self._sockets.close()
        for listener in self._listeners:
            await listener.stop(1.0)

    async def who(self, *unwanted: str) -> str:
        """Which of them answers as db.test, if these must not."""

        asking = Counter[str]()

        async def first(stream: FrameStream) -> str:
            asking[""] += 1
            try:
                host = (await stream.read() or b"").decode()
            finally:
                asking[""] -= 1
            if host in unwanted:
                raise StreamLost(f"is {host}")
            return host

        stream, host = await dial.open_answered(f"db.test:{self.port}", METHOD, 100, first)
        assert (self.open.count(host), asking[""]) == (1, 0)  # nobody else is asked any more
        await stream.leave()
        async with asyncio.timeout(PATIENCE):
            while self.open:  # noqa: ASYNC110  (a listener sets no event)
                await asyncio.sleep(0.005)
        return host


def test_a_name_is_resolved_at_each_attempt(resolver: Resolver) -> None:
    async def scenario() -> None:
        async with Nodes(["127.0.0.2", "127.0.0.3"]) as nodes:
            for address in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
                resolver.names["db.test"] = [address]
                assert await nodes.who() == address

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("serving", "silent", "unwanted", "found"),
    [
        (["127.0.0.4"], [], [], "127.0.0.4"),
        (["::1"], [], [], "::1"),
        (["127.0.0.4"], ["127.0.0.2", "::1"], [], "127.0.0.4"),
        (["127.0.0.2", "::1", "127.0.0.4"], ["127.0.0.3"], ["127.0.0.2", "::1"], "127.0.0.4"),
        (["127.0.0.2", "::1"], [], [], "127.0.0.2"),
    ],
    ids=["refused", "IPv6 among IPv4", "standing still", "another node", "the first of several"],
)
def test_all_addresses_of_a_name_are_tried(
    resolver: Resolver, serving: list[str], silent: list[str], unwanted: list[str], found: str
) -> None:
    resolver.names["db.test"] = ["127.0.0.2", "127.0.0.3", "::1", "127.0.0.4"]

    async def scenario() -> None:
        async with Nodes(serving, silent) as nodes:
            assert await nodes.who(*unwanted) == found

    asyncio.run(scenario())


def test_a_good_address_after_many_that_stand_still_is_found_within_an_attempt(resolver: Resolver) -> None:
    """Clients and nodes give an attempt two seconds: with a pause of 0.25 s each that is eight addresses."""
    silent = [f"127.0.0.{each}" for each in range(10, 50)]
    resolver.names["db.test"] = [*silent, "127.0.0.2"]

    async def scenario() -> None:
        async with Nodes(["127.0.0.2"], silent) as nodes, asyncio.timeout(2.0):
            assert await nodes.who() == "127.0.0.2"

    asyncio.run(scenario())


def problem(address: str) -> str:
    with pytest.raises(StreamLost) as lost:
        asyncio.run(dial.open_stream(address, METHOD, 100))
    return str(lost.value)


def test_why_none_of_the_addresses_is_good_is_told_in_one_line(resolver: Resolver) -> None:
    resolver.names["db.test"] = ["127.0.0.2", "::1"]
    assert problem(f"db.test:{free_ports(1)[0]}") == "Connection refused"

    async def scenario() -> str:
        hosts = [f"127.0.0.{each}" for each in range(2, 9)]
        resolver.names["db.test"] = hosts
        async with Nodes(hosts) as nodes:
            with pytest.raises(StreamLost) as lost:
                await nodes.who(*hosts)
        return str(lost.value).replace(f":{nodes.port}", "")

    told = "; ".join(f"127.0.0.{each}: is 127.0.0.{each}" for each in range(2, 7))
    assert asyncio.run(scenario()) == f"{told} (and 2 more)"


def test_a_name_that_has_no_address_is_told(resolver: Resolver) -> None:
    resolver.names["db.test"] = []
    assert problem("db.test:7001") == "Name or service not known"


def test_a_resolver_that_does_not_answer_holds_up_nobody_who_asks_for_another_name(
    resolver: Resolver,
) -> None:
    stuck = [f"stuck-{each}.test" for each in range(50)]
    events = {name: threading.Event() for name in stuck}
    resolver.stuck |= events

    async def scenario() -> None:
        before = threading.active_count()
        async with Nodes(["127.0.0.2"]) as nodes:
            resolver.names["db.test"] = ["127.0.0.2"]
            waiting = [asyncio.create_task(dial.open_stream(f"{name}:1", METHOD, 100)) for name in stuck * 3]
            await asyncio.sleep(0)
            async with asyncio.timeout(1.0):
                assert await nodes.who() == "127.0.0.2"
                await asyncio.to_thread(len, b"")  # the executor is free for what else uses it
            assert (
                threading.active_count() - before <= len(stuck) + 2
            )  # one that answered, one of the executor
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert {str(error) for error in ended} == {"its name is not resolved within 1.5 s"}
            late = asyncio.create_task(resolve(f"{stuck[0]}:1"))  # gets the answer to the first question
            await asyncio.sleep(0)
            resolver.names[stuck[0]] = ["::1"]
            events[stuck[0]].set()
            assert await late == ["[::1]:1"]
            assert resolver.asked[stuck[0]] == 1
            await resolve(f"{stuck[0]}:1")
            assert resolver.asked[stuck[0]] == 2

    try:
        asyncio.run(scenario())
    finally:
        for event in events.values():
            event.set()


ENDS = """
import asyncio, os, socket, threading
system, stuck = socket.getaddrinfo, threading.Event()
def getaddrinfo(host, *more, flags=0, **others):
    if flags & socket.AI_NUMERICHOST:
        return system(host, *more, flags=flags, **others)
    if answers:
        return system("127.0.0.2", *more, **others)
    stuck.wait()
answers = False
socket.getaddrinfo = getaddrinfo
from kvstore.frames.resolve import resolve
async def leave():
    try:
        async with asyncio.timeout(0.1):
            await resolve("db.test:1")
    except TimeoutError:
        print("left")
asyncio.run(leave())
child = os.fork()
if not child:
    answers = True
    print(asyncio.run(resolve("db.test:1")), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_stuck_lookup_holds_up_neither_the_end_of_a_program_nor_its_children() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert (sorted(set(done.stdout.splitlines())), done.stderr) == (["['127.0.0.2:1']", "left"], "")
