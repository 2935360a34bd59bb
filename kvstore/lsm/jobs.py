"""Flush and compaction: functions from input files to output files, run in a worker process.

A job names files and nothing else, so it can be done again after any failure: its output has a number
that the manifest does not know yet, and is simply overwritten.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

import msgspec

from kvstore.errors import Corruption
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.memtable import Entry, Memtable
from kvstore.lsm.options import Options
from kvstore.lsm.sstable import Table, TableInfo, write_table
from kvstore.lsm.wal import read_segments, segment_name


class FlushJob(msgspec.Struct, frozen=True, tag="flush"):
    """Write the memtable of one log segment, the records up to `last_lsn`, as a table."""

    directory: str
    segment: int
    floor: int
    last_lsn: int
    output: int
    options: Options


class CompactionJob(msgspec.Struct, frozen=True, tag="compaction"):
    """Merge tables, oldest first, into one; `drop_deletions` when nothing older lies beneath them."""

    directory: str
    inputs: tuple[TableInfo, ...]
    drop_deletions: bool
    output: int
    options: Options


Job = FlushJob | CompactionJob


class JobResult(msgspec.Struct, frozen=True):
    """What a job has made; `table` is None when nothing was left to write."""

    job: Job
    table: TableInfo | None


def run_job(fs: FileSystem, job: Job) -> JobResult:
    """Do a job; raises StorageError. The output and its name are synced when this returns."""
    match job:
        case FlushJob():
            return JobResult(job, _flush(fs, job))
        case CompactionJob():
            return JobResult(job, _compact(fs, job))


def _flush(fs: FileSystem, job: FlushJob) -> TableInfo | None:
    memtable = Memtable()
    path = f"{job.directory}/{segment_name(job.segment)}"
    lsn = job.floor
    for record in read_segments(fs, [path], job.floor):
        for batch in record.batches:
            memtable.apply(batch)
        lsn = record.last_lsn
    if lsn != job.last_lsn:
        raise Corruption(path, f"ends at record {lsn}, but {job.last_lsn} was written")
    return _write(fs, job, memtable.items(), job.last_lsn)


def _compact(fs: FileSystem, job: CompactionJob) -> TableInfo | None:
    tables = [Table(fs, job.directory, info, None) for info in job.inputs]
    try:
        newest_first = [table.scan(b"", None) for table in reversed(tables)]
        entries = merge(newest_first)
        if job.drop_deletions:
            entries = (entry for entry in entries if entry[1] is not None)
        return _write(fs, job, entries, max(info.last_lsn for info in job.inputs))
    finally:
        for table in tables:
            table.close()


def _write(fs: FileSystem, job: Job, entries: Iterable[Entry], last_lsn: int) -> TableInfo | None:
    options = job.options
    return write_table(
        fs,
        job.directory,
        job.output,
        entries,
        last_lsn,
        options.block_bytes,
        options.false_positive_rate,
    )


def merge(newest_first: list[Iterator[Entry]]) -> Iterator[Entry]:
    """Merge sorted runs; of entries with one key only the newest, deletions included."""
    ranked = [_ranked(run, rank) for rank, run in enumerate(newest_first)]
    last: bytes | None = None
    for key, _, value in heapq.merge(*ranked):
        if key != last:
            last = key
            yield key, value


def _ranked(run: Iterator[Entry], rank: int) -> Iterator[tuple[bytes, int, bytes | None]]:
    # keys are unique within a run, so (key, rank) decides and values are never compared
    return ((key, rank, value) for key, value in run)


_encoder = msgspec.msgpack.Encoder()
_job_decoder = msgspec.msgpack.Decoder(FlushJob | CompactionJob)
_result_decoder = msgspec.msgpack.Decoder(JobResult)


def encode_job(job: Job) -> bytes:
    """A job for the worker process."""
    return _encoder.encode(job)


def decode_job(data: bytes) -> Job:
    """Inverse of `encode_job`."""
    job: Job = _job_decoder.decode(data)
    return job


def encode_result(result: JobResult) -> bytes:
    """A result from the worker process."""
    return _encoder.encode(result)


def decode_result(data: bytes) -> JobResult:
    """Inverse of `encode_result`."""
    return _result_decoder.decode(data)
