"""One node as a gRPC server: puts the parts together, starts and stops them in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
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
from kvstore.server.jobs import Worker
from kvstore.server.links import Links
from kvstore.server.options import SERVER

EXIT_STORAGE_FAILED = 70
_GRACE_SECONDS = 0.5
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What one node needs to know to run."""

    node: str
    listen: str
    data: Path
    state: ClusterState
    node_settings: NodeSettings


def die(error: BaseException) -> None:
    """End the process at once: what was not synced must not be acknowledged, and is not retried."""
    print(f"kvnode: the log could not be synced, stopping: {error}", file=sys.stderr, flush=True)
    os._exit(EXIT_STORAGE_FAILED)


async def serve(settings: ServerSettings) -> None:
    """Run the node until SIGTERM or SIGINT; raises ConfigError, WrongDataDirectory, StorageError at start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    state = settings.state
    server = grpc.aio.server(options=SERVER)
    # the port before the data: a second start of the same node must not touch anything
    _bind(server, settings.listen)
    engine_directory = data_directory.claim(settings.data, settings.node, state.cluster_id)
    engine = Engine.open(DiskFileSystem(), str(engine_directory), Options())
    links = Links(settings.node, state.cluster_id, state.members)
    _calm_the_collector()
    driver = Driver(settings.node, state, engine, links, Worker(), settings.node_settings, die)
    clients = client_service.ClientService(driver)
    handlers = (
        clients.handler(),
        peer_service.PeerService(driver, settings.node, state).handler(),
        admin_service.AdminService(driver, links, clients).handler(),
    )
    server.add_generic_rpc_handlers(handlers)
    checks = _add_standard_services(server)
    await server.start()
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


def _calm_the_collector() -> None:
    """Collect garbage less often: requests make no cycles, and a pass over a large heap delays them all."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _bind(server: grpc.aio.Server, address: str) -> None:
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise ConfigError(f"cannot listen on {address}: the port is in use or not ours to open") from None


_SERVICES = (client_service.SERVICE, peer_service.SERVICE, admin_service.SERVICE)


def _add_standard_services(server: grpc.aio.Server) -> health.aio.HealthServicer:
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return checks


async def _set_health(checks: health.aio.HealthServicer, status: int) -> None:
    for service in ("", *_SERVICES):
        await checks.set(service, status)
