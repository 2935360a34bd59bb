"""`make bench-hostile`: nodes under attacks that mean much work, with a well-behaved client beside them.

Each attack of `bench.attacks` goes on for some seconds against one of three nodes, from a process of its own.
The client puts and gets small values of its own all the while. What counts: how long its calls take at p99,
against the seconds before; whether one of them failed; how much memory the attacked node takes. See
bench/README.md.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Table

import kvstore.aio
from bench.attacks import ATTACKS, BUCKET, LARGE_KEY, SIBLINGS_KEY, carry_out
from kvstore.client.asynchronous import Bucket
from kvstore.config import MIB
from kvstore.errors import KVError
from kvstore.local.cluster import LocalCluster

_CALLERS = 4
_PAUSE = 0.005
_LOOK = 0.05
_ENTRIES = 30_000
_PREPARING = 30.0
_MOST_SLOWER, _MOST_SECONDS, _MOST_MEMORY = 3.0, 0.05, 200 * MIB


@dataclass(slots=True)
class Served:
    """What a well-behaved client saw for a while, and the most memory that the node took meanwhile."""

    latencies: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    memory: int = 0

    def percentile(self, share: float) -> float:
        """In seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def behave(bucket: Bucket, served: Served, node: psutil.Process, until: asyncio.Event) -> None:
    """Put and get small values, some at a time, until told to stop."""
    clock = asyncio.get_running_loop().time

    async def caller(number: int) -> None:
        turn = 0
        while not until.is_set():
            turn += 1
            begin = clock()
            key = f"good {number} {turn // 2 % 100}"
            try:
                await (bucket.get(key) if turn % 2 else bucket.put(key, b"v" * 100, context=b""))
            except KVError as error:
                served.failed.append(str(error))
            served.latencies.append(clock() - begin)
            await asyncio.sleep(_PAUSE)

    async def look() -> None:
        while not until.is_set():
            served.memory = max(served.memory, node.memory_info().rss)
            await asyncio.sleep(_LOOK)

    async with asyncio.TaskGroup() as group:
        group.create_task(look())
        for number in range(_CALLERS):
            group.create_task(caller(number))


async def watched(bucket: Bucket, node: psutil.Process, work: asyncio.Future[Any]) -> Served:
    """What a client is served while `work` goes on."""
    served, until = Served(), asyncio.Event()
    client = asyncio.create_task(behave(bucket, served, node, until))
    await asyncio.wait([work])
    until.set()
    await client
    return served


def _attack(name: str, address: str, node: str, seconds: float) -> dict[str, int]:
    os.nice(10)  # it shares a core with the client that is measured
    return asyncio.run(carry_out(name, address, node, seconds))


async def prepare(bucket: Bucket) -> None:
    """What the attacks need."""
    await bucket.put(LARGE_KEY, bytes(MIB))
    await bucket.put(b"small", b"v")
    for i in range(22):
        # blind: each stays beside the others
        await bucket.put(SIBLINGS_KEY, bytes([i]) * MIB, context=b"", timeout=_PREPARING)
    for first in range(0, _ENTRIES, 1000):
        await bucket.put_many({f"entry {i}": b"v" for i in range(first, first + 1000)})


def row(name: str, calm: Served, attacked: Served, answers: dict[str, int]) -> tuple[list[str], bool]:
    """A row of the table, and whether all is within the bounds."""
    before, during = calm.percentile(0.99), attacked.percentile(0.99)
    more = attacked.memory - calm.memory
    good = (
        during <= max(_MOST_SLOWER * before, before + _MOST_SECONDS)
        and not attacked.failed
        and more <= _MOST_MEMORY
    )
    cells = [
        name,
        f"{before * 1e3:.0f}",
        f"{during * 1e3:.0f}",
        f"{max(attacked.latencies) * 1e3:.0f}",
        f"{len(attacked.failed)} of {len(attacked.latencies):,}",
        f"{more / MIB:+.0f}",
        ", ".join(f"{answer} {count:,}" for answer, count in sorted(answers.items())),
        "yes" if good else "NO",
    ]
    return cells, good


async def run(cluster: LocalCluster, names: list[str], seconds: float) -> bool:
    """Print the table; whether all attacks stayed within the bounds."""
    node, address = next(iter(cluster.layout.addresses.items()))
    pid = cluster.pid(node)
    assert pid
    process = psutil.Process(pid)
    console = Console(width=150)
    table = Table("attack", "calm p99 ms", "p99", "slowest", "failed", "MiB", "answers", "good")
    fine = True
    loop = asyncio.get_running_loop()
    async with kvstore.aio.connect(cluster.endpoints) as db:
        bucket = db.bucket(BUCKET)
        await prepare(bucket)
        for name in names:
            calm = await watched(bucket, process, asyncio.ensure_future(asyncio.sleep(seconds / 2)))
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                await loop.run_in_executor(pool, os.getpid)  # it has started
                work = loop.run_in_executor(pool, _attack, name, address, node, seconds)
                attacked = await watched(bucket, process, work)
                cells, good = row(name, calm, attacked, work.result())
            fine = fine and good
            table.add_row(*cells)
            console.print(" | ".join(cells))
            for error in attacked.failed[:3]:
                console.print(f"    {error}")
            await asyncio.sleep(1.0)
    console.print(table)
    return fine


@click.command()
@click.option("--seconds", default=4.0, show_default=True, help="Length of one attack.")
@click.option("--only", default="", help="Attacks with this in their names.")
def main(seconds: float, only: str) -> None:
    """Attack a three-node cluster on this machine while a client uses it; exit code 1: a bound was passed."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as directory:
        cluster = LocalCluster.create(Path(directory) / "cluster", first_port=None)
        try:
            os.sched_setaffinity(0, {cores[0]})  # the nodes inherit it
            cluster.start()
            os.sched_setaffinity(0, {cores[-1]})
            fine = asyncio.run(run(cluster, [name for name in ATTACKS if only in name], seconds))
        finally:
            cluster.stop()
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
