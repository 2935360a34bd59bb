"""One node as a gRPC server: puts the parts together, starts and stops them in order."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from kvstore.errors import ConfigError
from kvstore.lsm import DiskFileSystem, Engine, Options
from kvstore.node.settings import NodeSettings
from kvstore.ring import ClusterState
from kvstore.server import admin_service, client_service, data_directory, peer_service
from kvstore.server.driver import Driver
from kvstore.server.links import Links
from kvstore.server.options import SERVER

EXIT_STORAGE_FAILED = 70
_GRACE_SECONDS = 0.5
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICES = (client_service.SERVICE, peer_service.SERVICE, admin_service.SERVICE)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What one node needs to know to run."""

    node: str
    host: str
    port: int
    data: Path
    state: ClusterState
    node_settings: NodeSettings

    @property
    def listen(self) -> str:
        """The address to serve on."""
        return f"{self.host}:{self.port}"


def die(error: BaseException) -> None:
    """End the process at once: what was not synced must not be acknowledged, and is not retried."""
    print(f"kvnode: the storage has failed, stopping: {error}", file=sys.stderr, flush=True)
    os._exit(EXIT_STORAGE_FAILED)


async def serve(settings: ServerSettings) -> None:
    """Run the node until SIGTERM or SIGINT; raises ConfigError, WrongDataDirectory, StorageError at start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    state = settings.state
    # the port before the data: a second start of the same node must not touch anything
    _check_port(settings.host, settings.port)
    directory = data_directory.claim(settings.data, settings.node, state.cluster_id)
    engine = Engine.open(DiskFileSystem(), str(directory), Options())
    _calm_the_collector()
    links = Links(settings.node, state)
    driver = Driver(settings.node, state, engine, links, settings.node_settings, die)
    clients = client_service.ClientService(driver)
    admin = admin_service.AdminService(driver, links, clients)
    peers = peer_service.PeerService(driver)
    server, checks = await _start_server(
        settings.listen, (clients.handler(), peers.handler(), admin.handler())
    )
    driver.start()
    await _set_health(checks, _SERVING)
    print(
        f"kvnode {settings.node} serving on {settings.listen} "
        f"(cluster {state.cluster_id}, data {settings.data}, pid {os.getpid()})",
        flush=True,
    )
    await stop.wait()
    await _set_health(checks, _NOT_SERVING)
    await server.stop(_GRACE_SECONDS)
    await driver.stop()
    await _let_calls_end()


async def _start_server(
    address: str, handlers: Sequence[grpc.GenericRpcHandler]
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """A server that answers, but does not say yet that it serves."""
    server = grpc.aio.server(options=SERVER)
    server.add_generic_rpc_handlers(handlers)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    await _set_health(checks, _NOT_SERVING)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {address}: {error}") from error
    await server.start()
    return server, checks


async def _let_calls_end() -> None:
    """Let gRPC's tasks come to the end that `stop` has begun: cancelled once more they would complain."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    if rest:
        await asyncio.wait(rest, timeout=_GRACE_SECONDS)


async def _set_health(checks: health.aio.HealthServicer, status: int) -> None:
    for service in ("", *_SERVICES):
        await checks.set(service, status)


def _check_port(host: str, port: int) -> None:
    """Raise ConfigError with the reason when the port cannot be had: gRPC only says that it failed."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}") from error


def _calm_the_collector() -> None:
    """Collect garbage less often: requests make no cycles, and a pass over a large heap delays them all."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
