"""`make bench-one`: one caller of three nodes, beside what no implementation could leave out.

A durable put needs one fdatasync and two round trips: client to coordinator, coordinator to replica. What
these take by themselves, by plain calls and sockets, is measured in the same round, as the machine may be
faster in the next. The synchronous client is measured beside the asynchronous one.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

import kvstore.aio
from bench.load import Measured, run_load
from bench.usage import Usage, look
from kvstore.local.cluster import LocalCluster

_VALUE = b"v" * 256
_KEYS = 1000
_RECORD = 400
"""Bytes of a small write in the log, or in a frame."""
_PROBES = 400
"""Syncs, and round trips, of one round."""


@dataclass(frozen=True, slots=True)
class Floor:
    """Medians in seconds: an fdatasync after a small append, and a round trip between two processes."""

    sync: float
    round_trip: float

    @property
    def put(self) -> float:
        """What a durable put cannot do without."""
        return self.sync + 2 * self.round_trip


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of request through one client."""

    what: str
    through: str


@dataclass(frozen=True, slots=True)
class Round:
    """One load's figures."""

    measured: Measured
    usage: Usage

    @property
    def node_us(self) -> float:
        """CPU of all nodes for an operation, in microseconds."""
        return self.usage.node_cpu / self.measured.operations * 1e6

    @property
    def client_us(self) -> float:
        """The same of the client."""
        return self.usage.client_cpu / self.measured.operations * 1e6


def _median_seconds(act: Callable[[], object]) -> float:
    clock = time.perf_counter
    taken = []
    for _ in range(_PROBES):
        begin = clock()
        act()
        taken.append(clock() - begin)
    return statistics.median(taken)


def _sync_seconds(directory: Path) -> float:
    with (directory / "appended").open("ab", buffering=0) as file:

        def append() -> None:
            file.write(b"r" * _RECORD)
            os.fdatasync(file.fileno())

        return _median_seconds(append)


def _echo(ports: Connection) -> None:
    """In a process of its own: send back whatever comes on one connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports.send(server.getsockname()[1])
        opened, _ = server.accept()
        with opened:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := opened.recv(65536):
                opened.sendall(data)


def _round_trip_seconds() -> float:
    context = multiprocessing.get_context("spawn")
    ports, theirs = context.Pipe()
    process = context.Process(target=_echo, args=(theirs,), daemon=True)
    process.start()
    try:
        with socket.create_connection(("127.0.0.1", ports.recv())) as opened:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def there_and_back() -> None:
                opened.sendall(b"f" * _RECORD)
                left = _RECORD
                while left:
                    left -= len(opened.recv(left))

            return _median_seconds(there_and_back)
    finally:
        process.join()


class Bench:
    """Loads on one cluster."""

    def __init__(self, cluster: LocalCluster, seconds: float) -> None:
        self._cluster = cluster
        self._seconds = seconds
        self._fresh = itertools.count()

    def fill(self) -> None:
        """Write the keys that gets read."""
        with kvstore.connect(self._cluster.endpoints) as db:
            db.bucket("bench").put_many({f"key-{i}": _VALUE for i in range(_KEYS)})

    def measure(self, load: Load) -> Round:
        """Run one load."""
        if load.through == "async":
            return asyncio.run(self._asynchronous(load.what))
        return self._synchronous(load.what)

    async def _asynchronous(self, what: str) -> Round:
        async with kvstore.aio.connect(self._cluster.endpoints) as db:
            bucket = db.bucket("bench")

            async def act(number: int) -> None:
                if what == "put":
                    await bucket.put(f"fresh-{next(self._fresh)}", _VALUE)
                else:
                    await bucket.get(_key(number))

            await run_load(act, 1, self._seconds / 4)
            before = look(self._cluster, ())
            measured = await run_load(act, 1, self._seconds)
            return Round(measured, look(self._cluster, ()).since(before))

    def _synchronous(self, what: str) -> Round:
        with kvstore.connect(self._cluster.endpoints) as db:
            bucket = db.bucket("bench")

            def act(number: int) -> None:
                if what == "put":
                    bucket.put(f"fresh-{next(self._fresh)}", _VALUE)
                else:
                    bucket.get(_key(number))

            _one_after_the_other(act, self._seconds / 4)
            before = look(self._cluster, ())
            measured = _one_after_the_other(act, self._seconds)
            return Round(measured, look(self._cluster, ()).since(before))


def _key(number: int) -> str:
    return f"key-{number * 7919 % _KEYS}"


def _one_after_the_other(act: Callable[[int], None], seconds: float) -> Measured:
    latencies: list[float] = []
    clock = time.perf_counter
    begin = clock()
    while (start := clock()) < begin + seconds:
        act(len(latencies))
        latencies.append(clock() - start)
    return Measured(len(latencies), clock() - begin, tuple(sorted(latencies)))


LOADS = tuple(Load(what, through) for what in ("put", "get") for through in ("async", "sync"))


def _spread(numbers: list[float], form: str) -> str:
    low, middle, high = (
        format(each, form) for each in (min(numbers), statistics.median(numbers), max(numbers))
    )
    return f"{middle} ({low}-{high})"


def _print(floors: list[Floor], results: dict[Load, list[Round]]) -> None:
    print(f"fdatasync after a small append: {_spread([1e6 * f.sync for f in floors], '.0f')} us")
    print(f"round trip of plain sockets: {_spread([1e6 * f.round_trip for f in floors], '.0f')} us")
    shown = Table("", "client", "ops/s", "p50 us", "p99 us", "CPU us/op, nodes", "client")
    for load, rounds in results.items():
        shown.add_row(
            load.what,
            load.through,
            _spread([r.measured.throughput for r in rounds], ",.0f"),
            _spread([1e6 * r.measured.percentile(0.5) for r in rounds], ".0f"),
            _spread([1e6 * r.measured.percentile(0.99) for r in rounds], ".0f"),
            _spread([r.node_us for r in rounds], ".0f"),
            _spread([r.client_us for r in rounds], ".0f"),
        )
    Console(width=120).print(shown)
    for through in ("async", "sync"):
        puts = results[Load("put", through)]
        ratios = [r.measured.percentile(0.5) / floor.put for r, floor in zip(puts, floors, strict=True)]
        print(f"put p50 / (fdatasync + 2 round trips), {through}: {_spread(ratios, '.2f')}")
    for what in ("put", "get"):
        pairs = zip(results[Load(what, "sync")], results[Load(what, "async")], strict=True)
        ratios = [one.client_us / other.client_us for one, other in pairs]
        print(f"{what}, CPU of the synchronous client / the asynchronous one: {_spread(ratios, '.2f')}")


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="Length of one load.")
@click.option("--rounds", default=3, show_default=True)
def main(seconds: float, rounds: int) -> None:
    """Measure one caller of a three-node cluster on this machine."""
    floors: list[Floor] = []
    results: dict[Load, list[Round]] = {load: [] for load in LOADS}
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as directory:
        cluster = LocalCluster.create(Path(directory) / "cluster", first_port=None)
        try:
            cluster.start()
            bench = Bench(cluster, seconds)
            bench.fill()
            for _ in range(rounds):
                floors.append(Floor(_sync_seconds(Path(directory)), _round_trip_seconds()))
                for load in LOADS:
                    results[load].append(bench.measure(load))
        finally:
            cluster.stop()
    _print(floors, results)


if __name__ == "__main__":
    main()
