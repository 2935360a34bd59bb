"""`make bench-growth`: what a put costs with 12 nodes instead of 3, and with 8 client processes instead of 1.

The number of callers stays the same, 256 and 64 in all, and every load is measured in turn, in several
rounds. What counts is the CPU of all nodes and clients for each put, as a ratio to three nodes and one
client in the same round. See bench/README.md.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import click

import kvstore.aio
from bench.load import run_load
from bench.rounds import ratios, spread
from bench.usage import Usage, look
from kvstore.local.cluster import LocalCluster

_VALUE = b"v" * 256
_CALLERS = (256, 64)
_REFERENCE = (3, 1)
_WANTED = {(12, 1): 2.0, (3, 8): 1.3}
"""By nodes and client processes: CPU of a put, at most so many times that of the reference."""


@dataclass(frozen=True, slots=True)
class Round:
    """One load: puts done, seconds it took, CPU seconds of nodes and of clients, messages in a frame."""

    puts: int
    seconds: float
    node_cpu: float
    client_cpu: float
    batch: float

    @property
    def cpu(self) -> float:
        """Microseconds of nodes and clients for a put."""
        return (self.node_cpu + self.client_cpu) / self.puts * 1e6


async def _client(endpoints: str, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    fresh = itertools.count()
    async with kvstore.aio.connect(endpoints) as db:
        bucket = db.bucket("bench", timeout=30)

        async def put(_number: int) -> None:
            await bucket.put(b"fresh-%d-%d" % (os.getpid(), next(fresh)), _VALUE)

        await put(0)
        pipe.send(None)  # it is connected
        while (load := await loop.run_in_executor(None, pipe.recv)) is not None:
            callers, seconds = load
            before = sum(os.times()[:2])
            measured = await run_load(put, callers, seconds)
            pipe.send((measured.operations, sum(os.times()[:2]) - before))


def _run_client(endpoints: str, pipe: Connection) -> None:
    asyncio.run(_client(endpoints, pipe))


class Clients:
    """Client processes of one cluster, each with a part of the callers."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def load(self, callers: int, seconds: float) -> tuple[int, float]:
        """Puts by so many callers in all, for so long: how many, and the CPU seconds of the clients."""
        for pipe in self._pipes:
            pipe.send((callers // len(self._pipes), seconds))
        answers = [pipe.recv() for pipe in self._pipes]
        return sum(puts for puts, _ in answers), sum(cpu for _, cpu in answers)


@contextmanager
def clients(endpoints: str, count: int) -> Iterator[Clients]:
    """So many processes, connected."""
    spawn = multiprocessing.get_context("spawn")
    pairs = [spawn.Pipe() for _ in range(count)]
    processes = [spawn.Process(target=_run_client, args=(endpoints, theirs)) for _, theirs in pairs]
    pipes = [mine for mine, _ in pairs]
    try:
        for process, (_, theirs) in zip(processes, pairs, strict=True):
            process.start()
            theirs.close()  # a process that ends is noticed, instead of being waited for
        for pipe in pipes:
            pipe.recv()
        yield Clients(pipes)
        for pipe in pipes:
            pipe.send(None)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            if process.pid is not None:
                process.join()


def _look(cluster: LocalCluster) -> Usage:
    found = list(cluster.statuses().values())
    assert len(found) == len(cluster.nodes), "a node does not answer"
    return look(cluster, found)


def measure(cluster: LocalCluster, by: Clients, callers: int, seconds: float) -> Round:
    """One load, after a warm-up of a quarter of its time."""
    by.load(callers, seconds / 4)
    before = _look(cluster)
    puts, client_cpu = by.load(callers, seconds)
    usage = _look(cluster).since(before)
    return Round(puts, seconds, usage.node_cpu, client_cpu, usage.messages / max(1, usage.frames))


def _print(found: dict[tuple[int, int, int], list[Round]]) -> None:
    for (nodes, processes, callers), rounds in found.items():
        reference = found[(*_REFERENCE, callers)]
        grown = ratios([each.cpu for each in rounds], [each.cpu for each in reference])
        wanted = _WANTED.get((nodes, processes))
        print(
            f"{nodes:>2} nodes, {processes} client{'s' if processes > 1 else ' '}, {callers:>3} callers: "
            f"{spread([each.puts / each.seconds for each in rounds])} puts/s, "
            f"CPU of a put {spread([each.cpu for each in rounds])} us "
            f"({spread([each.client_cpu / each.puts * 1e6 for each in rounds])} of clients), "
            f"{spread([each.batch for each in rounds], 1)} messages a frame"
            + (f"; {spread(grown, 2)} times the reference, at most {wanted:g} wanted" if wanted else "")
        )


@contextmanager
def _clusters(directory: Path) -> Iterator[dict[int, LocalCluster]]:
    sizes = sorted({nodes for nodes, _ in (_REFERENCE, *_WANTED)})
    clusters = {n: LocalCluster.create(directory / f"{n}-nodes", n, first_port=None) for n in sizes}
    try:
        for cluster in clusters.values():
            cluster.start()
        yield clusters
    finally:
        for cluster in clusters.values():
            cluster.stop()


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="Length of one load.")
@click.option("--rounds", default=3, show_default=True)
def main(seconds: float, rounds: int) -> None:
    """Measure clusters of 3 and 12 nodes on this machine, and 1 and 8 client processes."""
    found: dict[tuple[int, int, int], list[Round]] = {}
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as directory, _clusters(Path(directory)) as by:
        for number in range(rounds):
            for nodes, processes in (_REFERENCE, *_WANTED):
                with clients(by[nodes].endpoints, processes) as loaded:
                    for callers in _CALLERS:
                        measured = measure(by[nodes], loaded, callers, seconds)
                        found.setdefault((nodes, processes, callers), []).append(measured)
            print(f"round {number + 1} of {rounds} done", flush=True)
    _print(found)


if __name__ == "__main__":
    main()
