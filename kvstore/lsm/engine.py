"""The storage engine: a log-structured merge tree in one directory (O'Neil et al., 1996; LevelDB).

A write goes to the log and the memtable. A full memtable is sealed with its log segment; a job turns the
segment into a table. A read asks memtable, sealed memtables, then tables, newest first. The engine does
no work of its own accord: `begin_sync` and `take_jobs` hand it out, whoever runs it carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from kvstore.errors import Corruption, Overloaded, StorageError, StorageFailed, StorageFull
from kvstore.lsm.cache import BlockCache
from kvstore.lsm.checkpoint import write_checkpoint
from kvstore.lsm.filesystem import FileSystem, sync_file
from kvstore.lsm.jobs import CompactionJob, FlushJob, Job, JobResult, RemovalJob, run_job
from kvstore.lsm.limits import check_key, check_range, checked_batch
from kvstore.lsm.maintenance import Maintenance
from kvstore.lsm.manifest import CURRENT, Manifest
from kvstore.lsm.memtable import ABSENT
from kvstore.lsm.options import Durability, Options
from kvstore.lsm.pace import Pace, full_speed
from kvstore.lsm.quarantine import Fence
from kvstore.lsm.recovery import Tails, recovered_segments
from kvstore.lsm.segments import Segments, Sync
from kvstore.lsm.snapshot import Snapshot, prefix_end
from kvstore.lsm.sstable import table_name
from kvstore.lsm.wal import Batch, segment_name

LOCK = "LOCK"

_BELOW_REFUSAL = 0.99
_LONGEST_DELAY = 0.1
_RETRY_AFTER = 0.5


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Sizes now, counts since the engine was opened.

    `write_amplification` is what was written for each byte of the log, `space_amplification` what the
    tables take for each byte of the largest of their runs (0 while there is nothing to tell).
    """

    memtable_bytes: int
    sealed_memtables: int
    wal_bytes: int
    tables: int
    table_bytes: int
    entries: int
    flushes: int
    compactions: int
    filter_useful: int
    filter_false: int
    filter_true: int
    cache_hits: int
    cache_misses: int
    cache_bytes: int
    quarantined: int
    write_amplification: float
    space_amplification: float


