"""The machine that a node runs on. It outlives the node's process."""

from __future__ import annotations

import random
from collections import Counter

from kvstore.lsm import Fate, MemoryFileSystem
from kvstore.protocol.instant import Instant
from kvstore.sim.scheduler import EPOCH_MS, Clock, Scheduler
from kvstore.sim.storage import SYNC_SECONDS, Disk


class Machine:
    """A disk, two clocks, and the randomness of what runs here: all follow from the seed and the name."""

    def __init__(self, name: str, scheduler: Scheduler, seed: str) -> None:
        self.name = name
        self.scheduler = scheduler
        self.disk = MemoryFileSystem()
        self.how_disk_works = Disk()
        self.clock = Clock(scheduler)
        self.clock_error_ms = 0
        """By how much the wall clock is ahead."""
        self.disk_rng = random.Random(f"{seed}/disk/{name}")
        self.node_rng = random.Random(f"{seed}/node/{name}")
        self.links_rng = random.Random(f"{seed}/links/{name}")

    def instant(self) -> Instant:
        """What both clocks say now."""
        wall = EPOCH_MS + int(self.scheduler.now * 1000) + self.clock_error_ms
        return Instant(self.clock.now(), wall)

    @property
    def wall(self) -> int:
        """What its wall clock says, in milliseconds since 1970."""
        return self.instant().wall

    def slow_down(self, sync_seconds: float = SYNC_SECONDS) -> None:
        """Let syncs take so long from now on, and jobs accordingly; without an argument: as usual."""
        self.how_disk_works.sync_seconds = sync_seconds

    def some_fate(self) -> Fate:
        """Of what was not synced when the disk itself ends the life of a process."""
        return self.disk_rng.choice((Fate.RANDOM, Fate.PAGES))

    def lose_unsynced(self, fate: Fate) -> Counter[str]:
        """What was not synced meets its fate; how much of it fared how."""
        self.disk = self.disk.crash(self.disk_rng, fate)
        return self.disk.fates
