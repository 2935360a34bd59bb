"""`make bench-open`: the latency of requests that arrive at random at half of the rate that is the peak.

The peak is what 256 callers in a closed loop reach, found in each round anew. Requests then arrive as a
Poisson process and wait for nobody (an open loop). A latency counts from the planned arrival, so that a
generator which is late does not leave out the requests that waited meanwhile (coordinated omission); how
late it was is printed too, and how long fdatasync took on the same disk. See bench/README.md.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

import kvstore.aio
from bench.fsync import FsyncProbe, fsync_probe
from bench.load import Measured, Operation, run_load
from kvstore.client.asynchronous import Bucket
from kvstore.local.cluster import LocalCluster

_VALUE = b"v" * 256
_KEYS = 10_000
_PEAK_CALLERS = 256
_PACED_CALLERS = 64
_SHARE = 0.5
_WANTED = {0.5: 0.004, 0.99: 0.020}
"""Seconds that a share of the requests may take at the most."""


def arrivals(rate: float, seconds: float, generator: random.Random) -> list[float]:
    """When requests arrive, in seconds from the begin: a Poisson process of `rate` a second."""
    times = itertools.accumulate(generator.expovariate(rate) for _ in itertools.count())
    return list(itertools.takewhile(lambda at: at < seconds, times))


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What an open loop saw: latencies from the planned arrivals, and how late each request was begun."""

    measured: Measured
    lag: Measured


async def run_open(operation: Operation, schedule: Sequence[float]) -> OpenLoop:
    """Begin an operation at each of these times; raises whatever an operation raises."""
    latencies: list[float] = []
    lags: list[float] = []
    clock = time.perf_counter
    begin = clock()

    async def one(number: int, planned: float) -> None:
        await operation(number)
        latencies.append(clock() - planned)

    async with asyncio.TaskGroup() as requests:
        for number, at in enumerate(schedule):
            planned = begin + at
            if (early := planned - clock()) > 0:
                await asyncio.sleep(early)
            lags.append(clock() - planned)
            requests.create_task(one(number, planned))
    took = clock() - begin
    return OpenLoop(_measured(latencies, took), _measured(lags, took))


async def run_paced(operation: Operation, callers: int, rate: float, seconds: float) -> Measured:
    """A closed loop that is held to `rate` operations a second: each caller waits for its next turn."""
    latencies: list[float] = []
    clock = time.perf_counter
    begin = clock()
    numbers = itertools.count()

    async def caller(first: float) -> None:
        turn = first
        while turn < begin + seconds:
            await asyncio.sleep(turn - clock())
            start = clock()
            await operation(next(numbers))
            latencies.append(clock() - start)
            turn = max(turn + callers / rate, clock())

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(begin + number / rate))
    return _measured(latencies, clock() - begin)


def _measured(latencies: list[float], seconds: float) -> Measured:
    return Measured(len(latencies), seconds, tuple(sorted(latencies)))


class Rounds:
    """Measures puts and gets of one cluster in turn, and keeps what was found."""

    def __init__(self, bucket: Bucket, probe: FsyncProbe, seconds: float) -> None:
        fresh = itertools.count()

        async def put(_number: int) -> None:
            await bucket.put(b"fresh-%d" % next(fresh), _VALUE)

        async def get(number: int) -> None:
            await bucket.get(b"key-%d" % (number * 7919 % _KEYS))

        self._operations: dict[str, Operation] = {"put": put, "get": get}
        self._probe = probe
        self._seconds = seconds
        self._random = random.Random(1)
        self.found: dict[str, list[OpenLoop]] = {name: [] for name in self._operations}

    async def one(self) -> None:
        """A round: of puts, then of gets, the peak, the open loop and the paced closed one."""
        for name, operation in self._operations.items():
            peak = await run_load(operation, _PEAK_CALLERS, self._seconds / 2)
            rate = peak.throughput * _SHARE
            await asyncio.sleep(self._seconds / 4)  # what the peak left behind is flushed
            self._probe.take()
            opened = await run_open(operation, arrivals(rate, self._seconds, self._random))
            syncs = self._probe.take()
            paced = await run_paced(operation, _PACED_CALLERS, rate, self._seconds)
            self.found[name].append(opened)
            print(
                f"{name}: peak {peak.throughput:,.0f}/s; open loop at {opened.measured.throughput:,.0f}/s: "
                f"{_percentiles(opened.measured)}; begun late by {_percentiles(opened.lag)}; "
                f"fdatasync {_percentiles(_measured(syncs, self._seconds))}; "
                f"{_PACED_CALLERS} callers at {paced.throughput:,.0f}/s: {_percentiles(paced)}",
                flush=True,
            )


def _percentiles(measured: Measured) -> str:
    p50, p99 = (measured.percentile(share) * 1e3 for share in _WANTED)
    return f"p50 {p50:.1f} p99 {p99:.1f} ms"


def _summary(name: str, found: Sequence[OpenLoop]) -> str:
    parts = []
    for share, wanted in _WANTED.items():
        each = [one.measured.percentile(share) * 1e3 for one in found]
        middle = statistics.median(each)
        met = "met" if middle <= wanted * 1e3 else "missed"
        parts.append(
            f"p{share * 100:.0f} {middle:.1f} ({min(each):.1f}-{max(each):.1f}), "
            f"at most {wanted * 1e3:.0f} wanted: {met}"
        )
    return f"{name}, open loop, ms: {'; '.join(parts)}"


async def _run(cluster: LocalCluster, probe: FsyncProbe, seconds: float, rounds: int) -> None:
    async with kvstore.aio.connect(cluster.endpoints) as client:
        bucket = client.bucket("bench", timeout=30)
        for first in range(0, _KEYS, 500):
            await bucket.put_many({b"key-%d" % i: _VALUE for i in range(first, first + 500)})
        measuring = Rounds(bucket, probe, seconds)
        for _ in range(rounds):
            await measuring.one()
    for name, found in measuring.found.items():
        print(_summary(name, found))


@click.command()
@click.option("--seconds", default=4.0, show_default=True, help="Length of one load.")
@click.option("--rounds", default=3, show_default=True)
def main(seconds: float, rounds: int) -> None:
    """Measure a three-node cluster on this machine at half of its peak."""
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as directory:
        cluster = LocalCluster.create(Path(directory) / "cluster", first_port=None)
        try:
            cluster.start()
            with fsync_probe(Path(directory)) as probe:
                asyncio.run(_run(cluster, probe, seconds, rounds))
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
