"""One node as a server: puts the parts together, starts and stops them in order."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import platform
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import grpc
import psutil
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kvstore.errors import ConfigError
from kvstore.lsm import Engine, Options
from kvstore.node.settings import NodeSettings
from kvstore.ring import ClusterState
from kvstore.server import (
    admin_service,
    client_service,
    data_directory,
    grpc_calls,
    options,
    peer_service,
    stream_calls,
)
from kvstore.server.activity import ActivityLog
from kvstore.server.already_served import check_not_served
from kvstore.server.configuration import Configuration
from kvstore.server.drain import drain
from kvstore.server.driver import Driver
from kvstore.server.identity import Identity
from kvstore.server.joining import join
from kvstore.server.links import Links
from kvstore.server.listener import LOOPBACK, Listener
from kvstore.server.reflection import add_reflection
from kvstore.store import DiskFileSystem

EXIT_STORAGE_FAILED = 70
EXIT_NOT_STOPPED = 71
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GRACE_SECONDS = 0.5
_STOP_SECONDS = 10.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = logging.getLogger(__name__)
_SERVICES = (client_service.SERVICE, admin_service.SERVICE)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What one node needs to know to run."""

    node: str
    host: str
    port: int
    data: Path
    state: ClusterState
    node_settings: NodeSettings
    engine: Options = field(default_factory=Options)

    @property
    def listen(self) -> str:
        """The address to serve on."""
        return f"{self.host}:{self.port}"


def die(error: BaseException) -> None:
    """End the process at once: what was not synced must not be acknowledged, and is not retried."""
    print(f"kvnode: the storage has failed, stopping: {error}", file=sys.stderr, flush=True)
    os._exit(EXIT_STORAGE_FAILED)


