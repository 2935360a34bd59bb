"""`make bench-mix`: gets and puts of keys of which few are hot (zipfian), half and half and 19 to 1.

What counts beside the CPU of an operation: how many gets had to repair a replica first. Nothing is stale in
a healthy cluster, so that is what reads and writes which are under way together do to each other.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

import kvstore.aio
from bench.load import Measured, run_load
from bench.usage import Usage, look
from kvstore.client.asynchronous import Bucket, Client
from kvstore.errors import KVError
from kvstore.local.cluster import LocalCluster

if TYPE_CHECKING:
    from kvstore.client.status import NodeStatus

_KEYS = 100_000
_EXPONENT = 0.99
"""Of YCSB's zipfian distribution."""
_VALUE = b"v" * 256
_BATCH = 2000
_PUTS = {"50/50": 0.5, "95/5": 0.05}
"""By mix the share of puts."""


class Mix:
    """Gets and puts of hot and cold keys, the same ones in each run."""

    def __init__(self, bucket: Bucket, puts: float) -> None:
        self._bucket = bucket
        self._share = puts
        self._weights = list(itertools.accumulate((i + 1) ** -_EXPONENT for i in range(_KEYS)))
        self._random = random.Random(1)
        self.gets = 0

    async def one(self, _number: int) -> None:
        """One operation."""
        drawn = self._random.random() * self._weights[-1]
        key = f"key-{bisect.bisect(self._weights, drawn)}"
        if self._random.random() < self._share:
            await self._bucket.put(key, _VALUE)
        else:
            self.gets += 1
            await self._bucket.get(key)


async def _statuses(client: Client) -> list[NodeStatus]:
    answers = [each for each in (await client.status()).values() if not isinstance(each, KVError)]
    assert len(answers) == 3, "a node does not answer"
    return answers


def _line(name: str, measured: Measured, usage: Usage, gets: int, repairs: int) -> str:
    at, count = measured.percentile, measured.operations
    return (
        f"{name}: {measured.throughput:,.0f} ops/s, p50 {at(0.5) * 1e3:.1f} ms, p99 {at(0.99) * 1e3:.1f}, "
        f"CPU {usage.node_cpu / count * 1e6:.0f} + {usage.client_cpu / count * 1e6:.0f} us (nodes + client), "
        f"{repairs / gets:.2%} of {gets:,} gets repaired a replica"
    )


async def _run(cluster: LocalCluster, callers: int, seconds: float, rounds: int) -> None:
    async with kvstore.aio.connect(cluster.endpoints) as client:
        bucket = client.bucket("bench", timeout=30)
        for first in range(0, _KEYS, _BATCH):
            await bucket.put_many({f"key-{i}": _VALUE for i in range(first, first + _BATCH)})
        for name, puts in list(_PUTS.items()) * rounds:
            mix = Mix(bucket, puts)
            await run_load(mix.one, callers, seconds / 4)
            mix.gets = 0
            statuses = await _statuses(client)
            before, repairs = look(cluster, statuses), sum(s.counters.read_repairs for s in statuses)
            measured = await run_load(mix.one, callers, seconds)
            statuses = await _statuses(client)
            repairs = sum(s.counters.read_repairs for s in statuses) - repairs
            print(_line(name, measured, look(cluster, statuses).since(before), mix.gets, repairs))


@click.command()
@click.option("--callers", default=64)
@click.option("--seconds", default=4.0, help="Of one mix in one round.")
@click.option("--rounds", default=3)
def main(callers: int, seconds: float, rounds: int) -> None:
    """Measure both mixes in turn."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        cluster = LocalCluster.create(Path(directory) / "cluster", first_port=None)
        try:
            cluster.start()
            asyncio.run(_run(cluster, callers, seconds, rounds))
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
