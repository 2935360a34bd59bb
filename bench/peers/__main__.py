"""`make bench-peers`: kvstore beside etcd, Redis or Valkey, Dynomite and Cassandra, where they can be had.

Three servers of each on this machine, all running, and loaded one after the other by one client process: the
same load by all peers in turn, in several rounds. A put is synced before it is acknowledged; values have 256
bytes. CPU is user and system time of the servers and of the client. See bench/README.md.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench.load import Operation, run_load
from bench.peers.cassandra import Cassandra
from bench.peers.etcd import Etcd
from bench.peers.own import Kvstore
from bench.peers.peer import Missing, Peer
from bench.peers.redis import Dynomite, RedisQuorum, RedisWait
from bench.rounds import ratios, spread

_VALUE = b"v" * 256
_KEYS = 5_000
_FILLERS = 64
_MANY, _ONE = 256, 1
_WANTED_THROUGHPUT: dict[type[Peer], float] = {Dynomite: 0.75, Etcd: 4.0, Cassandra: 12.0}
"""Of kvstore at 256 callers, in multiples of the peer's."""
_WANTED_CPU: dict[type[Peer], float] = {Etcd: 0.5}
"""Of kvstore at one caller, as a share of the peer's."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured of a peer."""

    peer: type[Peer]
    what: str
    callers: int


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement: operations a second, and seconds of CPU for one, of the servers and of the client."""

    throughput: float
    servers: float
    client: float

    @property
    def cpu(self) -> float:
        """Seconds of servers and client for an operation."""
        return self.servers + self.client


Results = dict[Load, list[Round]]


class Bench:
    """One peer under load."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._fresh = itertools.count()
        self._operations: dict[str, Operation] = {"put": self._put, "get": self._get}

    async def _put(self, _number: int) -> None:
        await self._peer.put(b"fresh-%d" % next(self._fresh), _VALUE)

    async def _get(self, number: int) -> None:
        value = await self._peer.get(b"key-%d" % (number * 7919 % _KEYS))
        assert value == _VALUE, "another value than was put"

    async def warm_up(self, seconds: float) -> None:
        """Store the keys that gets read, then load puts and gets for so long each (a JVM compiles)."""
        numbers = iter(range(_KEYS))

        async def fill() -> None:
            for number in numbers:
                await self._peer.put(b"key-%d" % number, _VALUE)

        await asyncio.gather(*(fill() for _ in range(_FILLERS)))
        for what in self._operations:
            await run_load(self._operations[what], _FILLERS, seconds)

    async def measure(self, what: str, callers: int, seconds: float) -> Round:
        """One load."""
        servers, client = self._peer.server_cpu(), sum(os.times()[:2])
        measured = await run_load(self._operations[what], callers, seconds)
        servers, client = self._peer.server_cpu() - servers, sum(os.times()[:2]) - client
        count = measured.operations
        return Round(measured.throughput, servers / count, client / count)


def _makers(programs: str | None, jars: Path | None) -> dict[str, Callable[[], Peer]]:
    return {
        "kvstore": Kvstore,
        "dynomite": lambda: Dynomite(programs),
        "redis": lambda: RedisQuorum(programs),
        "redis-wait": lambda: RedisWait(programs),
        "etcd": lambda: Etcd(programs),
        "cassandra": lambda: Cassandra(programs, jars),
    }


def found(makers: dict[str, Callable[[], Peer]], names: Sequence[str]) -> list[Peer]:
    """Those of these peers that can be had, after a line for each that cannot."""
    peers: list[Peer] = []
    for name in names:
        try:
            peers.append(makers[name]())
        except Missing as missing:
            print(f"missing: {name}: {missing}")
    return peers


def _print(results: Results) -> None:
    table = Table("", "callers", "", "ops/s", "CPU us/op", "servers + client")
    for load, rounds in results.items():
        servers = statistics.median(each.servers for each in rounds) * 1e6
        client = statistics.median(each.client for each in rounds) * 1e6
        table.add_row(
            load.what,
            str(load.callers),
            load.peer.name,
            spread([each.throughput for each in rounds]),
            spread([each.cpu * 1e6 for each in rounds]),
            f"{servers:,.0f} + {client:,.0f}",
        )
    Console(width=120).print(table)


def goals(results: Results) -> list[str]:
    """A line for each goal that these rounds say something of."""
    lines = []
    for load, rounds in results.items():
        own = results.get(Load(Kvstore, load.what, load.callers))
        if own is None or load.peer is Kvstore:
            continue
        faster = ratios([each.throughput for each in own], [each.throughput for each in rounds])
        cheaper = ratios([each.cpu for each in own], [each.cpu for each in rounds])
        line = f"{load.what} at {load.callers}: kvstore / {load.peer.name}: throughput {spread(faster, 2)}"
        if load.callers == _MANY and (wanted := _WANTED_THROUGHPUT.get(load.peer)):
            line += f" (wanted: at least {wanted:g})"
        line += f", CPU {spread(cheaper, 2)}"
        if load.callers == _ONE and (wanted := _WANTED_CPU.get(load.peer)):
            line += f" (wanted: at most {wanted:g})"
        lines.append(line)
    return lines


async def _run(
    peers: Sequence[Peer], callers: Sequence[int], seconds: float, warm: float, rounds: int, directory: Path
) -> None:
    results: Results = {}
    async with AsyncExitStack() as stack:
        for number, peer in enumerate(peers):
            stack.push_async_callback(peer.stop)
            await peer.start(directory / str(number))
            print(f"{peer.name}: {peer.guarantee}; client: {peer.client}", flush=True)
        benches = {type(peer): Bench(peer) for peer in peers}
        for bench in benches.values():
            await bench.warm_up(warm)
        for number in range(rounds):
            for what, count in itertools.product(("put", "get"), callers):
                for kind, bench in benches.items():
                    measured = await bench.measure(what, count, seconds)
                    results.setdefault(Load(kind, what, count), []).append(measured)
            print(f"round {number + 1} of {rounds} done", flush=True)
    _print(results)
    print("\n".join(goals(results)))


@click.command()
@click.option("--seconds", default=2.0, show_default=True, help="Length of one load.")
@click.option("--rounds", default=3, show_default=True, help="How often each load is measured.")
@click.option("--callers", default="1,64,256", show_default=True, help="Concurrencies.")
@click.option("--warm", default=8.0, show_default=True, help="Seconds of puts and of gets before the rounds.")
@click.option("--peers", default=None, help="Names of those to measure; all that can be had by default.")
@click.option("--programs", default=None, help="Directory of their programs; the PATH by default.")
@click.option("--cassandra", type=click.Path(path_type=Path), help="Directory of Cassandra's jars.")
def main(
    seconds: float,
    rounds: int,
    callers: str,
    warm: float,
    peers: str | None,
    programs: str | None,
    cassandra: Path | None,
) -> None:
    """Measure kvstore beside other stores of equal durability."""
    makers = _makers(programs, cassandra)
    names = peers.split(",") if peers else list(makers)
    if unknown := set(names) - set(makers):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: not among {', '.join(makers)}")
    counts = [int(text) for text in callers.split(",")]
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as directory:
        asyncio.run(_run(found(makers, names), counts, seconds, warm, rounds, Path(directory)))


if __name__ == "__main__":
    main()
