"""Driver `proxy`: all hosts are this machine, and every connection goes through a proxy in this process.

Each host's programs are told (`KVSTORE_PROXY`) a port of their own, so the port says where a connection comes
from, and its CONNECT says where it goes. Nodes and clients run as they always do, and root is not needed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial

from jepsen.drivers.network import CONTROL, Pair, Slow
from kvstore.local.ports import HOST, free_ports

_CHUNK = 64 * 1024
_ESTABLISHED = b"HTTP/1.1 200 OK\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
_DUPLICATE_SECONDS = 1.0


class _Way:
    """One ordered pair of hosts: whether, and how fast, bytes pass."""

    def __init__(self) -> None:
        self.passable = asyncio.Event()
        self.passable.set()
        self.slow: Slow | None = None
        self.duplicating = False

    async def pass_on(self, size: int) -> None:
        """Return when so many bytes may arrive."""
        if self.slow is not None:
            await asyncio.sleep(self.slow.delay + size / self.slow.rate)
        await self.passable.wait()


class Proxy:
    """See Network."""

    delays = True
    duplicates = True

    def __init__(self, nodes: Sequence[str], clients: Sequence[str]) -> None:
        self._hosts = [*nodes, *clients, CONTROL]
        ports = free_ports(len(nodes) + len(self._hosts))
        self._addresses = {node: f"{HOST}:{port}" for node, port in zip(nodes, ports, strict=False)}
        self._nodes = {address: node for node, address in self._addresses.items()}
        self._ports = dict(zip(self._hosts, ports[len(nodes) :], strict=True))
        self._ways = {(a, b): _Way() for a in self._hosts for b in self._hosts if a != b}
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.StreamWriter, Pair] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.duplicated = 0

    def address(self, node: str) -> str:
        """See Network."""
        return self._addresses[node]

    def command(self, host: str) -> list[str]:
        """See Network."""
        return []

    def environment(self, host: str) -> dict[str, str]:
        """See Network."""
        return {"KVSTORE_PROXY": f"{HOST}:{self._ports[host]}"}

    async def open(self) -> None:
        """See Network."""
        for host, port in self._ports.items():
            self._servers.append(await asyncio.start_server(partial(self._accept, host), HOST, port))

    async def cut(self, pairs: Collection[Pair]) -> None:
        """See Network. Bytes wait, as in the sender's TCP, and arrive when the way is open again."""
        for pair, way in self._ways.items():
            way.passable.clear() if pair in pairs else way.passable.set()

    async def slow(self, ways: Mapping[Pair, Slow]) -> None:
        """See Network."""
        for pair, way in self._ways.items():
            way.slow = ways.get(pair)

    async def duplicate(self, pairs: Collection[Pair]) -> None:
        """See Network. The second one gets the first's first bytes, and is closed after a second."""
        for pair, way in self._ways.items():
            way.duplicating = pair in pairs

    async def reset(self, pairs: Collection[Pair]) -> None:
        """See Network."""
        for writer, pair in list(self._connections.items()):
            if pair in pairs or pair[::-1] in pairs:
                _reset(writer)

    async def close(self) -> None:
        """See Network."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)
        for server in self._servers:
            await server.wait_closed()

    async def _accept(self, source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._connect(source, reader, writer))
        self._tasks.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._tasks.discard(task)
            if task.cancelled():
                _reset(writer)
            elif error := task.exception():
                # one side has gone: so does the other
                assert isinstance(error, OSError | asyncio.IncompleteReadError), error
            writer.close()

    async def _connect(self, source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        address = head.split()[1].decode()
        target = self._nodes.get(address)
        if target is None or target == source:
            return
        there, back = self._ways[source, target], self._ways[target, source]
        # the request for a connection needs the way there, its answer the way back
        await there.pass_on(0)
        await back.pass_on(0)
        host, _, port = address.rpartition(":")
        upstream, to_node = await asyncio.open_connection(host, int(port))
        self.connections += 1
        first = await self._duplicated(there, host, int(port), reader, writer)
        self._connections |= {writer: (target, source), to_node: (source, target)}
        try:
            if first:
                to_node.write(first)
            else:
                writer.write(_ESTABLISHED)
            await asyncio.gather(_pump(reader, to_node, there), _pump(upstream, writer, back))
        finally:
            for each in (writer, to_node):
                self._connections.pop(each, None)
                each.close()

    async def _duplicated(
        self, way: _Way, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        """Open a second connection if this way duplicates; returns the bytes that both have to get."""
        if not way.duplicating:
            return b""
        writer.write(_ESTABLISHED)
        first = await reader.read(_CHUNK)
        _, second = await asyncio.open_connection(host, port)
        second.write(first)
        asyncio.get_running_loop().call_later(_DUPLICATE_SECONDS, second.close)
        self.duplicated += 1
        return first


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
    try:
        while data := await reader.read(_CHUNK):
            await way.pass_on(len(data))
            writer.write(data)
            await writer.drain()
        await way.pass_on(0)
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        # one side has broken it off: so does the proxy to the other
        _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None:
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
