"""What takes the engine through every change of its disk, and a ledger of what it has promised meanwhile."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import pytest

from kvstore.lsm import (
    Compaction,
    CompactionJob,
    Engine,
    Job,
    MemoryFileSystem,
    Options,
    SimulatedCrash,
    run_job,
)

Batch = list[tuple[bytes, bytes | None]]
DATA = "data"


@dataclass(frozen=True)
class Plan:
    """One workload: with `together` compactions take a few steps, so that two run at the same time."""

    name: str
    options: Options
    together: bool = False
    steps: int = 48


_TIERED = Options(
    memtable_bytes=2500, block_bytes=256, cache_bytes=2000, tier_tables=2, tier_ratio=4, manifest_bytes=100
)
_LEVELED = Options(
    memtable_bytes=2500,
    block_bytes=128,
    cache_bytes=2000,
    table_bytes=400,
    compaction=Compaction.LEVELED,
    tier_tables=2,
    level_bytes=800,
    level_ratio=2,
    manifest_bytes=100,
)
PLANS = [
    Plan("tiered", _TIERED),
    Plan("leveled", _LEVELED),
    Plan("tiered, two at a time", _TIERED, together=True),
    Plan("leveled, two at a time", _LEVELED, together=True),
]


@dataclass
class Ledger:
    """What was written and promised: batch i has LSN i + 1, also after a clean reopen."""

    batches: list[Batch] = field(default_factory=list)
    acknowledged: int = 0
    checkpoints: dict[str, int] = field(default_factory=dict)
    """The moment of each checkpoint that has begun."""
    completed: set[str] = field(default_factory=set)

    def after(self, count: int) -> dict[bytes, bytes]:
        """The content when the first `count` batches are in."""
        content: dict[bytes, bytes | None] = {}
        for batch in self.batches[:count]:
            content.update(batch)
        return {key: value for key, value in content.items() if value is not None}


@cache
def batch_number(step: int) -> Batch:
    """Each batch holds its own number, so that no two moments have the same content."""
    rng = random.Random(step)
    batch: Batch = [(b"step", b"%d" % step)]
    for _ in range(rng.randrange(1, 6)):
        key = b"key-%02d" % rng.randrange(40)
        batch.append((key, None if rng.random() < 0.2 else rng.randbytes(rng.randrange(60))))
    return batch


class EveryCrash(MemoryFileSystem):
    """At each call that changes something, `look` is shown the disk as a crash in that call would find it.

    Then the call is done as if nothing had been: one run of a workload goes through all of its crashes, and
    not each crash through what is before it.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self.crash_at = 1
        self._look = look

    def stop(self) -> None:
        self._look()

    def mutate(self, path: str) -> float | None:
        self.torn = torn_at(self.mutations + 1)
        return super().mutate(path)


class Run:
    """A plan being carried out; `SimulatedCrash` ends it, and `ledger` tells what must have survived."""

    def __init__(self, fs: MemoryFileSystem, plan: Plan) -> None:
        self.fs = fs
        self.plan = plan
        self.ledger = Ledger()
        self.events: Counter[str] = Counter()
        self._waiting: list[CompactionJob] = []

    def all(self) -> None:
        """The whole plan, with a clean reopen in its middle."""
        for steps in (range(self.plan.steps // 2), range(self.plan.steps // 2, self.plan.steps)):
            self.engine = Engine.open(self.fs, DATA, self.plan.options)
            for step in steps:
                self._step(step)
            self._compact_waiting()
            self.engine.close()
            self.ledger.acknowledged = len(self.ledger.batches)

    def _step(self, step: int) -> None:
        self._write(batch_number(step))
        if step % 3 == 0:
            self._sync(step)
        self._work(step)
        if step % 16 == 13:
            self._checkpoint(step)

    def _write(self, batch: Batch) -> None:
        self.ledger.batches.append(batch)
        self.engine.write(batch)

    def _sync(self, step: int) -> None:
        """Every other time a batch comes while the sync is under way, which does not vouch for it."""
        if sync := self.engine.begin_sync():
            self.fs.sync_begins(sync.written)
            if step % 2:
                self._write([(b"meanwhile", b"%d" % step)])
            self.events["large records"] += len(sync.writes)
            self.events["large records of a sealed segment"] += sum(
                write.segment in sync.sealed for write in sync.writes
            )
            sync.run()
            self.ledger.acknowledged = self.engine.finish_sync(sync)

    def _work(self, step: int) -> None:
        for job in self.engine.take_jobs():
            if isinstance(job, CompactionJob):
                self._waiting.append(job)
            else:
                self._run(job)
        if not self.plan.together or len(self._waiting) > 1 or step % 8 == 0:
            self._compact_waiting()

    def _compact_waiting(self) -> None:
        self.events["two at a time"] += len(self._waiting) > 1
        waiting, self._waiting = self._waiting, []
        results = [run_job(self.fs, job) for job in waiting]
        for result in reversed(results):  # the one begun last is done first
            self._done(result.job)
            self.engine.job_done(result)

    def _run(self, job: Job) -> None:
        result = run_job(self.fs, job)
        self.engine.job_done(result)
        self._done(job)
        # a flush makes durable what it holds
        self.ledger.acknowledged = max(self.ledger.acknowledged, self.engine.durable_lsn)

    def _done(self, job: Job) -> None:
        kind = f"compaction to level {job.level}" if isinstance(job, CompactionJob) else type(job).__name__
        self.events[kind] += 1

    def _checkpoint(self, step: int) -> None:
        name = f"checkpoint-{step}"
        self.ledger.checkpoints[name] = len(self.ledger.batches)
        self.engine.checkpoint(name)
        self.ledger.completed.add(name)
        self.ledger.acknowledged = len(self.ledger.batches)
        self.events["checkpoint"] += 1


def torn_at(crash_at: int) -> float:
    """Which part of an append still happens when the crash is in that call."""
    return (crash_at % 10) / 10


def crashed_run(plan: Plan, crash_at: int) -> tuple[MemoryFileSystem, Ledger]:
    """The disk of a run that was cut short, before it is known what of it is left, and what was promised."""
    fs = MemoryFileSystem()
    fs.crash_at, fs.torn = crash_at, torn_at(crash_at)
    run = Run(fs, plan)
    with pytest.raises(SimulatedCrash):
        run.all()
    return fs, run.ledger
