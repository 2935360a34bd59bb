"""The process "nemesis": makes the faults of a schedule, and tells the history."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext

from jepsen.cluster import Cluster
from jepsen.history import HistoryWriter
from jepsen.nemeses import LOSE_DATA, NEMESES
from jepsen.nemeses.base import Nemesis, NotNow
from jepsen.schedule import Fault
from jepsen.system import CommandFailed


class NemesisProcess:
    """Makes faults at their times, or late if others keep them waiting, until the last was to end.

    `made` counts those that were made, by kind.
    """

    def __init__(self, cluster: Cluster, writer: HistoryWriter) -> None:
        self._cluster = cluster
        self._writer = writer
        self.made: Counter[str] = Counter()
        self._starting = asyncio.Lock()
        self._over = 0.0

    async def run(self, schedule: Sequence[Fault]) -> None:
        """Make all faults, and undo them."""
        self._over = max((fault.end for fault in schedule), default=0.0)
        tracks = {fault.track for fault in schedule}
        await asyncio.gather(*(self._in_turn([f for f in schedule if f.track == t]) for t in tracks))

    async def _in_turn(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            await self._until(fault.begin)
            await self._one(fault)

    async def _one(self, fault: Fault) -> None:
        nemesis = NEMESES[fault.nemesis]
        order = self._writer.nemesis(f"start-{nemesis.name}", fault.value)
        try:
            # one at a time: a fault may have to wait until there is no other
            async with self._starting:
                began = self._now()
                await self._start(nemesis, fault)
        except (NotNow, CommandFailed, OSError) as error:
            self._writer.complete(order, "info", error=str(error))
            return
        self._writer.complete(order, "info")
        self.made[nemesis.name] += 1
        await self._until(began + fault.end - fault.begin)
        order = self._writer.nemesis(f"stop-{nemesis.name}", fault.value)
        # new splits would keep lost data from coming back, and all faults of its track waiting to the end
        async with self._starting if nemesis.name in LOSE_DATA else nullcontext():
            await nemesis.stop(self._cluster, fault.value)
        self._cluster.fault(nemesis.name, False)
        self._writer.complete(order, "info")

    async def _start(self, nemesis: Nemesis, fault: Fault) -> None:
        if self._now() > self._over:
            raise NotNow("the run is over: another fault has kept it waiting")
        await nemesis.start(self._cluster, fault.value)
        self._cluster.fault(nemesis.name, True)

    async def _until(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds - self._now()))

    def _now(self) -> float:
        """Seconds since the run began."""
        return self._writer.now() / 1e9
