"""Flush, compaction and removal: functions from input files to output files, run in a worker process."""

from __future__ import annotations

from collections.abc import Iterator

from kvstore.errors import Corruption, UnsupportedFormat
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.merge import Chunk, merge, without_deletions
from kvstore.lsm.messages import WHOLE, CompactionJob, FlushJob, Job, JobResult, RemovalJob, TableInfo
from kvstore.lsm.pace import Pace, full_speed
from kvstore.lsm.sstable_writer import write_tables
from kvstore.lsm.table import Table
from kvstore.lsm.table_file import TableFile
from kvstore.lsm.wal import read_segments, segment_name


def run_job(fs: FileSystem, job: Job, pace: Pace = full_speed) -> JobResult:
    """Do a job; raises StorageError. The outputs and their names are synced when this returns."""
    try:
        match job:
            case FlushJob():
                return JobResult(job, _flush(fs, job, pace))
            case CompactionJob():
                return JobResult(job, _compact(fs, job, pace))
            case RemovalJob():
                return JobResult(job, _remove(fs, job, pace))
    except (Corruption, UnsupportedFormat) as error:
        if damaged := _damaged(fs, job):
            return JobResult(job, (), damaged, error.reason)
        raise


def _damaged(fs: FileSystem, job: Job) -> tuple[tuple[int, int], ...]:
    """All that is damaged of what a job reads, so that it is not met one at a time."""
    if isinstance(job, FlushJob):
        return ((job.segment, WHOLE),)
    if isinstance(job, RemovalJob):
        return ()
    found: list[tuple[int, int]] = []
    for i, info in enumerate(job.inputs):
        try:
            table = _input(fs, job, i)
        except (Corruption, UnsupportedFormat):
            found.append((info.number, WHOLE))
        else:
            found += ((info.number, block) for block in table.damaged_blocks())
            table.close()
    return tuple(found)


def _input(fs: FileSystem, job: CompactionJob, i: int) -> Table:
    table = Table(TableFile(fs, job.directory, job.inputs[i]), None)
    for block in job.left_out if i == 0 else ():
        table.leave_out(block)
    return table


def _flush(fs: FileSystem, job: FlushJob, pace: Pace) -> tuple[TableInfo, ...]:
    path = f"{job.directory}/{segment_name(job.segment)}"
    lsn, batches = job.floor, []
    for record in read_segments(fs, [path], job.floor):
        lsn = record.last_lsn
        batches += record.batches
        pace(0)
    memtable = Memtable.of(batches, pace)
    if lsn != job.last_lsn:
        raise Corruption(path, f"ends at record {lsn}, but {job.last_lsn} was written")
    chunks = memtable.chunks(b"", None)
    return write_tables(
        fs, job.directory, job.outputs, chunks, 0, job.last_lsn, len(memtable), job.options, pace
    )


def _compact(fs: FileSystem, job: CompactionJob, pace: Pace) -> tuple[TableInfo, ...]:
    tables: list[Table] = []
    try:
        tables += (_input(fs, job, i) for i in range(len(job.inputs)))
        chunks: Iterator[Chunk] = merge(table.chunks(b"", None) for table in reversed(tables))
        if job.drop_deletions:
            chunks = without_deletions(chunks)
        last_lsn = max(info.last_lsn for info in job.inputs)
        return write_tables(
            fs, job.directory, job.outputs, chunks, job.level, last_lsn, _entries(job), job.options, pace
        )
    finally:
        for table in tables:
            table.close()


def _remove(fs: FileSystem, job: RemovalJob, pace: Pace) -> tuple[TableInfo, ...]:
    for name in job.names:
        fs.remove(f"{job.directory}/{name}", pace)
    return ()


def _entries(job: CompactionJob) -> int:
    """How many entries one output may have at most, about: what its filter is made for."""
    total = sum(info.entries for info in job.inputs)
    if len(job.outputs) == 1:
        return total
    return min(total, 1 + total * job.options.table_bytes * 5 // (job.input_bytes * 4))
