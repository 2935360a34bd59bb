"""The jobs of a store: which flushes, compactions and removals are due and which run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from kvstore.errors import Corruption, StorageError, StorageFull, UnsupportedFormat
from kvstore.lsm.cache import BlockCache
from kvstore.lsm.compaction import Choice, choose, everything
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.jobs import CompactionJob, FlushJob, Job, JobResult, RemovalJob
from kvstore.lsm.levels import Levels
from kvstore.lsm.manifest import Manifest
from kvstore.lsm.options import Options
from kvstore.lsm.quarantine import Fence, LostTable, whole
from kvstore.lsm.segments import Segments
from kvstore.lsm.sstable import WHOLE, Table, TableInfo, table_name
from kvstore.lsm.sstable_writer import write_tables


class Maintenance:
    """Hands out jobs and takes their results into use. `levels` are the tables of this moment."""

    def __init__(
        self, fs: FileSystem, directory: str, options: Options, manifest: Manifest, cache: BlockCache
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._options = options
        self._manifest = manifest
        self._cache = cache
        self._busy: set[int] = set()
        self._compacting = 0
        self._changed = True
        self.fences: dict[tuple[int, int], Fence] = {}
        """What is quarantined, by table and block."""
        self.noticed: list[Fence] = []
        """Those that nobody has been told of."""
        self._rewrites: set[int] = set()
        self.levels = Levels(self._open_all(manifest.tables.values(), self._open_or_lose))
        self._obsolete: list[str] = []
        self._removing = False
        self.flushes = self.compactions = 0
        self.flushed_bytes = self.compacted_bytes = 0
        self._replaced_filters: Counter[str] = Counter()

    def open_table(self, info: TableInfo) -> Table:
        """A table for reading through the cache; raises Corruption, UnsupportedFormat."""
        table = Table(self._fs, self._directory, info, self._cache)
        table.on_damage = self._quarantine
        return table

    def _open_or_lose(self, info: TableInfo) -> Table:
        """A table, even if it cannot be opened; raises UnsupportedFormat."""
        try:
            return self.open_table(info)
        except Corruption as error:
            self._put_up(whole(info))
            return LostTable(self._directory, info, error)

    # handing out

    def due(self, segments: Segments) -> list[Job]:
        """The jobs that should be started now; each is given out once until it is done or has failed."""
        jobs: list[Job] = []
        # one flush at a time and in order: a flushed table's age is its last LSN
        if segments.sealed and not segments.sealed[0].flushing:
            jobs.append(self.flush_job(segments))
        if self._rewrites:
            jobs += self._rewrites_due()
        if self._changed:
            self._changed = False
            while self._compacting < self._options.compactions and (job := self._next_compaction()):
                jobs.append(job)
        # beside whatever else runs: under steady writes no worker ever has nothing to do, and the disk fills
        if self._obsolete and not self._removing:
            jobs.append(self._removal())
        return jobs

    def _removal(self) -> RemovalJob:
        self._removing = True
        names, self._obsolete = tuple(self._obsolete), []
        return RemovalJob(self._directory, names)

    def flush_job(self, segments: Segments) -> FlushJob:
        """Make a table of the oldest sealed segment."""
        segment = segments.sealed[0]
        segment.flushing = True
        outputs = (self._manifest.take_number(),)
        return FlushJob(
            self._directory, segment.number, segment.floor, segment.last_lsn, outputs, self._options
        )

    def _next_compaction(self) -> CompactionJob | None:
        choice = choose(self.levels.infos(), self._busy | self._quarantined(), self._options)
        return self._compaction_job(choice) if choice else None

    def full_compaction(self) -> CompactionJob | None:
        """Merge all tables into one run; None when there is nothing to gain. No other may be under way."""
        infos = self.levels.infos()
        choice = everything(infos, self._options) if infos else None
        done = choice and len(infos) == 1 and infos[0].level == choice.level and not infos[0].deletions
        return self._compaction_job(choice) if choice and not done else None

    def _compaction_job(self, choice: Choice, left_out: tuple[int, ...] = ()) -> CompactionJob:
        self._compacting += 1
        self._busy.update(info.number for info in choice.inputs)
        size = sum(info.size for info in choice.inputs)
        count = 1 if choice.level == 0 else size // self._options.table_bytes + 2
        outputs = tuple(self._manifest.take_number() for _ in range(count))
        return CompactionJob(
            self._directory,
            choice.inputs,
            choice.level,
            choice.drop_deletions,
            outputs,
            self._options,
            left_out,
        )

    # taking back

    def flushed(self, result: JobResult, segments: Segments) -> None:
        """The oldest sealed segment is in a table."""
        self._replace((), result.tables, segments.sealed[0].last_lsn)
        self._changed = True
        self.flushes += 1
        self.flushed_bytes += sum(info.size for info in result.tables)
        self._obsolete.append(segments.flushed())

    def flush_here(self, segments: Segments) -> None:
        """Make a table of the oldest sealed memtable, here and now; raises StorageFull: it is as it was."""
        job = self.flush_job(segments)
        try:
            self._flush_from_memory(job, segments)
        except StorageFull:
            self.failed(job, segments)
            raise

    def _flush_from_memory(self, job: FlushJob, segments: Segments) -> None:
        memtable = segments.sealed[0].memtable
        chunks = memtable.chunks(b"", None)
        infos = write_tables(
            self._fs, job.directory, job.outputs, chunks, 0, job.last_lsn, len(memtable), job.options
        )
        self.flushed(JobResult(job, infos), segments)

    def compacted(self, job: CompactionJob, result: JobResult) -> None:
        """The inputs of a compaction have been merged: they go."""
        numbers = tuple(info.number for info in job.inputs)
        self._replace(numbers, result.tables, 0)
        self._give_back(job)
        self.compactions += 1
        self.compacted_bytes += sum(info.size for info in result.tables)
        self._forget(numbers)

    def _forget(self, numbers: Sequence[int]) -> None:
        """Tables have been replaced by others."""
        self._rewrites.difference_update(numbers)
        self.fences = {place: fence for place, fence in self.fences.items() if fence.table not in numbers}
        self._obsolete += map(table_name, numbers)

    def removed(self) -> None:
        """The removal is done."""
        self._removing = False

    def _replace(self, removed: Sequence[int], added: Sequence[TableInfo], flushed_lsn: int) -> None:
        """Opened before anything is changed: a table that cannot be read must not replace what can."""
        opened = self._open_all(added, self.open_table)
        try:
            self._manifest.edit(added, removed, flushed_lsn)
        except StorageError:
            _close_all(opened)
            raise
        # a scan may still read the old ones: their files close with the last reference
        self._put(opened, removed)

    def _put(self, tables: Iterable[Table], removed: Sequence[int]) -> None:
        """Put tables in the place of others, whose filters' answers still count."""
        replaced = [table for table in self.levels if table.info.number in removed]
        self._replaced_filters += _answers(replaced)
        for table in replaced:
            table.leave_cache()
        self.levels = self.levels.replace(removed, tables)

    def filter_answers(self) -> Counter[str]:
        """How often filters have been `useful`, `false` and `true` since the store was opened."""
        return self._replaced_filters + _answers(self.levels)

    def _open_all(self, infos: Iterable[TableInfo], open_one: Callable[[TableInfo], Table]) -> list[Table]:
        opened: list[Table] = []
        try:
            for info in infos:
                opened.append(open_one(info))  # noqa: PERF401  (to close them if one fails)
        except BaseException:
            _close_all(opened)
            raise
        return opened

    def _give_back(self, job: CompactionJob) -> None:
        self._compacting -= 1
        self._busy.difference_update(info.number for info in job.inputs)
        self._changed = True

    def failed(self, job: Job, segments: Segments) -> None:
        """A job could not be done: its outputs are removed, and it will be offered again."""
        match job:
            case FlushJob():
                segments.sealed[0].flushing = False
            case CompactionJob():
                self._give_back(job)
            case RemovalJob():
                self._removing = False
                self._obsolete += job.names
                return
        unused = [number for number in job.outputs if number not in self._manifest.tables]
        self._obsolete += map(table_name, unused)
        self.remove_obsolete()

    def remove_obsolete(self) -> None:
        """Remove files that nothing needs, here and now. What cannot be removed is left to the next job."""
        for name in tuple(self._obsolete):
            with suppress(StorageError):
                self._fs.remove(f"{self._directory}/{name}")
                self._obsolete.remove(name)

    # quarantine

    def _quarantine(self, table: Table, block: int) -> None:
        """A reader has met damage."""
        first, last = whole(table.info)[2:] if block == WHOLE else table.key_range(block)
        self._put_up(Fence(table.info.number, block, first, last))
        if block == WHOLE:
            lost = LostTable(self._directory, table.info, Corruption(table.path, "its index is damaged"))
            self._put([lost], (table.info.number,))

    def _put_up(self, fence: Fence) -> None:
        if (fence.table, fence.block) not in self.fences:
            self.fences[fence.table, fence.block] = fence
            self.noticed.append(fence)

    def met_damage(self, result: JobResult, segments: Segments) -> None:
        """A job could not read what it should: nothing of it may be dropped, nor tried for ever.

        What a damaged segment holds is in memory still. Damaged blocks and tables are quarantined.
        """
        match result.job:
            case FlushJob() as job:
                self._flush_from_memory(job, segments)
            case CompactionJob() as job:
                self.failed(job, segments)
                tables = {table.info.number: table for table in self.levels}
                for number, block in result.damaged:
                    table = tables.get(number)  # None: it was lost as a whole, and has been replaced
                    if table is not None and block == WHOLE:
                        self._quarantine(table, WHOLE)
                    elif table is not None:
                        with suppress(Corruption):  # its index too: then all of it is quarantined
                            table.fence(block)

    def _quarantined(self) -> set[int]:
        """Tables that no compaction may choose."""
        return {fence.table for fence in self.fences.values()} | self._rewrites

    def scrub(self) -> int:
        """Read all tables; how much is damaged."""
        met = 0
        for table in self.levels:
            try:
                fresh = Table(self._fs, self._directory, table.info, None)
            except (Corruption, UnsupportedFormat):
                self._quarantine(table, WHOLE)
                met += 1
                continue
            for block in fresh.damaged_blocks():
                if block not in table.left_out:
                    met += 1
                    table.fence(block)
            fresh.close()
        return met

    def lift(self, fence: Fence) -> None:
        """All that might be behind a fence is known better: what is damaged leaves the disk.

        Raises StorageFull: the fence stays.
        """
        place = fence.table, fence.block
        table = next((table for table in self.levels if table.info.number == fence.table), None)
        if place not in self.fences or table is None:  # a compaction could read it after all
            return
        if fence.block == WHOLE:
            self._replace((fence.table,), (), 0)
            table.close()
            self._forget((fence.table,))
            self._changed = True
        else:
            table.leave_out(fence.block)
            self._rewrites.add(fence.table)
            del self.fences[place]

    def _rewrites_due(self) -> list[Job]:
        """Tables to be written anew without the blocks that are left out, once no fence is left in them."""
        fenced = {fence.table for fence in self.fences.values()}
        due = self._rewrites - fenced - self._busy
        return [
            self._compaction_job(Choice((table.info,), table.info.level, False), table.left_out)
            for table in self.levels
            if table.info.number in due
        ]

    def close(self) -> None:
        """Close all tables, leaving no file that nothing needs."""
        self.remove_obsolete()
        _close_all(self.levels)


def _answers(tables: Iterable[Table]) -> Counter[str]:
    answers: Counter[str] = Counter()
    for table in tables:
        answers.update(useful=table.filter_useful, false=table.filter_false, true=table.filter_true)
    return answers


def _close_all(tables: Iterable[Table]) -> None:
    for table in tables:
        table.close()
