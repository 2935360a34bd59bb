"""One load on a running cluster: so many callers, each with one request at a time, for so long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Operation = Callable[[int], Awaitable[object]]
"""Performs the n-th operation of a load."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one load: operations done, seconds it took, and each operation's latency in seconds, sorted."""

    operations: int
    seconds: float
    latencies: tuple[float, ...]

    @property
    def throughput(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds

    def percentile(self, share: float) -> float:
        """The latency in seconds that `share` of the operations did not exceed."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


async def run_load(operation: Operation, concurrency: int, seconds: float) -> Measured:
    """Run `concurrency` callers for `seconds`; raises whatever an operation raises."""
    latencies: list[float] = []
    clock = time.perf_counter
    begin = clock()
    end = begin + seconds
    counter = 0

    async def caller() -> None:
        nonlocal counter
        while (start := clock()) < end:
            counter += 1
            await operation(counter)
            latencies.append(clock() - start)

    async with asyncio.TaskGroup() as callers:
        for _ in range(concurrency):
            callers.create_task(caller())
    took = clock() - begin
    return Measured(len(latencies), took, tuple(sorted(latencies)))
