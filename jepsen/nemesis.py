"""The process "nemesis": makes the faults of a schedule, and tells the history."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from jepsen.cluster import Cluster
from jepsen.history import HistoryWriter
from jepsen.nemeses import NEMESES
from jepsen.nemeses.base import NotNow
from jepsen.schedule import Fault
from jepsen.system import CommandFailed


class NemesisProcess:
    """Makes faults at their times. `made` counts those that were made, by kind."""

    def __init__(self, cluster: Cluster, writer: HistoryWriter) -> None:
        self._cluster = cluster
        self._writer = writer
        self.made: Counter[str] = Counter()

    async def run(self, schedule: Sequence[Fault]) -> None:
        """Make all faults, and undo them."""
        tracks: dict[str, asyncio.Task[None]] = {}
        for fault in schedule:
            await self._until(fault.begin)
            # two faults of one kind never overlap: in the history they could not be told apart
            if previous := tracks.get(fault.nemesis):
                await previous
            tracks[fault.nemesis] = asyncio.create_task(self._one(fault))
        await asyncio.gather(*tracks.values())

    async def _one(self, fault: Fault) -> None:
        nemesis = NEMESES[fault.nemesis]
        order = self._writer.nemesis(f"start-{nemesis.name}", fault.value)
        try:
            await nemesis.start(self._cluster, fault.value)
        except (NotNow, CommandFailed, OSError) as error:
            self._writer.complete(order, "info", error=str(error))
            return
        self._writer.complete(order, "info")
        self.made[nemesis.name] += 1
        await self._until(fault.end)
        order = self._writer.nemesis(f"stop-{nemesis.name}", fault.value)
        await nemesis.stop(self._cluster, fault.value)
        self._writer.complete(order, "info")

    async def _until(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds - self._writer.now() / 1e9))
