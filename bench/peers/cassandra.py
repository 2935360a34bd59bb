"""Cassandra, three JVMs with a replication factor of three."""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.peers.peer import NODES, Missing, Peer, Servers, program
from kvstore.local.ports import free_ports

_HOSTS = tuple(f"127.0.0.{number}" for number in range(1, NODES + 1))
"""Cassandra knows a member by its address alone, so each has one of its own."""
_HEAP = "1G"
_OPENED = (
    "java.base/java.io java.base/java.lang java.base/java.lang.module java.base/java.lang.reflect "
    "java.base/java.nio java.base/java.util java.base/jdk.internal.loader java.base/jdk.internal.math "
    "java.base/jdk.internal.misc java.base/jdk.internal.module java.base/jdk.internal.ref "
    "java.base/jdk.internal.reflect java.base/jdk.internal.util.jar java.base/sun.nio.ch "
    "java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server "
    "java.sql/java.sql jdk.management/com.sun.management.internal jdk.unsupported/sun.misc"
)
"""What Cassandra reaches into of Java 17."""
_LOGGING = """<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%level %logger %msg%n</pattern></encoder>
  </appender>
  <root level="ERROR"><appender-ref ref="OUT"/></root>
</configuration>
"""


class Cassandra(Peer):
    """Through its own driver, whose threads hand answers to the loop."""

    name = "Cassandra"
    guarantee = "QUORUM, commitlog_sync batch: a put is synced on two of three, a get asks two"
    client = "cassandra-driver, prepared statements"

    def __init__(self, programs: str | None, jars: Path | None) -> None:
        if jars is None:
            raise Missing(
                "no --cassandra DIRECTORY of jars: lib/ of its distribution, or what `mvn "
                "dependency:copy-dependencies` copies for org.apache.cassandra:cassandra-all (Java 17)"
            )
        if not list(jars.glob("*cassandra*.jar")):
            raise Missing(f"no jar of Cassandra in {jars}")
        self._jars = jars.absolute()
        self._java = program(("java",), None, "install the package default-jre-headless (Java 17)")
        self._servers = Servers()
        self._cluster: Any = None

    async def start(self, directory: Path) -> None:
        storage, clients = free_ports(2)
        for host in _HOSTS:
            own = directory / host
            own.mkdir(parents=True)
            (own / "logback.xml").write_text(_LOGGING)
            (own / "cassandra.yaml").write_text(settings(own, host, storage, clients))
            self._servers.start(self._command(own), own)
        await self._servers.until_open([(host, clients) for host in _HOSTS])
        await asyncio.to_thread(self._connect, clients)

    def _command(self, own: Path) -> list[str]:
        opened = [
            f"--add-{kind}={name}=ALL-UNNAMED" for name in _OPENED.split() for kind in ("opens", "exports")
        ]
        properties = {
            "cassandra.config": f"file://{own / 'cassandra.yaml'}",
            "cassandra.storagedir": str(own),
            "cassandra-foreground": "yes",
            "cassandra.ring_delay_ms": "5000",
            "cassandra.skip_wait_for_gossip_to_settle": "0",
            "logback.configurationFile": str(own / "logback.xml"),
            "jdk.attach.allowAttachSelf": "true",
            "io.netty.tryReflectionSetAccessible": "true",
        }
        agents = [f"-javaagent:{jar}" for jar in self._jars.glob("jamm-*.jar")]
        return [
            *(self._java, f"-Xms{_HEAP}", f"-Xmx{_HEAP}", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=300"),
            *(*agents, *opened, *(f"-D{name}={value}" for name, value in properties.items())),
            *("-cp", f"{self._jars}/*", "org.apache.cassandra.service.CassandraDaemon"),
        ]

    def _connect(self, port: int) -> None:
        driver: Any = import_module("cassandra.cluster")
        profile = driver.ExecutionProfile(
            consistency_level=import_module("cassandra").ConsistencyLevel.QUORUM
        )
        self._cluster = driver.Cluster(
            _HOSTS, port=port, execution_profiles={driver.EXEC_PROFILE_DEFAULT: profile}
        )
        self._session = self._cluster.connect()
        replication = f"{{'class': 'SimpleStrategy', 'replication_factor': {NODES}}}"
        self._session.execute(f"CREATE KEYSPACE bench WITH replication = {replication}")
        self._session.execute("CREATE TABLE bench.kv (k blob PRIMARY KEY, v blob)")
        self._insert = self._session.prepare("INSERT INTO bench.kv (k, v) VALUES (?, ?)")
        self._select = self._session.prepare("SELECT v FROM bench.kv WHERE k = ?")

    async def stop(self) -> None:
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.shutdown)
        self._servers.stop()

    async def _execute(self, statement: Any, *values: bytes) -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._session.execute_async(statement, values).add_callbacks(
            lambda rows: loop.call_soon_threadsafe(done.set_result, rows),
            lambda error: loop.call_soon_threadsafe(done.set_exception, error),
        )
        return await done

    async def put(self, key: bytes, value: bytes) -> None:
        await self._execute(self._insert, key, value)

    async def get(self, key: bytes) -> bytes:
        rows = await self._execute(self._select, key)
        value: bytes = rows[0].v
        return value

    def server_cpu(self) -> float:
        return self._servers.cpu()


def settings(own: Path, host: str, storage: int, clients: int) -> str:
    """The cassandra.yaml of one member."""
    return f"""cluster_name: bench
num_tokens: 16
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
auto_bootstrap: false
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "{_HOSTS[0]}:{storage}"
listen_address: {host}
storage_port: {storage}
rpc_address: {host}
native_transport_port: {clients}
commitlog_sync: batch
data_file_directories: [{own}/data]
commitlog_directory: {own}/commitlog
hints_directory: {own}/hints
saved_caches_directory: {own}/caches
cdc_raw_directory: {own}/cdc
"""
