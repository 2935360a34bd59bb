"""`make bench`: three nodes on this machine, N=3 W=2 R=2, fsync before every ack.

Puts and gets at several concurrencies, through unary calls and through the Python client, in turn and in
several rounds; each row is the median round, with the spread of the throughput. What counts are the
ratios: see bench/README.md.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

import kvstore.aio
from bench.load import Measured, Operation, run_load
from bench.unary import UnaryClient
from bench.usage import Usage, look
from kvstore.client.asynchronous import Bucket, Client
from kvstore.errors import KVError
from kvstore.local.cluster import LocalCluster

_BUCKET = "bench"
_VALUE = b"v" * 256
_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured: an operation, how it is sent, and how many callers there are."""

    what: str
    through: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of a load."""

    measured: Measured
    usage: Usage


class Bench:
    """All loads on one cluster."""

    def __init__(self, cluster: LocalCluster, client: Client, unary: UnaryClient, seconds: float) -> None:
        self._cluster = cluster
        self._client = client
        self._bucket: Bucket = client.bucket(_BUCKET, timeout=30)
        self._unary = unary
        self._seconds = seconds
        self._fresh = itertools.count()

    async def fill(self) -> None:
        """The keys that gets will read."""
        keys = [b"key-%d" % i for i in range(_KEYS)]
        for i in range(0, _KEYS, 500):
            await self._bucket.put_many(dict.fromkeys(keys[i : i + 500], _VALUE))

    async def measure(self, load: Load) -> Round:
        """One round of a load."""
        before = await self._look()
        measured = await run_load(self._operation(load), load.concurrency, self._seconds)
        return Round(measured, (await self._look()).since(before))

    async def _look(self) -> Usage:
        answers = (await self._client.status()).values()
        found = [answer for answer in answers if not isinstance(answer, KVError)]
        return look(self._cluster, found)

    def _operation(self, load: Load) -> Operation:
        unary = load.through == "unary"

        # puts always to fresh keys: written again without a context, a key would collect siblings
        async def put(_number: int) -> None:
            key = b"fresh-%d" % next(self._fresh)
            if unary:
                await self._unary.put(_BUCKET, key, _VALUE)
            else:
                await self._bucket.put(key, _VALUE)

        async def get(number: int) -> None:
            key = b"key-%d" % (number * 7919 % _KEYS)
            if unary:
                await self._unary.get(_BUCKET, key)
            else:
                await self._bucket.get(key)

        return put if load.what == "put" else get


async def _run(cluster: LocalCluster, seconds: float, rounds: int, concurrencies: list[int]) -> None:
    loads = [
        Load(what, through, concurrency)
        for what in ("put", "get")
        for concurrency in concurrencies
        for through in ("unary", "client")
    ]
    results: dict[Load, list[Round]] = {load: [] for load in loads}
    async with (
        kvstore.aio.connect(cluster.endpoints) as client,
        UnaryClient(await client.ring()) as unary,
    ):
        bench = Bench(cluster, client, unary, seconds)
        await bench.fill()
        for number in range(rounds):
            for load in loads:
                results[load].append(await bench.measure(load))
            print(f"round {number + 1} of {rounds} done", flush=True)
    _print(results)


def _print(results: dict[Load, list[Round]]) -> None:
    shown = Table("", "through", "callers", "ops/s", "min-max", "p50 ms", "p99 ms", "CPU us/op", "msgs/frame")
    for load, rounds in results.items():
        middle = sorted(rounds, key=lambda r: r.measured.throughput)[len(rounds) // 2]
        throughputs = [r.measured.throughput for r in rounds]
        measured, usage = middle.measured, middle.usage
        cpu = (usage.node_cpu + usage.client_cpu) / measured.operations * 1e6
        shown.add_row(
            load.what,
            load.through,
            str(load.concurrency),
            f"{measured.throughput:,.0f}",
            f"{min(throughputs):,.0f}-{max(throughputs):,.0f}",
            f"{measured.percentile(0.5) * 1e3:.1f}",
            f"{measured.percentile(0.99) * 1e3:.1f}",
            f"{cpu:.0f} ({usage.client_cpu / measured.operations * 1e6:.0f} of the driver)",
            f"{usage.messages / max(1, usage.frames):.1f}",
        )
    Console(width=120).print(shown)
    _print_ratios(results)


def _print_ratios(results: dict[Load, list[Round]]) -> None:
    """The client against unary calls, round by round, so that a machine that drifts does not matter."""
    for load, rounds in results.items():
        if load.through == "client":
            unary = results[Load(load.what, "unary", load.concurrency)]
            ratios = [
                a.measured.throughput / b.measured.throughput for a, b in zip(rounds, unary, strict=True)
            ]
            print(
                f"{load.what} at {load.concurrency}: client / unary = {statistics.median(ratios):.1f} "
                f"({min(ratios):.1f}-{max(ratios):.1f})"
            )


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="Length of one load.")
@click.option("--rounds", default=3, show_default=True, help="How often each load is measured.")
@click.option("--callers", default="1,16,64,256", show_default=True, help="Concurrencies.")
def main(seconds: float, rounds: int, callers: str) -> None:
    """Measure a three-node cluster on this machine."""
    concurrencies = [int(text) for text in callers.split(",")]
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as directory:
        cluster = LocalCluster.create(Path(directory) / "cluster", first_port=None)
        try:
            cluster.start()
            asyncio.run(_run(cluster, seconds, rounds, concurrencies))
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
