"""Maintaining a store: flushes, compactions and removals are handed out, their results taken into use."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.errors import Corruption, StorageError, StorageFailed
from kvstore.lsm.compaction_scheduler import CompactionScheduler
from kvstore.lsm.config import Options
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.jobs import run_job
from kvstore.lsm.manifest import Manifest
from kvstore.lsm.messages import WHOLE, CompactionJob, FlushJob, Job, JobResult, RemovalJob, table_name
from kvstore.lsm.obsolete_files import ObsoleteFiles
from kvstore.lsm.pace import Pace, full_speed
from kvstore.lsm.quarantine import Fence
from kvstore.lsm.segments import Segments
from kvstore.lsm.sstable_writer import write_tables
from kvstore.lsm.table_set import TableSet


class Maintenance:
    """Made by `Engine`. Once a change of the manifest has failed, every call raises StorageFailed."""

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        options: Options,
        manifest: Manifest,
        segments: Segments,
        tables: TableSet,
        obsolete: ObsoleteFiles,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._options = options
        self._manifest = manifest
        self._segments = segments
        self._tables = tables
        self._obsolete = obsolete
        self._compactions = CompactionScheduler(directory, options, tables, manifest.take_number)
        self.flushes = self.compactions = 0
        self.flushed_bytes = self.compacted_bytes = 0

    # handing out

    def take_jobs(self) -> list[Job]:
        """The jobs that should be started now; each is given out once until it is done or has failed."""
        jobs: list[Job] = []
        sealed, compactions, obsolete = self._segments.sealed, self._compactions, self._obsolete
        # one flush at a time and in order: a flushed table's age is its last LSN
        if sealed and not sealed[0].flushing and sealed[0].complete:
            jobs.append(self._flush_job())
        if compactions.changed or compactions.rewrites:
            jobs += compactions.due()
        # beside whatever else runs: under steady writes no worker ever has nothing to do, and the disk fills
        if obsolete.names and not obsolete.removing:
            jobs.append(obsolete.job())
        return jobs

    def _flush_job(self) -> FlushJob:
        """Make a table of the oldest sealed segment."""
        segment = self._segments.sealed[0]
        segment.flushing = True
        outputs = (self._manifest.take_number(),)
        return FlushJob(
            self._directory, segment.number, segment.floor, segment.last_lsn, outputs, self._options
        )

    # taking back

    def job_done(self, result: JobResult) -> None:
        """Take the output of a job into use and remove its inputs.

        Raises StorageFull when that could not be noted: the job has to be done again, after `job_failed`.
        After StorageFailed half of it may be in use: only recovery can tell, nothing more may be written.
        """
        self._segments.check()
        try:
            match result.job:
                case _ if result.damaged:
                    self._met_damage(result)
                case FlushJob():
                    self._flushed(result)
                case CompactionJob() as job:
                    self._compacted(job, result)
                case RemovalJob():
                    self._obsolete.removed()
        except StorageFailed as error:
            self._segments.failed = error
            raise

    def _flushed(self, result: JobResult) -> None:
        """The oldest sealed segment is in a table."""
        self._tables.replace((), result.tables, self._segments.sealed[0].last_lsn)
        self._compactions.changed = True
        self.flushes += 1
        self.flushed_bytes += sum(info.size for info in result.tables)
        self._obsolete.add([self._segments.flushed()])

    def _compacted(self, job: CompactionJob, result: JobResult) -> None:
        """The inputs of a compaction have been merged: they go."""
        numbers = tuple(info.number for info in job.inputs)
        self._tables.replace(numbers, result.tables, 0)
        self._compactions.over(job)
        self.compactions += 1
        self.compacted_bytes += sum(info.size for info in result.tables)
        self._forget(numbers)

    def _forget(self, tables: Sequence[int]) -> None:
        """Tables have been replaced by others."""
        self._compactions.forget(tables)
        self._tables.quarantine.forget(tables)
        self._obsolete.add(map(table_name, tables))

    def _met_damage(self, result: JobResult) -> None:
        """A job could not read what it should: nothing of it may be dropped, nor tried for ever.

        What a damaged segment holds is in memory still. Damaged blocks and tables are quarantined.
        """
        match result.job:
            case FlushJob(directory=directory, outputs=outputs, last_lsn=lsn, options=options):
                memtable = self._segments.sealed[0].memtable
                chunks = memtable.chunks(b"", None)
                infos = write_tables(self._fs, directory, outputs, chunks, 0, lsn, len(memtable), options)
                self._flushed(JobResult(result.job, infos))
            case CompactionJob() as job:
                self.job_failed(job)
                for number, block in result.damaged:
                    self._tables.fence(number, block)
            case RemovalJob():  # it reads nothing
                pass

    def job_failed(self, job: Job) -> None:
        """A job could not be done: its output is removed, and it will be offered again."""
        match job:
            case FlushJob():
                self._segments.sealed[0].flushing = False
            case CompactionJob():
                self._compactions.over(job)
            case RemovalJob():
                self._obsolete.not_removed(job)
                return
        unused = [number for number in job.outputs if number not in self._manifest.tables]
        self._obsolete.add(map(table_name, unused))
        self._obsolete.remove_now()

    # here and now

    def flush_sealed(self) -> None:
        """Write all sealed memtables as tables; no job may be under way."""
        while self._segments.sealed:
            self._run(self._flush_job())

    def compact(self, pace: Pace = full_speed) -> None:
        """Merge all tables into one run, here and now; no job may be under way.

        `pace` is told of the bytes that are written.
        """
        if job := self._compactions.full():
            self._run(job, pace)

    def _run(self, job: Job, pace: Pace = full_speed) -> None:
        try:
            result = run_job(self._fs, job, pace)
            self.job_done(result)
            self._obsolete.remove_now()
        except StorageError:
            if self._segments.failed is None:
                self.job_failed(job)
            raise
        if result.damaged and isinstance(job, CompactionJob):
            path = f"{self._directory}/{table_name(result.damaged[0][0])}"
            raise Corruption(path, result.reason)

    def lift(self, fence: Fence) -> None:
        """See `Engine.lift`."""
        self._segments.check()
        quarantine, table = self._tables.quarantine, self._tables.levels.find(fence.table)
        if not quarantine.stands(fence) or table is None:  # a compaction could read it after all
            return
        if fence.block == WHOLE:
            self._tables.replace((fence.table,), (), 0)
            table.close()
            self._forget((fence.table,))
            self._compactions.changed = True
        else:
            table.leave_out(fence.block)
            self._compactions.rewrites.add(fence.table)
            quarantine.take_down(fence)
