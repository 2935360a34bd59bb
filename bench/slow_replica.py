"""`make bench-slow`: a read-mostly load on three nodes, one of which gets a fiftieth of the time.

That node is stopped and continued by signals, 98 ms and 2 ms in turn, so all that it does is slow: answers to
other nodes and to clients. What counts: the p99 of reads against that before, and how many reads were extra.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import click

import kvstore.aio
from bench.load import Measured
from kvstore.client.asynchronous import Bucket, Client
from kvstore.errors import KVError
from kvstore.local.cluster import LocalCluster
from kvstore.quorum.counters import TOPICS

_KEYS = 2000
_WRITE_EVERY = 20
_PERIOD = 0.1
_SETTLING = 4.0
_FIGURES = ("gets", *TOPICS["reads"])


@dataclass(frozen=True, slots=True)
class Phase:
    """Reads of one phase, as the client sees them, and what the nodes say of theirs."""

    name: str
    measured: Measured
    figures: dict[str, int]

    @property
    def extra(self) -> float:
        """Extra reads for each read: hedges and trials of nodes, and trials of the client."""
        figures, reads = self.figures, self.measured.operations
        return (figures["hedges"] + figures["read_trials"] + max(0, figures["gets"] - reads)) / reads

    def __str__(self) -> str:
        at = self.measured.percentile
        counts = ", ".join(f"{name} {count}" for name, count in self.figures.items())
        return (
            f"{self.name}: {self.measured.throughput:,.0f} reads/s, p50 {at(0.5) * 1e3:.1f} ms, "
            f"p95 {at(0.95) * 1e3:.1f}, p99 {at(0.99) * 1e3:.1f}, p99.9 {at(0.999) * 1e3:.1f}; "
            f"extra reads {self.extra:.1%}; {counts}"
        )


class Load:
    """Callers with one request each, 19 reads to a write over what the caller knows of the key."""

    def __init__(self, client: Client, callers: int) -> None:
        self._client = client
        self._bucket: Bucket = client.bucket("bench", timeout=30)
        self._callers = callers
        self._contexts: dict[bytes, bytes] = {}

    async def fill(self) -> None:
        stored = await self._bucket.put_many({b"key-%d" % i: b"v" * 256 for i in range(_KEYS)})
        self._contexts = {key: each.context for key, each in stored.items()}

    async def run(self, name: str, seconds: float) -> Phase:
        before = await self._figures()
        latencies: list[float] = []
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as callers:
            for caller in range(self._callers):
                callers.create_task(self._caller(caller, begin + seconds, latencies))
        took = time.perf_counter() - begin
        after = await self._figures()
        figures = {what: count - before[what] for what, count in after.items()}
        return Phase(name, Measured(len(latencies), took, tuple(sorted(latencies))), figures)

    async def _caller(self, caller: int, end: float, latencies: list[float]) -> None:
        number = caller * 7919
        while (start := time.perf_counter()) < end:
            number += 1
            # each caller has keys of its own, so that writes leave no siblings
            key = b"key-%d" % ((number * 31 * self._callers + caller) % _KEYS)
            if number % _WRITE_EVERY:
                self._contexts[key] = (await self._bucket.get(key)).context
                latencies.append(time.perf_counter() - start)
            else:
                await self._bucket.put(key, b"w" * 256, context=self._contexts[key])

    async def _figures(self) -> dict[str, int]:
        answers = [a for a in (await self._client.status()).values() if not isinstance(a, KVError)]
        assert len(answers) == 3, "a node does not answer"
        each = [answer.counters for answer in answers]
        return {name: sum(getattr(counters, name) for counters in each) for name in _FIGURES}


def _slow_down(pid: int, times: float, stop: Event) -> None:
    """Let a process run for one part of the time in so many."""
    try:
        while not stop.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(_PERIOD * (1 - 1 / times))
            os.kill(pid, signal.SIGCONT)
            time.sleep(_PERIOD / times)
    finally:
        os.kill(pid, signal.SIGCONT)


async def _run(cluster: LocalCluster, callers: int, seconds: float, times: float) -> None:
    spawn = multiprocessing.get_context("spawn")
    pid = cluster.pid("n3")
    assert pid is not None
    async with kvstore.aio.connect(cluster.endpoints) as client:
        load = Load(client, callers)
        await load.fill()
        await load.run("warming up", seconds / 2)
        healthy = await load.run("healthy", seconds)
        print(healthy, flush=True)
        stop = spawn.Event()
        slower = spawn.Process(target=_slow_down, args=(pid, times, stop))
        slower.start()
        try:
            slow = await load.run(f"n3 {times:g} times slower", seconds)
        finally:
            stop.set()
            await asyncio.to_thread(slower.join)
        print(slow, flush=True)
        await asyncio.sleep(_SETTLING)
        print(await load.run("recovered", seconds / 2), flush=True)
    ratio = slow.measured.percentile(0.99) / healthy.measured.percentile(0.99)
    print(f"p99 of reads: {ratio:.1f} times that of the healthy cluster; extra reads: {slow.extra:.1%}")


@click.command()
@click.option("--callers", default=16, show_default=True, help="Requests under way at a time.")
@click.option("--seconds", default=10.0, show_default=True, help="Length of a phase.")
@click.option("--times", default=50.0, show_default=True, help="How much slower the third node is.")
def main(callers: int, seconds: float, times: float) -> None:
    """Measure what readers feel of one slow replica."""
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as directory:
        cluster = LocalCluster.create(Path(directory) / "cluster", first_port=None)
        try:
            cluster.start()
            asyncio.run(_run(cluster, callers, seconds, times))
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
