"""`make bench-large`: what large values cost, and what small requests feel of them, on three nodes.

Puts of 1 MiB, one at a time, beside the time that three copies of the same value take to be written and
synced one after the other on the same disk; then gets of small values beside puts of 15 MiB, one after the
other. See bench/README.md.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click

import kvstore.aio
from bench.load import Measured, run_load
from kvstore.client.asynchronous import Bucket
from kvstore.config import MIB, Limits
from kvstore.local.cluster import LocalCluster

_COPIES = 3
_KEYS = 100
_PAUSE = 0.005
_PUT_SECONDS = 60.0


def write_copies(directory: Path, value: bytes) -> float:
    """Seconds that three copies take, each written to a file of its own and synced."""
    begin = time.perf_counter()
    for copy in range(_COPIES):
        with (directory / f"copy-{copy}").open("wb", buffering=0) as file:
            file.write(value)
            os.fdatasync(file.fileno())
    return time.perf_counter() - begin


async def beside(bucket: Bucket, work: Awaitable[object]) -> Measured:
    """Gets of small values by one caller while `work` goes on."""
    task = asyncio.ensure_future(work)
    latencies: list[float] = []
    clock = time.perf_counter
    first = clock()
    for number in itertools.count():
        begin = clock()
        await bucket.get(f"small-{number % _KEYS}")
        latencies.append(clock() - begin)
        if task.done():
            break
        await asyncio.sleep(_PAUSE)
    await task
    return Measured(len(latencies), clock() - first, tuple(sorted(latencies)))


async def _puts(endpoints: str, size: int, seconds: float) -> Measured:
    value = os.urandom(size)
    fresh = itertools.count()
    async with kvstore.aio.connect(endpoints) as db:
        bucket = db.bucket("large", timeout=_PUT_SECONDS)

        async def put(_number: int) -> None:
            # no two alike: what would be compared or compressed must not be spared that
            await bucket.put(f"{size} {next(fresh)} {time.time_ns()}", value)

        return await run_load(put, 1, seconds)


def puts(endpoints: str, size: int, seconds: float) -> Measured:
    """One caller's puts of values of this size, in a process of its own."""
    return asyncio.run(_puts(endpoints, size, seconds))


async def measure(cluster: LocalCluster, disk: Path, seconds: float) -> tuple[float, float]:
    """Print a line: puts beside copies, gets beside puts. Returns the ratio, and the p99 of the gets."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        await loop.run_in_executor(pool, os.getpid)  # it has started
        value = os.urandom(MIB)
        copies = statistics.median(write_copies(disk, value) for _ in range(20))
        small = await loop.run_in_executor(pool, puts, cluster.endpoints, MIB, seconds)
        async with kvstore.aio.connect(cluster.endpoints) as db:
            bucket = db.bucket("large", timeout=_PUT_SECONDS)
            await bucket.put_many({f"small-{i}": b"v" * 100 for i in range(_KEYS)})
            calm = await beside(bucket, asyncio.sleep(seconds))
            work = loop.run_in_executor(pool, puts, cluster.endpoints, 15 * MIB, seconds)
            gets = await beside(bucket, work)
    large = work.result()
    ratio = small.percentile(0.5) / copies
    print(f"three copies of 1 MiB: {copies * 1e3:.1f} ms; a put: {_line(small)}, {ratio:.2f} times as long")
    print(
        f"    small gets, calm: {_line(calm)}; beside puts of 15 MiB ({_line(large)}): {_line(gets)}",
        flush=True,
    )
    return ratio, gets.percentile(0.99)


def _line(measured: Measured) -> str:
    p50, p99, most = (measured.percentile(share) * 1e3 for share in (0.5, 0.99, 1.0))
    return f"p50 {p50:.1f} p99 {p99:.1f} most {most:.0f} ms of {measured.operations}"


async def rounds_of(cluster: LocalCluster, disk: Path, seconds: float, rounds: int) -> None:
    """Print a line for each round, and the medians of all."""
    found = [await measure(cluster, disk, seconds) for _ in range(rounds)]
    ratios, slowest = zip(*found, strict=True)
    print(
        f"put of 1 MiB / three copies: {statistics.median(ratios):.2f}"
        f" ({min(ratios):.2f}-{max(ratios):.2f}), at most 3 wanted;"
        f" small gets beside puts of 15 MiB, p99: {statistics.median(slowest) * 1e3:.0f} ms"
        f" ({min(slowest) * 1e3:.0f}-{max(slowest) * 1e3:.0f}), at most 20 ms wanted"
    )


@click.command()
@click.option("--seconds", default=5.0, show_default=True, help="Length of one load.")
@click.option("--rounds", default=3, show_default=True)
def main(seconds: float, rounds: int) -> None:
    """Measure a three-node cluster on this machine with large values."""
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as directory:
        cluster = LocalCluster.create(Path(directory) / "cluster", first_port=None)
        os.environ["KVNODE_MAX_VALUE"] = str(Limits.MAX_VALUE)  # the nodes inherit it
        try:
            cluster.start()
            asyncio.run(rounds_of(cluster, Path(directory), seconds, rounds))
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
