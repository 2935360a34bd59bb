"""`make bench-overload`: what three nodes still do when they are offered several times what they can.

Callers come at a fixed rate and wait for nobody (an open loop), each with a short deadline and without a
second attempt. The most that the cluster does is found first, by callers that wait (a closed loop). Nodes run
on one core and the callers on another, so that offering much takes nothing from those who serve.

What counts: how much is done in time (goodput, as a share of the most), how fast a refusal comes, how much
memory the nodes take, and how long a request takes as soon as it is over. See bench/README.md.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import psutil
from rich.console import Console
from rich.table import Table

from bench.load import Measured, run_load
from kvstore.client.core.client import ClientCore
from kvstore.client.core.waiter import Answer
from kvstore.client.discovery import discover
from kvstore.client.dispatcher import Dispatcher
from kvstore.client.endpoints import parse_endpoints
from kvstore.config import MIB
from kvstore.errors import KVError, Overloaded
from kvstore.local.cluster import LocalCluster
from kvstore.protocol.client import Put, Success
from kvstore.ring import partition_of, token
from kvstore.versions import BucketName, UserKey

_BUCKET = BucketName("bench")
_VALUE = b"v" * 256
_TICK = 0.005
_CALLERS = 256
_FEW_CALLERS = 8
_CLOSED_DEADLINE = 10.0


@dataclass(slots=True)
class Outcomes:
    """Of an open loop: seconds that each request took, by how it ended."""

    done: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    offered: int = 0
    seconds: float = 0.0
    most_memory: int = 0

    @property
    def goodput(self) -> float:
        """Requests done in time, per second."""
        return len(self.done) / self.seconds


class Load:
    """Puts of fresh keys, each sent once to the first replica of its key."""

    def __init__(self, core: ClientCore, pids: Sequence[int]) -> None:
        self._core = core
        self._fresh = itertools.count()
        self.failed = 0
        self._processes = [psutil.Process(pid) for pid in pids]

    def _submit(self, deadline: float) -> asyncio.Future[Success]:
        key = UserKey(b"fresh-%d" % next(self._fresh))
        routing = self._core.routing
        state = routing.state
        calls = routing.pick(partition_of(token(_BUCKET, key), state.ring.partitions))
        assert calls is not None, "no node is connected"
        future: asyncio.Future[Success] = asyncio.get_running_loop().create_future()
        try:
            calls.submit(Put(_BUCKET, key, _VALUE), deadline, state.epoch, _Asker(future))
        except Overloaded as error:
            future.set_exception(error)
        else:
            self._core.watch(calls)
        return future

    async def closed(self, callers: int, seconds: float) -> Measured:
        """Callers that wait for their replies; `failed` counts those that were none."""
        loop = asyncio.get_running_loop()
        self.failed = 0

        async def put(_number: int) -> None:
            try:
                await self._submit(loop.time() + _CLOSED_DEADLINE)
            except KVError:
                self.failed += 1

        return await run_load(put, callers, seconds)

    async def open(self, rate: float, seconds: float, deadline: float) -> Outcomes:
        """So many a second, whatever becomes of them."""
        loop = asyncio.get_running_loop()
        outcomes = Outcomes()
        begin = loop.time()
        looked = begin
        while (now := loop.time()) < begin + seconds:
            while outcomes.offered < (now - begin) * rate:
                outcomes.offered += 1
                self._submit(now + deadline).add_done_callback(_Note(outcomes, now))
            if now - looked > 0.1:
                looked = now
                outcomes.most_memory = max(outcomes.most_memory, self.memory())
            await asyncio.sleep(_TICK)
        outcomes.seconds = loop.time() - begin
        await asyncio.sleep(0.0)
        return outcomes

    def memory(self) -> int:
        """Of the largest node."""
        return max(int(process.memory_info().rss) for process in self._processes)


class _Asker:
    """Passes the answer to one attempt on."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Success]) -> None:
        self._future = future

    def left(self) -> bool:
        return self._future.done()

    def on_answer(self, answer: Answer, now: float) -> None:
        if self._future.done():
            return
        if isinstance(answer, KVError):
            self._future.set_exception(answer)
        else:
            self._future.set_result(answer)


