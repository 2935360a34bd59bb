"""Redis or Valkey, in the three ways in which three of its servers replicate."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bench.peers.peer import NODES, Peer, Servers, program
from bench.peers.resp import Connection, Quorum, encode
from kvstore.local.ports import HOST, free_ports

_WAIT_MILLISECONDS = b"10000"
_TOKEN = 1383429731
_RACKS = tuple(f"rack{number}" for number in range(1, NODES + 1))


class _Redis(Peer):
    """Three servers that sync their append-only file before they answer."""

    client = "hiredis on asyncio, calls gathered"

    def __init__(self, programs: str | None) -> None:
        self._program = program(
            ("valkey-server", "redis-server"), programs, "install the package valkey-server or redis-server"
        )
        self._servers = Servers()
        self._connections: list[Connection] = []

    async def _start_redis(self, directory: Path) -> list[int]:
        ports = free_ports(NODES)
        for port in ports:
            settings = {"port": port, "bind": HOST, "save": "", "appendonly": "yes", "appendfsync": "always"}
            flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
            self._servers.start([self._program, *flags], directory / f"redis-{port}")
        await self._servers.until_open([(HOST, port) for port in ports])
        return ports

    async def _connect(self, ports: list[int]) -> None:
        self._connections = [await Connection.open(HOST, port) for port in ports]

    async def stop(self) -> None:
        for connection in self._connections:
            connection.close()
        self._servers.stop()

    def server_cpu(self) -> float:
        return self._servers.cpu()


class RedisQuorum(_Redis):
    """Three servers that do not know each other: the client writes to all, and reads from two.

    It is what Dynomite would do if it cost nothing: no coordinator, no repair, no hints, no versions.
    """

    name = "Redis x 3"
    guarantee = "the client writes to all, a put is synced on two of three, a get asks two"

    def __init__(self, programs: str | None) -> None:
        super().__init__(programs)
        self._turn = 0

    async def start(self, directory: Path) -> None:
        await self._connect(await self._start_redis(directory))

    async def put(self, key: bytes, value: bytes) -> None:
        quorum = Quorum(2)
        command = encode(b"SET", key, value)
        for connection in self._connections:
            connection.send(command, quorum.on_answer)
        await quorum.done

    async def get(self, key: bytes) -> bytes:
        quorum = Quorum(2)
        command = encode(b"GET", key)
        self._turn += 1
        for number in (self._turn, self._turn + 1):
            self._connections[number % NODES].send(command, quorum.on_answer)
        first, second = await quorum.done
        assert first == second, "replicas differ, and nothing tells which is newer"
        value: bytes = first
        return value


class RedisWait(_Redis):
    """A primary and two replicas; after the writes of a pass of the loop, one WAIT 1."""

    name = "Redis WAIT 1"
    guarantee = (
        "a put is synced on the primary and processed by one replica; after a failover acknowledged writes "
        "may be gone; a get asks the primary alone"
    )

    def __init__(self, programs: str | None) -> None:
        super().__init__(programs)
        self._puts: list[tuple[bytes, Quorum]] = []
        self._writing: asyncio.Task[None] | None = None

    async def start(self, directory: Path) -> None:
        primary, *replicas = await self._start_redis(directory)
        await self._connect([primary])
        for port in replicas:
            replica = await Connection.open(HOST, port)
            await replica.call(b"REPLICAOF", HOST.encode(), b"%d" % primary)
            replica.close()
        connected = 0
        async with asyncio.timeout(60):
            while connected < len(replicas):
                await self.put(b"first", b"")
                connected = await self._connections[0].call(b"WAIT", b"%d" % len(replicas), b"1000")

    async def put(self, key: bytes, value: bytes) -> None:
        quorum = Quorum(1)
        self._puts.append((encode(b"SET", key, value), quorum))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await quorum.done

    async def _write(self) -> None:
        """WAIT holds up its connection: what is put meanwhile goes together after it."""
        connection = self._connections[0]
        while self._puts:
            puts, self._puts = self._puts, []
            outcome: object
            sets = Quorum(len(puts))
            for command, _ in puts:
                connection.send(command, sets.on_answer)
            try:
                reached = await connection.call(b"WAIT", b"1", _WAIT_MILLISECONDS)
                await sets.done  # it was answered before
                outcome = b"OK" if reached else TimeoutError("no replica has acknowledged")
            except Exception as error:  # noqa: BLE001  (it is for those who wait)
                outcome = error
            for _, quorum in puts:
                quorum.on_answer(outcome)
        self._writing = None

    async def get(self, key: bytes) -> bytes:
        value: bytes = await self._connections[0].call(b"GET", key)
        return value


class Dynomite(_Redis):
    """Dynomite in front of each of three servers, one in each rack, so that each has all keys."""

    name = "Dynomite"
    guarantee = "DC_QUORUM: a put is synced on two of three, a get asks two"

    def __init__(self, programs: str | None) -> None:
        self._dynomite = program(("dynomite",), programs, "no package has it; build it from its C source")
        super().__init__(programs)
        self._turn = 0

    async def start(self, directory: Path) -> None:
        stores = await self._start_redis(directory)
        ports = free_ports(3 * NODES)
        peers, clients, stats = ports[:NODES], ports[NODES : 2 * NODES], ports[2 * NODES :]
        for number, rack in enumerate(_RACKS):
            own = directory / rack
            own.mkdir(parents=True)
            (own / "dynomite.yml").write_text(
                dynomite_settings(number, peers, clients[number], stores[number], stats[number])
            )
            self._servers.start([self._dynomite, "--conf-file", str(own / "dynomite.yml")], own)
        await self._servers.until_open([(HOST, port) for port in clients])
        await self._connect(clients)

    async def put(self, key: bytes, value: bytes) -> None:
        await self._call(b"SET", key, value)

    async def get(self, key: bytes) -> bytes:
        value: bytes = await self._call(b"GET", key)
        return value

    async def _call(self, *parts: bytes) -> Any:
        self._turn += 1
        return await self._connections[self._turn % NODES].call(*parts)


def dynomite_settings(number: int, peers: list[int], client: int, store: int, stats: int) -> str:
    """The file of settings of one Dynomite: one token, so that every rack has every key."""
    seeds = "".join(
        f"  - {HOST}:{port}:{rack}:dc:{_TOKEN}\n"
        for other, (port, rack) in enumerate(zip(peers, _RACKS, strict=True))
        if other != number
    )
    return (
        "dyn_o_mite:\n"
        "  datacenter: dc\n"
        f"  rack: {_RACKS[number]}\n"
        f"  dyn_listen: {HOST}:{peers[number]}\n"
        f"  dyn_seeds:\n{seeds}"
        f"  listen: {HOST}:{client}\n"
        f"  servers:\n  - {HOST}:{store}:1\n"
        f"  stats_listen: {HOST}:{stats}\n"
        f"  tokens: '{_TOKEN}'\n"
        "  secure_server_option: none\n"
        "  data_store: 0\n"
        "  read_consistency: DC_QUORUM\n"
        "  write_consistency: DC_QUORUM\n"
    )
