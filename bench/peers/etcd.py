"""etcd, three members of one Raft group."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc

from bench.peers.peer import NODES, Peer, Servers, program
from kvstore.local.ports import HOST, free_ports

_PROTO = "bench/peers/etcd.proto"
_POLL_SECONDS = 0.1
_START_SECONDS = 60.0


class Etcd(Peer):
    """Asks the leader for everything: another member would only pass it on."""

    name = "etcd"
    guarantee = "a put is synced by two of three members, a get is linearizable"
    client = "grpc.aio, one channel to the leader"

    def __init__(self, programs: str | None) -> None:
        self._program = program(("etcd",), programs, "install the package etcd-server")
        self._servers = Servers()
        self._channel: grpc.aio.Channel | None = None
        self._messages: Any = grpc.protos(_PROTO)

    async def start(self, directory: Path) -> None:
        ports = free_ports(2 * NODES)
        members = {f"m{i}": (ports[i], f"http://{HOST}:{ports[NODES + i]}") for i in range(NODES)}
        cluster = ",".join(f"{name}={peers}" for name, (_, peers) in members.items())
        for name, (port, peers) in members.items():
            flags = {
                "name": name,
                "data-dir": str(directory / name / "data"),
                "listen-client-urls": f"http://{HOST}:{port}",
                "advertise-client-urls": f"http://{HOST}:{port}",
                "listen-peer-urls": peers,
                "initial-advertise-peer-urls": peers,
                "initial-cluster": cluster,
                "logger": "zap",
                "log-level": "error",
            }
            self._servers.start([self._program, *(f"--{k}={v}" for k, v in flags.items())], directory / name)
        clients = [port for port, _ in members.values()]
        await self._servers.until_open([(HOST, port) for port in clients])
        self._channel = await self._leader(clients)
        self._put = self._method(self._channel, "KV/Put", "PutResponse")
        self._range = self._method(self._channel, "KV/Range", "RangeResponse")

    def _method(self, channel: grpc.aio.Channel, name: str, response: str) -> Any:
        method: Any = channel.unary_unary(
            f"/etcdserverpb.{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=getattr(self._messages, response).FromString,
        )
        return method

    async def _leader(self, ports: list[int]) -> grpc.aio.Channel:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                for port in ports:
                    channel = grpc.aio.insecure_channel(f"{HOST}:{port}")
                    status = self._method(channel, "Maintenance/Status", "StatusResponse")
                    found = await status(self._messages.StatusRequest(), wait_for_ready=True)
                    if found.leader and found.leader == found.header.member_id:
                        return channel
                    await channel.close()
                await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        self._servers.stop()

    async def put(self, key: bytes, value: bytes) -> None:
        await self._put(self._messages.PutRequest(key=key, value=value))

    async def get(self, key: bytes) -> bytes:
        found = await self._range(self._messages.RangeRequest(key=key))
        value: bytes = found.kvs[0].value
        return value

    def server_cpu(self) -> float:
        return self._servers.cpu()