class _Note:
    """Writes down how one request ended."""

    __slots__ = ("_outcomes", "_since")

    def __init__(self, outcomes: Outcomes, since: float) -> None:
        self._outcomes = outcomes
        self._since = since

    def __call__(self, future: asyncio.Future[Success]) -> None:
        took = future.get_loop().time() - self._since
        error = future.exception()
        if error is None:
            self._outcomes.done.append(took)
        elif isinstance(error, Overloaded):
            self._outcomes.refused.append(took)
        else:
            assert isinstance(error, KVError)
            self._outcomes.late.append(took)


def _percentile(values: Sequence[float], share: float) -> str:
    if not values:
        return "-"
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3:.0f}"


async def _run(cluster: LocalCluster, seconds: float, deadline: float, factors: Sequence[float]) -> None:
    pids = [pid for pid in map(cluster.pid, cluster.nodes) if pid]
    endpoints = parse_endpoints(cluster.endpoints)
    dispatcher = Dispatcher(endpoints, await discover(endpoints, 5.0))
    routing = dispatcher.core.routing
    async with asyncio.timeout(5.0):
        while len(routing.reached) < len(routing.nodes):  # noqa: ASYNC110  (it has no event for it)
            await asyncio.sleep(0.01)
    load = Load(dispatcher.core, pids)
    await load.closed(_CALLERS, seconds / 2)
    most = (await load.closed(_CALLERS, seconds)).throughput
    assert not load.failed, "callers that wait for each other are no overload"
    before = await load.closed(_FEW_CALLERS, seconds / 2)
    shown = Table("offered", "goodput", "share", "p50, p99 ms", "refused", "p50, p99 ms", "late", "MiB")
    print(
        f"the most, {_CALLERS} callers: {most:,.0f}/s; {load.memory() / MIB:.0f} MiB; deadline {deadline:g} s"
    )
    for factor in factors:
        outcomes = await load.open(factor * most, seconds, deadline)
        after = await load.closed(_FEW_CALLERS, 0.5)
        shown.add_row(
            f"{outcomes.offered / outcomes.seconds / most:.1f} x",
            f"{outcomes.goodput:,.0f}/s",
            f"{outcomes.goodput / most:.0%}",
            f"{_percentile(outcomes.done, 0.5)}, {_percentile(outcomes.done, 0.99)}",
            f"{len(outcomes.refused) / outcomes.offered:.0%}",
            f"{_percentile(outcomes.refused, 0.5)}, {_percentile(outcomes.refused, 0.99)}",
            f"{len(outcomes.late) / outcomes.offered:.0%}",
            f"{outcomes.most_memory / MIB:.0f}",
        )
        ratio = after.percentile(0.5) / before.percentile(0.5)
        print(
            f"{factor:g} x: in the half second after it, {_FEW_CALLERS} callers:"
            f" p50 {ratio:.1f} times that of before, slowest {after.percentile(1.0) * 1e3:.0f} ms,"
            f" {load.failed} failed"
        )
        await asyncio.sleep(1.0)
    Console(width=120).print(shown)
    await dispatcher.close()


@click.command()
@click.option("--seconds", default=5.0, show_default=True, help="Length of one load.")
@click.option(
    "--deadline", default=0.25, show_default=True, help="Of each request of an open loop, in seconds."
)
@click.option("--factors", default="1,2,4", show_default=True, help="Loads as multiples of the most.")
def main(seconds: float, deadline: float, factors: str) -> None:
    """Offer a three-node cluster on this machine more than it can do."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as directory:
        cluster = LocalCluster.create(Path(directory) / "cluster", first_port=None)
        try:
            os.sched_setaffinity(0, {cores[0]})  # the nodes inherit it
            cluster.start()
            os.sched_setaffinity(0, {cores[-1]})
            asyncio.run(_run(cluster, seconds, deadline, [float(text) for text in factors.split(",")]))
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
