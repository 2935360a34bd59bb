"""One run: a cluster, clients, faults; then healing, final reads, a look at the disks, and the verdicts."""

from __future__ import annotations

import asyncio
import heapq
import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from jepsen import dumps
from jepsen.client import Spec, clock_since
from jepsen.cluster import Cluster, ClusterFailed, Layout
from jepsen.drivers import namespaces
from jepsen.drivers.namespaces import Namespaces
from jepsen.drivers.network import CONTROL, Network
from jepsen.drivers.proxy import Proxy
from jepsen.history import History, HistoryWriter, Op
from jepsen.nemesis import NemesisProcess
from jepsen.schedule import Fault, make_schedule, parse_nemeses, skipped
from jepsen.workloads import REPLICAS, WORKLOADS, bucket_settings, workload_of
from kvstore.errors import KVError

_SERVING_SECONDS = 90.0
_CONVERGED_SECONDS = 180.0
_STATUS_SECONDS = 1.0
_FEWEST_KEYS, _KEY_RATE = 3, 15.0
_FINAL_PROCESS = 10_000_000
_FINAL_THREADS = 8


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to do. Times in seconds; `rate` is operations a second of all clients together.

    `keys` of each workload are in use at a time; 0: as many as keep the values of sets small at this rate.
    """

    workloads: tuple[str, ...]
    nemesis: str
    seed: int
    directory: Path
    driver: str = "proxy"
    seconds: float = 30.0
    nodes: int = 5
    clients: int = 2
    threads: int = 20
    rate: float = 300.0
    keys: int = 0
    fault_seconds: float = 5.0
    timeout: float = 3.0
    quorum: str = "strict"
    r: int = 2
    w: int = 2
    plant: str = ""
    node_flags: tuple[str, ...] = ()

    @property
    def keys_in_use(self) -> int:
        """How many keys of each workload are in use at a time."""
        return self.keys or max(_FEWEST_KEYS, round(self.rate / len(self.workloads) / _KEY_RATE))

    @property
    def strict(self) -> bool:
        """Whether every read sees every acknowledged write."""
        return self.quorum == "strict" and self.r + self.w > REPLICAS


@dataclass
class Outcome:
    """What became of a run. `problem` says why it did not come to its end."""

    history: History
    schedule: list[Fault]
    skipped: dict[str, str]
    faults: Counter[str]
    coverage: dict[str, int]
    replicas: dumps.Replicas = field(default_factory=dict)
    converged_seconds: float | None = None
    problem: str = ""


def drivers() -> dict[str, str]:
    """The drivers, and why each cannot be used here; empty if it can."""
    return {"namespaces": namespaces.reason_to_skip(), "proxy": ""}


async def run(options: Options) -> Outcome:
    """Do it. Raises ClusterFailed when the cluster does not even come up."""
    nodes = tuple(f"n{i}" for i in range(1, options.nodes + 1))
    clients = tuple(f"c{i}" for i in range(1, options.clients + 1))
    network: Network = Namespaces(nodes, clients) if options.driver == "namespaces" else Proxy(nodes, clients)
    lists = parse_nemeses(options.nemesis)
    clocks = any(name.startswith("clock-") for names in lists for name in names)
    buckets = tuple(
        bucket_settings(WORKLOADS[name], options.quorum, options.r, options.w) for name in options.workloads
    )
    layout = Layout(options.directory, nodes, clients, buckets, options.plant, clocks, options.node_flags)
    cluster = Cluster(layout, network)
    try:
        await cluster.open()
        schedule = make_schedule(lists, options.seed, cluster, options.seconds, options.fault_seconds)
        return await _Run(options, cluster, schedule, skipped(lists, cluster)).run()
    finally:
        await cluster.close()


class _Run:
    def __init__(
        self, options: Options, cluster: Cluster, schedule: list[Fault], skips: dict[str, str]
    ) -> None:
        self._options = options
        self._cluster = cluster
        self._schedule = schedule
        self._skipped = skips
        self._coverage = _Coverage(cluster)
        self._began = 0

    async def run(self) -> Outcome:
        clients = [self._start_clients(place, host) for place, host in enumerate(self._cluster.clients)]
        try:
            await self._begin(clients)
            return await self._run(clients)
        finally:
            for client in clients:
                client.kill()
                client.communicate()

    async def _begin(self, clients: list[subprocess.Popen[bytes]]) -> None:
        """The run's time begins when all clients are connected. Raises ClusterFailed."""
        try:
            async with asyncio.timeout(_SERVING_SECONDS):
                for host, client in zip(self._cluster.clients, clients, strict=True):
                    assert client.stdout is not None
                    if not await asyncio.to_thread(client.stdout.readline):
                        raise ClusterFailed(f"the clients on {host} have ended: see {host}.log")
        except TimeoutError:
            raise ClusterFailed(f"the clients are not connected after {_SERVING_SECONDS:g} s") from None
        self._began = time.monotonic_ns()
        for client in clients:
            assert client.stdin is not None
            with suppress(BrokenPipeError):  # it has ended: its exit code is looked at in the end
                client.stdin.write(b"%d\n" % self._began)
                client.stdin.flush()

    async def _run(self, clients: list[subprocess.Popen[bytes]]) -> Outcome:
        options, cluster = self._options, self._cluster
        writer = HistoryWriter(options.directory / "nemesis.jsonl", clock_since(self._began))
        nemesis = NemesisProcess(cluster, writer)
        problem, converged, replicas = "", None, {}
        with writer:
            watching = asyncio.create_task(self._coverage.watch())
            try:
                await self._under_fault(nemesis, clients)
                converged = await self._heal(writer)
                await self._final_reads()
                await self._coverage.look()
                replicas = await self._stop_and_dump()
            except (ClusterFailed, KVError, TimeoutError) as error:
                problem = f"{type(error).__name__}: {error}"
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
        history = self._history()
        history.write(options.directory / "history.jsonl")
        self._coverage.sums["node starts"] = sum(cluster.starts.values())
        return Outcome(
            history,
            self._schedule,
            self._skipped,
            nemesis.made,
            self._coverage.total(),
            replicas,
            converged,
            problem,
        )

    async def _under_fault(self, nemesis: NemesisProcess, clients: list[subprocess.Popen[bytes]]) -> None:
        """Clients and nemesis, to the end of both."""
        try:
            await nemesis.run(self._schedule)
            async with asyncio.timeout(self._options.seconds + _SERVING_SECONDS):
                await asyncio.gather(*(asyncio.to_thread(client.wait) for client in clients))
        finally:
            for client in clients:
                client.kill()
                client.wait()
        for host, client in zip(self._cluster.clients, clients, strict=True):
            if client.returncode != 0:
                raise ClusterFailed(
                    f"the clients on {host} have ended with {client.returncode}: see {host}.log"
                )

    def _start_clients(self, place: int, host: str) -> subprocess.Popen[bytes]:
        options, network = self._options, self._cluster.network
        spec = Spec(
            host=host,
            endpoints=self._cluster.endpoints,
            history=str(options.directory / f"{host}.jsonl"),
            workloads=list(options.workloads),
            numbers=list(range(options.threads))[place :: options.clients],
            clients=options.clients,
            threads=options.threads,
            keys=options.keys_in_use,
            rate=options.rate / options.threads,
            seed=options.seed,
            seconds=options.seconds,
            timeout=options.timeout,
        )
        file = options.directory / f"{host}.json"
        file.write_bytes(msgspec.json.encode(spec))
        command = [*network.command(host), "setpriv", "--pdeathsig", "KILL"]
        with (options.directory / f"{host}.log").open("wb") as log:
            return subprocess.Popen(
                [*command, sys.executable, "-m", "jepsen.client", str(file)],
                env=os.environ | network.environment(host),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    async def _heal(self, writer: HistoryWriter) -> float:
        """All faults have ended: wait until all is well; returns seconds until replicas were proven equal."""
        order = writer.nemesis("heal")
        try:
            self._cluster.start(self._cluster.nodes)
            await self._cluster.serving(_SERVING_SECONDS)
            seconds = await self._cluster.converged(_CONVERGED_SECONDS)
        except ClusterFailed as error:
            writer.complete(order, "info", error=str(error))
            raise
        writer.complete(order, "info")
        return seconds

    async def _final_reads(self) -> None:
        """Read every key that was used."""
        options = self._options
        keys = self._keys()
        client = await self._cluster.client()
        with HistoryWriter(options.directory / "final.jsonl", clock_since(self._began)) as writer:

            async def read(slot: int) -> None:
                for key in keys[slot::_FINAL_THREADS]:
                    workload = WORKLOADS[workload_of(key)](options.keys_in_use)
                    op = writer.invoke(_FINAL_PROCESS + slot, "read", key=key, node=CONTROL)
                    done = await workload.final(client.bucket(workload.name, timeout=30), key)
                    writer.complete(op, "ok", done.value, extra={**done.extra, "final": True})

            await asyncio.gather(*map(read, range(_FINAL_THREADS)))

    def _keys(self) -> list[str]:
        keys: dict[str, None] = {}
        for host in self._cluster.clients:
            for op in _ops(self._options.directory / f"{host}.jsonl"):
                if op.key is not None:
                    keys.setdefault(op.key)
        return sorted(keys)

    async def _stop_and_dump(self) -> dumps.Replicas:
        cluster = self._cluster
        for node in cluster.nodes:
            await cluster.terminate(node)
        found = {node: dumps.dump(cluster.disks[node].data) for node in cluster.nodes}
        return dumps.replicas(found, cluster.state, REPLICAS)

    def _history(self) -> History:
        """The histories of all hosts, in order of time."""
        hosts = [*self._cluster.clients, "nemesis", "final"]
        files = [self._options.directory / f"{host}.jsonl" for host in hosts]
        merged = heapq.merge(*(_ops(file) for file in files if file.exists()), key=lambda op: op.time)
        history = History(msgspec.structs.replace(op, index=index) for index, op in enumerate(merged))
        for file in files:
            file.unlink(missing_ok=True)
        return history


def _ops(file: Path) -> Iterator[Op]:
    decoder = msgspec.json.Decoder(Op)
    with file.open("rb") as lines:
        yield from map(decoder.decode, lines)


class _Coverage:
    """What the nodes did: their counters, which begin anew with each process."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._last: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
        self.sums: Counter[str] = Counter()

    async def watch(self) -> None:
        """Look again and again."""
        while True:
            await self.look()
            await asyncio.sleep(_STATUS_SECONDS)

    async def look(self) -> None:
        """Ask all nodes now."""
        for node, status in (await self._cluster.statuses()).items():
            counters = {name: count for name, count in asdict(status.counters).items() if count}
            engine = {"flushes": status.engine.flushes, "compactions": status.engine.compactions}
            self._last[node, status.pid] = counters | engine

    def total(self) -> dict[str, int]:
        """The sums over all processes that there were."""
        total = Counter(self.sums)
        for counters in self._last.values():
            total.update(counters)
        return dict(sorted(total.items()))


def save_outcome(options: Options, outcome: Outcome) -> None:
    """Write what is not in the history into `run.json`."""
    found = {
        "options": asdict(options) | {"directory": str(options.directory)},
        "schedule": [asdict(fault) for fault in outcome.schedule],
        "skipped": outcome.skipped,
        "faults": dict(outcome.faults),
        "coverage": outcome.coverage,
        "converged_seconds": outcome.converged_seconds,
        "problem": outcome.problem,
    }
    (options.directory / "run.json").write_text(json.dumps(found, indent=1))