async def serve(settings: ServerSettings) -> None:
    """Run a node until SIGTERM or SIGINT; raises ConfigError, WrongDataDirectory, StorageError at start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        # not the loop's own handlers: it takes them away when it closes, and a second signal would be fatal
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    try:
        await _serve_until(stop, settings)
    finally:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


async def _serve_until(stop: asyncio.Event, settings: ServerSettings) -> None:
    server = NodeServer(settings, die)
    await server.start()
    _tell_settings(settings)
    print(
        f"kvnode {settings.node} serving on {settings.listen} "
        f"(cluster {settings.state.cluster_id}, data {settings.data}, pid {os.getpid()})",
        flush=True,
    )
    await stop.wait()
    _log.info("stopping, as asked to")
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await server.stop()
            await _let_calls_end()
        _log.info("stopped")
    except TimeoutError as error:
        _end_anyway(error)


def _tell_settings(settings: ServerSettings) -> None:
    """The first lines of a log: what runs here, with which settings and within which limits."""
    ours, python = admin_service.version_of_kvstore(), platform.python_version()
    versions = f"kvstore {ours}, Python {python}, grpc {grpc.__version__}"
    shown = Configuration(settings.node_settings).texts(settings.state)
    engine = settings.engine
    shown |= {
        "durability": engine.durability.value,
        "compaction": engine.compaction.value,
        "memtable-bytes": str(engine.memtable_bytes),
        "cache-bytes": str(engine.cache_bytes),
    }
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    _log.info("node %s started: %s, pid %d", settings.node, versions, os.getpid())
    _log.info("settings: %s", "; ".join(f"{name}: {value}" for name, value in shown.items()))
    _log.info("limits: %s open files, %d bytes of memory", files, psutil.virtual_memory().total)


class NodeServer:
    """One node, its data directory and its services. `on_fatal` must end the process."""

    def __init__(self, settings: ServerSettings, on_fatal: Callable[[BaseException], None]) -> None:
        self._settings = settings
        self._on_fatal = on_fatal
        self._server = grpc.aio.server(options=options.SERVER)
        self._checks = health.aio.HealthServicer()

    async def start(self) -> None:
        """Recover what is stored and serve; raises ConfigError, WrongDataDirectory, StorageError."""
        settings = self._settings
        # the port before the data: a second start of the same node must not touch anything
        with ExitStack() as undo:
            listening = undo.enter_context(_bound(settings.host, settings.port))
            if (member := settings.state.member(settings.node)) is not None:
                await check_not_served(settings.node, settings.state.cluster_id, member.address)
            directory = data_directory.claim(settings.data, Identity.of(settings.node, settings.state))
            engine = Engine.open(DiskFileSystem(), str(directory), settings.engine)
            undo.callback(engine.close)
            _collect_less_often()
            self.driver = self._add_node(engine)
            self.clients.serving.clear()
            await self._start_grpc()
            await self._listen(listening)
            undo.pop_all()
        self.driver.start()
        await join(self._links, self.peers)
        self.clients.serving.set()
        self._activity_log = ActivityLog(self.driver.status, lambda: engine.quarantine.fences)
        await self._set_health(_SERVING)

    async def _start_grpc(self) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._checks, self._server)
        add_reflection((*_SERVICES, health.SERVICE_NAME), self._server)
        await self._set_health(_NOT_SERVING)
        try:
            self._grpc_port = self._server.add_insecure_port(f"{LOOPBACK}:0")
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {LOOPBACK}, which gRPC needs: {error}") from error
        await self._server.start()

    async def _listen(self, listening: socket.socket) -> None:
        try:
            await self._listener.start(listening, self._grpc_port)
        except OSError as error:
            raise _cannot_listen(self._settings.listen, error) from error

    async def stop(self) -> None:
        """Let what is under way come to its end, take no more calls, close the data."""
        self._activity_log.close()
        await self._set_health(_NOT_SERVING)
        await drain(self.driver, self.clients, self._links)
        ending = asyncio.ensure_future(self._server.stop(_GRACE_SECONDS))
        await asyncio.sleep(0)  # until no new stream is taken
        self.peers.close()
        await self._listener.stop(_GRACE_SECONDS)
        await ending
        self._listener.close()
        await self.driver.stop()

    def _add_node(self, engine: Engine) -> Driver:
        settings = self._settings
        self._links = links = Links(settings.node, settings.state, Configuration(settings.node_settings))
        driver = Driver(settings.node, settings.state, engine, links, settings.node_settings, self._on_fatal)
        self.clients = clients = client_service.ClientService(driver)
        admin = admin_service.AdminService(driver, links, clients)
        self.peers = peers = peer_service.PeerService(driver, links, settings.data)
        services = (clients.service(), admin.service())
        self._server.add_generic_rpc_handlers(tuple(map(grpc_calls.handlers, services)))
        self._listener = Listener(peers.handlers() | stream_calls.handlers(services))
        return driver

    async def _set_health(self, status: int) -> None:
        for service in ("", *_SERVICES):
            await self._checks.set(service, status)


def _end_anyway(error: TimeoutError) -> NoReturn:
    """Nobody should have to kill a node that somehow cannot stop: what was acknowledged is on the disk."""
    where = traceback.extract_tb(error.__cause__.__traceback__ if error.__cause__ else None)
    print(
        f"kvnode: has not stopped within {_STOP_SECONDS:g} s, ending all the same; "
        f"it waited in {' > '.join(f'{frame.name}:{frame.lineno}' for frame in where)}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(EXIT_NOT_STOPPED)


async def _let_calls_end() -> None:
    """Let gRPC's tasks come to the end that `stop` has begun: cancelled once more they would complain."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    if rest:
        await asyncio.wait(rest, timeout=_GRACE_SECONDS)


def _bound(host: str, port: int) -> socket.socket:
    """The socket that connections will come to. Raises ConfigError with the reason when it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6():
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise _cannot_listen(f"{host}:{port}", error) from error
    except ValueError as error:  # of the name: a label that is empty or too long, or no text
        raise ConfigError(f"cannot listen on {host!a}: no such name can be looked up") from error
    return bound


def _cannot_listen(address: str, error: OSError) -> ConfigError:
    reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
    return ConfigError(f"cannot listen on {address}: {reason}")


def _collect_less_often() -> None:
    """Collect garbage less often: requests make no cycles, and a pass over a large heap delays them all."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