class Engine:
    """One store. Not thread-safe, but for `Sync.run`; made by `Engine.open`."""

    def __init__(self, fs: FileSystem, directory: str, options: Options) -> None:
        self._fs = fs
        self._directory = directory
        self.options = options
        self._closed = False
        self._cache = BlockCache(options.cache_bytes)
        fs.make_directory(directory)
        with ExitStack() as opened:
            opened.callback(fs.lock(f"{directory}/{LOCK}").close)
            self._manifest = Manifest(fs, directory, options.manifest_bytes)
            opened.callback(self._manifest.close)
            self._maintenance = Maintenance(fs, directory, options, self._manifest, self._cache)
            opened.callback(self._maintenance.close)
            log = recovered_segments(fs, directory, self._manifest.flushed_lsn)
            lsn = log[-1].last_lsn if log else self._manifest.flushed_lsn
            self._segments = Segments(fs, directory, lsn, log)
            opened.callback(self._segments.close)
            self._tails = Tails(fs, directory, log)
            self._strangers = self._found_strangers()
            self._recover()
            self._opened = opened.pop_all()

    @classmethod
    def open(cls, fs: FileSystem, directory: str, options: Options | None = None) -> Engine:
        """Open the store in `directory`, making it if there is none, recovering it after a crash.

        On a full disk all that is stored can be read, and writes are refused until a sync has found space.

        Raises WrongDataDirectory when another process has it open, Corruption, UnsupportedFormat,
        StorageFailed; StorageFull only where there is no space for the directory or its lock.
        """
        return cls(fs, directory, options or Options())

    # recovery

    def _found_strangers(self) -> list[str]:
        """What a crash has left behind, files that are no part of the store, and log that does not count."""
        known = {CURRENT, LOCK, self._manifest.name}
        known.update(table_name(number) for number in self._manifest.tables)
        known.update(segment_name(segment.number) for segment in self._segments.sealed)
        return [name for name in self._fs.list(self._directory) if name not in known]

    def _recover(self) -> None:
        """Make a table of what the log holds and begin a new one; on a full disk only what takes no space."""
        try:
            self._manifest.begin()
            if self._segments.sealed:
                self._maintenance.flush_recovered(self._segments)
            self._begin_log()
        except StorageFull:
            # what was read must outlive this process before anybody is told of it, or a file removed for it
            self._manifest.settle()
            for segment in self._segments.sealed:
                sync_file(self._fs, f"{self._directory}/{segment_name(segment.number)}")
            with suppress(StorageFull):
                self._remove_strangers()

    def _begin_log(self) -> None:
        """From now on writes are taken; raises StorageFull: then the next sync tries it again."""
        self._manifest.begin()
        self._tails.cut()
        self._remove_strangers()
        self._segments.begin(self._manifest.take_number())

    def _remove_strangers(self) -> None:
        while self._strangers:
            self._fs.remove(f"{self._directory}/{self._strangers[-1]}")
            self._strangers.pop()

    # writing

    @property
    def last_lsn(self) -> int:
        """The LSN of the last write."""
        return self._segments.last_lsn

    @property
    def durable_lsn(self) -> int:
        """All writes up to this one are on the disk."""
        return self._segments.durable_lsn

    @property
    def refuses(self) -> bool:
        """Whether writes are refused until a sync is begun: it finds space again, or ends the process."""
        return self._segments.full or self._segments.failed is not None

    @property
    def waits_for_disk(self) -> bool:
        """Whether a write may be acknowledged only when it is durable."""
        return self.options.durability is Durability.SYNC

    def write(self, batch: Batch) -> int:
        """Append an atomic batch (None deletes), visible at once; returns its LSN.

        It is durable when `durable_lsn` has reached that.

        Raises TypeError for anything but pairs of bytes, InvalidRequest for what is too large,
        StorageFull while there is no space, Overloaded while flushes or compactions are far behind,
        StorageFailed after a failed sync; of a batch that is refused nothing is logged or applied.
        """
        entries, size = checked_batch(batch, self.options.value_bytes)
        segments = self._segments
        self._check()
        if segments.full:
            raise StorageFull(f"{self._directory}: no space left on the disk")
        if self._pressure() >= 1:
            raise Overloaded(_RETRY_AFTER, "flushes and compactions are behind")
        lsn = segments.append(entries, size)
        if segments.active.memtable.bytes >= self.options.memtable_bytes:
            with suppress(StorageFull):  # the batch is in: it waits for space in the old segment
                segments.seal(self._manifest.take_number())
        return lsn

    def _check(self) -> None:
        if self._segments.failed is not None:
            raise StorageFailed(f"the engine stopped after: {self._segments.failed}")
        if self._closed:
            raise StorageFailed(f"the engine in {self._directory} is closed")

    def _make_ready(self) -> None:
        """Begin the log, if there was no space for it until now; raises StorageFull."""
        self._check()
        if not self._segments.begun:
            try:
                self._begin_log()
            except StorageFailed as error:
                self._segments.failed = error
                raise

    def _pressure(self) -> float:
        """How far flushes and compactions are behind: 0 not at all, from 1 on nothing more is taken."""
        options = self.options
        sealed = len(self._segments.sealed)
        flushed = len(self._maintenance.levels.flushed)
        if sealed < 2 and flushed < options.slow_tables:
            return 0.0
        waiting = sealed / (options.max_sealed + 1)
        overlapping = (flushed - options.slow_tables) / (options.max_tables - options.slow_tables)
        if self._maintenance.fences:
            # what is fenced cannot be compacted, and only writes take a fence down
            overlapping = min(overlapping, _BELOW_REFUSAL)
        return max(waiting, overlapping)

    def write_delay(self) -> float:
        """Seconds by which writers should be slowed down now.

        It grows smoothly with the work that is behind, so that writers find the pace of the disk
        before they are refused.
        """
        pressure = self._pressure()
        return _LONGEST_DELAY * min(1.0, pressure * pressure)

    def sync_delay(self) -> float:
        """Seconds that the next sync should be put off: writers wait for it, and so slow down."""
        interval = self.options.sync_interval if self.options.durability is Durability.INTERVAL else 0.0
        return max(interval, self.write_delay())

    def write_out(self) -> None:
        """Hand what was appended to the operating system, which keeps it if this process ends.

        Raises StorageFull as `begin_sync` does.
        """
        self._make_ready()
        self._segments.write_out()

    def begin_sync(self) -> Sync | None:
        """Write what was appended to the log; None when nothing needs a sync. At most one at a time.

        Raises StorageFull: nothing is lost, writes are refused until a later call succeeds.
        """
        self._make_ready()
        if self.options.durability is Durability.NONE:
            self._segments.write_out()
            return None
        return self._segments.begin_sync()

    def finish_sync(self, sync: Sync) -> int:
        """The sync has run: returns the LSN that is durable now. If it raised, call `fail_sync` instead."""
        self._segments.finish_sync(sync)
        return self._segments.durable_lsn

    def fail_sync(self, error: StorageFailed) -> None:
        """The sync failed: it is never retried, every later call raises StorageFailed."""
        self._segments.fail_sync(error)

    def sync(self) -> int:
        """Make all writes durable, here and now; returns the durable LSN. Raises StorageFull."""
        self._make_ready()
        sync = self._segments.begin_sync()
        if sync is None:
            return self.durable_lsn
        try:
            sync.run()
        except StorageFailed as error:
            self.fail_sync(error)
            raise
        return self.finish_sync(sync)

    # reading

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None when it has none; never "not found" for a bad block.

        Raises Corruption, TypeError.
        """
        if not isinstance(key, bytes):
            check_key(key)
        segments = self._segments
        value = segments.active.memtable.get(key, ABSENT)
        if value is not ABSENT:
            return value
        if segments.sealed:
            for segment in reversed(segments.sealed):
                value = segment.memtable.get(key, ABSENT)
                if value is not ABSENT:
                    return value
        value = self._maintenance.levels.get(key, ABSENT)
        return None if value is ABSENT else value

    def snapshot(self) -> Snapshot:
        """The store as it is now, for as long as it is read; close it, or use it in a `with`."""
        self._check()
        sealed = [segment.memtable for segment in self._segments.sealed]
        return Snapshot(self._segments.active.memtable, sealed, self._maintenance.levels)

    def scan(
        self, start: bytes = b"", end: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of [start, end) in order, or from the last to the first, as they are now.

        Without `end` to the last key. Writes and jobs may go on meanwhile. Raises Corruption, TypeError.
        """
        check_range(start, end)
        return _scan(self.snapshot(), start, end, reverse)

    def scan_prefix(self, prefix: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """As `scan`, of all keys that begin with `prefix`."""
        check_key(prefix)
        return self.scan(prefix, prefix_end(prefix), reverse)

    # quarantine

    @property
    def fences(self) -> tuple[Fence, ...]:
        """What is quarantined: damaged blocks, and tables that cannot be opened."""
        return tuple(self._maintenance.fences.values())

    @property
    def noticed(self) -> bool:
        """Whether something was quarantined that `take_noticed` has not told of."""
        return bool(self._maintenance.noticed)

    def take_noticed(self) -> list[Fence]:
        """What has been quarantined since the last call."""
        noticed, self._maintenance.noticed = self._maintenance.noticed, []
        return noticed

    def scan_around(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes | None]]:
        """As `scan`, but damage does not end it: None for a key of which it cannot be said what it has.

        Other keys that damaged blocks may hold are not among them.
        """
        with self.snapshot() as snapshot:
            for key, value in snapshot.scan(start, end, around=True):
                if not any(f.first <= key <= f.last for f in self._maintenance.fences.values()):
                    yield key, value
                    continue
                try:
                    known = snapshot.get(key)
                except Corruption:
                    yield key, None
                else:
                    if known is not None:
                        yield key, known

    def scrub(self) -> int:
        """Read all tables from the disk, past the cache, and quarantine what is damaged.

        Returns how many damaged blocks and tables it has met. It takes as long as that takes to read.
        """
        return self._maintenance.scrub()

    def lift(self, fence: Fence) -> None:
        """Let a damaged block count as if it held nothing, and have its table written anew without it.

        The caller has written, durably, what each key behind the fence should have: what lies beneath in
        older tables comes to light. Raises StorageFull: the fence stays.
        """
        self._check()
        self._maintenance.lift(fence)

    # jobs

    def take_jobs(self) -> list[Job]:
        """The jobs that should be started now; each is given out once until it is done or has failed."""
        return self._maintenance.due(self._segments)

    def job_done(self, result: JobResult) -> None:
        """Take the output of a job into use and remove its inputs.

        Raises StorageFull when that could not be noted: the job has to be done again, after `job_failed`.
        After StorageFailed half of it may be in use: only recovery can tell, nothing more may be written.
        """
        self._check()
        try:
            match result.job:
                case _ if result.damaged:
                    self._maintenance.met_damage(result, self._segments)
                case FlushJob():
                    self._maintenance.flushed(result, self._segments)
                case CompactionJob() as job:
                    self._maintenance.compacted(job, result)
                case RemovalJob():
                    self._maintenance.removed()
        except StorageFailed as error:
            self._segments.failed = error
            raise

    def job_failed(self, job: Job) -> None:
        """A job could not be done: its output is removed, and it will be offered again."""
        self._maintenance.failed(job, self._segments)

    # for use without a node

    def flush(self) -> None:
        """Write all memtables as tables, here and now; no job may be under way."""
        self.sync()
        if len(self._segments.active.memtable):
            self._segments.seal(self._manifest.take_number())
        while self._segments.sealed:
            self._run(self._maintenance.flush_job(self._segments))

    def compact(self, pace: Pace = full_speed) -> None:
        """Merge all tables into one run, here and now; no job may be under way.

        `pace` is told of the bytes that are written.
        """
        if job := self._maintenance.full_compaction():
            self._run(job, pace)

    def _run(self, job: Job, pace: Pace = full_speed) -> None:
        try:
            result = run_job(self._fs, job, pace)
            self.job_done(result)
            self._maintenance.remove_obsolete()
        except StorageError:
            if self._segments.failed is None:
                self.job_failed(job)
            raise
        if result.damaged and isinstance(job, CompactionJob):
            path = f"{self._directory}/{table_name(result.damaged[0][0])}"
            raise Corruption(path, result.reason)

    def checkpoint(self, directory: str) -> None:
        """Make `directory`, on the same disk, a store of its own with all that is in this one now.

        Files are linked, not copied. Raises StorageFailed when the directory holds something already,
        StorageFull; what was made of it is removed then.
        """
        self.sync()
        if len(self._segments.active.memtable):
            self._segments.seal(self._manifest.take_number())
        logs = self._segments.names()[:-1]
        tables = self._maintenance.levels.infos()
        write_checkpoint(self._fs, self._directory, directory, logs, tables, self._manifest)

    def close(self) -> None:
        """Sync and close; jobs that are under way are abandoned. Closing twice does nothing."""
        if self._closed:
            return
        try:
            segments = self._segments
            if segments.failed is None and not segments.syncing and self.durable_lsn < self.last_lsn:
                self.sync()
        finally:
            self._closed = True
            self._opened.close()

    def statistics(self) -> EngineStatistics:
        """Sizes and counts for operators."""
        segments, maintenance = self._segments, self._maintenance
        tables = list(maintenance.levels)
        table_bytes = sum(table.info.size for table in tables)
        written = segments.written_bytes + maintenance.flushed_bytes + maintenance.compacted_bytes
        largest = maintenance.levels.largest_run_bytes()
        filters = maintenance.filter_answers()
        return EngineStatistics(
            memtable_bytes=segments.memory(),
            sealed_memtables=len(segments.sealed),
            wal_bytes=segments.log_bytes(),
            tables=len(tables),
            table_bytes=table_bytes,
            entries=sum(table.info.entries for table in tables) + len(segments.active.memtable),
            flushes=maintenance.flushes,
            compactions=maintenance.compactions,
            filter_useful=filters["useful"],
            filter_false=filters["false"],
            filter_true=filters["true"],
            cache_hits=self._cache.hits,
            cache_misses=self._cache.misses,
            cache_bytes=self._cache.memory,
            quarantined=len(maintenance.fences),
            write_amplification=written / segments.written_bytes if segments.written_bytes else 0.0,
            space_amplification=table_bytes / largest if largest else 0.0,
        )


def _scan(
    snapshot: Snapshot, start: bytes, end: bytes | None, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    with snapshot:
        yield from snapshot.scan(start, end, reverse)
