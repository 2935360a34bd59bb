"""The engine beside a plain dict: each step is taken by both, and whatever is read must be the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from kvstore.errors import Overloaded
from kvstore.lsm import (
    Compaction,
    Durability,
    Engine,
    Fate,
    Job,
    JobResult,
    MemoryFileSystem,
    Options,
    RemovalJob,
    Snapshot,
    Sync,
    run_job,
)
from kvstore.lsm.messages import table_name

DATA = "data"
Batch = list[tuple[bytes, bytes | None]]
Content = dict[bytes, bytes]

_SMALL = Options(memtable_bytes=900, block_bytes=64, cache_bytes=1500, tier_tables=2, manifest_bytes=300)
_LEVELED = replace(_SMALL, compaction=Compaction.LEVELED, table_bytes=250, level_bytes=500, level_ratio=2)
OPTION_SETS: dict[str, Options] = {
    "as shipped": Options(),
    "small": _SMALL,
    "no cache": replace(_SMALL, cache_bytes=0),
    "an entry a block": replace(_SMALL, block_bytes=1),
    "one large block": replace(_SMALL, block_bytes=1 << 20),
    "an entry a memtable": replace(_SMALL, memtable_bytes=1),
    "filters that say yes": replace(_SMALL, false_positive_rate=0.99),
    "filters that never err": replace(_SMALL, false_positive_rate=1e-9),
    "few large tiers": replace(_SMALL, tier_tables=5, tier_ratio=1.0),
    "one compaction": replace(_SMALL, compactions=1, tier_ratio=100.0),
    "many compactions": replace(_SMALL, compactions=4),
    "never synced": replace(_SMALL, durability=Durability.NONE),
    "synced at times": replace(_SMALL, durability=Durability.INTERVAL),
    "leveled": _LEVELED,
    "an entry a table": replace(_LEVELED, table_bytes=1),
    "one level": replace(_LEVELED, level_bytes=1 << 30),
    "steep levels": replace(_LEVELED, level_bytes=1, compactions=3),
}


class Pair:
    """An engine and what it must hold: `states[i]` is the content after LSN `floor + i`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.fs = MemoryFileSystem()
        self.engine = Engine.open(self.fs, DATA, options)
        self.floor = 0
        self.states: list[Content] = [{}]
        self.waiting: list[Job] = []
        self.results: list[JobResult] = []
        self.snapshots: list[tuple[Snapshot, Content]] = []
        self.scans: list[tuple[Iterator[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]] = []
        self.syncing: Sync | None = None
        self.checkpoints = 0
        self.done: Counter[str] = Counter()

    @property
    def content(self) -> Content:
        """What is in the store now."""
        return self.states[-1]

    # writing

    def write(self, batch: Batch) -> None:
        try:
            lsn = self.engine.write(batch)
        except Overloaded:
            self.done["overloaded"] += 1
            self.check_scan(b"", None, False)
            self.catch_up()
            lsn = self.engine.write(batch)
        after: dict[bytes, bytes | None] = {**self.content, **dict(batch)}
        self.states.append({key: value for key, value in after.items() if value is not None})
        assert lsn == self.floor + len(self.states) - 1

    def begin_sync(self) -> None:
        if self.syncing is None:
            self.syncing = self.engine.begin_sync()
            self.fs.sync_begins(self.syncing.files if self.syncing else ())

    def finish_sync(self) -> None:
        if self.syncing is not None:
            self.syncing.run()
            assert self.engine.finish_sync(self.syncing) >= self.syncing.lsn
            self.syncing = None

    def sync(self) -> None:
        self.finish_sync()
        assert self.engine.sync() == self.engine.last_lsn

    # jobs

    def take_jobs(self) -> None:
        self.waiting += self.engine.take_jobs()

    def run_job(self, i: int) -> None:
        if self.waiting:
            job = self.waiting.pop(i % len(self.waiting))
            self.results.append(run_job(self.fs, job))

    def finish_job(self, i: int) -> None:
        if self.results:
            result = self.results.pop(i % len(self.results))
            self.engine.job_done(result)
            self.done[type(result.job).__name__] += 1

    def fail_job(self, i: int) -> None:
        """One that has not begun, has written a part of its output, or whose result was lost."""
        under_way = [*self.waiting, *(result.job for result in self.results)]
        if under_way:
            job = under_way[i % len(under_way)]
            if job in self.waiting and i % 2 and not isinstance(job, RemovalJob):
                self.fs.create(f"{DATA}/{table_name(job.outputs[0])}").append(b"part of a table")
            self.waiting = [other for other in self.waiting if other is not job]
            self.results = [result for result in self.results if result.job is not job]
            self.engine.job_failed(job)
            self.done["failed job"] += 1

    def fail_all(self) -> None:
        while self.waiting or self.results:
            self.fail_job(0)

    def catch_up(self) -> None:
        """Do all jobs until none is due."""
        self.take_jobs()
        while self.waiting or self.results:
            self.run_job(0)
            self.finish_job(0)
            self.take_jobs()

    def flush(self) -> None:
        self.finish_sync()
        self.fail_all()
        self.engine.flush()
        statistics = self.engine.statistics()
        assert statistics.sealed_memtables == statistics.memtable_bytes == 0

    def compact(self) -> None:
        self.fail_all()
        self.engine.maintenance.compact()
        runs = len(self.engine.tables.levels.runs(b"", None, False))
        assert runs <= 1, "a compaction of everything left several runs"
        self.done["full compaction"] += 1

    # ends

    def reopen(self) -> None:
        self.finish_sync()
        last_lsn = self.engine.last_lsn
        self._let_go()
        assert not self.engine._segments.active.memtable._undos, "a view that nobody holds is kept"
        self.engine.close()
        self._open()
        assert self.engine.last_lsn == last_lsn
        self.done["reopen"] += 1

    def crash(self, fate: Fate, seed: int) -> None:
        """What the engine called durable is there, and what came later up to some batch."""
        survivors = self.states[self.engine.durable_lsn - self.floor :]
        self._let_go()
        self.fs = self.fs.crash(random.Random(seed), fate)
        self._open()
        content = dict(self.engine.scan())
        assert content in survivors, f"{fate.value}: {content} is none of {survivors}"
        self.states = [content]
        self.done[f"crash, {fate.value}"] += 1

    def _let_go(self) -> None:
        self.snapshots, self.scans, self.waiting, self.results = [], [], [], []
        self.syncing = None

    def _open(self) -> None:
        self.engine = Engine.open(self.fs, DATA, self.options)
        self.states = [self.content]
        self.floor = self.engine.last_lsn
        tables = [name for name in self.fs.list(DATA) if name.endswith(".sst")]
        assert len(tables) == self.engine.statistics().tables, "a file was left behind"

    def checkpoint(self) -> None:
        self.finish_sync()
        self.checkpoints += 1
        name = f"checkpoint-{self.checkpoints}"
        self.engine.checkpoint(name)
        copy = Engine.open(self.fs, name, self.options)
        assert dict(copy.scan()) == self.content
        copy.write([(b"only in the copy", b"1")])
        copy.flush()
        copy.maintenance.compact()
        copy.close()
        assert self.engine.get(b"only in the copy") is None
        self.done["checkpoint"] += 1

    # reading

    def expected(self, start: bytes, end: bytes | None, reverse: bool) -> list[tuple[bytes, bytes]]:
        return _range(self.content, start, end, reverse)

    def check_get(self, key: bytes) -> bytes | None:
        value = self.engine.get(key)
        assert value == self.content.get(key), key
        return value

    def check_scan(self, start: bytes, end: bytes | None, reverse: bool) -> list[tuple[bytes, bytes]]:
        found = list(self.engine.scan(start, end, reverse))
        assert found == self.expected(start, end, reverse)
        return found

    def check_prefix(self, prefix: bytes, reverse: bool) -> list[tuple[bytes, bytes]]:
        found = list(self.engine.scan_prefix(prefix, reverse))
        every = sorted(self.content.items(), reverse=reverse)
        assert found == [entry for entry in every if entry[0].startswith(prefix)]
        return found

    def hold_snapshot(self) -> None:
        if len(self.snapshots) < 3:
            self.snapshots.append((self.engine.snapshot(), dict(self.content)))

    def check_snapshot(self, i: int, start: bytes, end: bytes | None, reverse: bool) -> None:
        if self.snapshots:
            snapshot, then = self.snapshots[i % len(self.snapshots)]
            assert list(snapshot.scan(start, end, reverse)) == _range(then, start, end, reverse)
            assert snapshot.get(start) == then.get(start)
            self.done["snapshot read"] += 1

    def close_snapshot(self, i: int) -> None:
        if self.snapshots:
            self.snapshots.pop(i % len(self.snapshots))[0].close()

    def begin_scan(self, start: bytes, end: bytes | None, reverse: bool) -> None:
        if len(self.scans) < 3:
            self.scans.append((self.engine.scan(start, end, reverse), self.expected(start, end, reverse)))

    def go_on_scanning(self, i: int, count: int) -> None:
        """Read some entries more of a scan that began a while ago; it sees nothing of what came since."""
        if self.scans:
            i %= len(self.scans)
            scan, expected = self.scans[i]
            found = list(islice(scan, count))
            assert found == expected[:count]
            del expected[:count]
            if len(found) < count:
                del self.scans[i]
            self.done["scan went on"] += 1


def _range(content: Content, start: bytes, end: bytes | None, reverse: bool) -> list[tuple[bytes, bytes]]:
    every = sorted(content.items(), reverse=reverse)
    return [(key, value) for key, value in every if start <= key and (end is None or key < end)]
