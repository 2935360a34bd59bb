"""The storage engine: a log-structured merge tree in one directory (O'Neil et al., 1996; LevelDB).

A write goes to the log and the memtable. A full memtable is sealed with its log segment; a job turns the
segment into a table. A read asks memtable, sealed memtables, then tables, newest first. The engine does
no work of its own accord: `begin_sync` and `take_jobs` hand it out, whoever runs it carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvstore.errors import Overloaded, StorageFailed, StorageFull
from kvstore.lsm.compaction import choose_tier
from kvstore.lsm.filesystem import FileSystem, WritableFile
from kvstore.lsm.jobs import CompactionJob, FlushJob, Job, JobResult, merge, run_job
from kvstore.lsm.manifest import CURRENT, Manifest
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.options import Options
from kvstore.lsm.sstable import BlockCache, Table, TableInfo, table_name, write_table
from kvstore.lsm.wal import MAGIC, Batch, encode_wal_record, read_segments, segment_name

LOCK = "LOCK"

_ABSENT = b"absent"
"""Compared by identity: the answer of a part that does not know a key."""


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Sizes now, counts since the engine was opened."""

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
    cache_hits: int
    cache_misses: int


@dataclass(slots=True)
class _Segment:
    """A log segment and the memtable with the same content."""

    number: int
    file: WritableFile
    floor: int
    memtable: Memtable
    last_lsn: int = 0
    bytes: int = 0
    flushing: bool = False


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync that has begun: `run` may be called on another thread."""

    files: tuple[WritableFile, ...]
    sealed: tuple[_Segment, ...]
    lsn: int

    def run(self) -> None:
        """Wait until the files are on the disk; raises StorageFailed."""
        for file in self.files:
            file.sync()


class Engine:
    """One store. Not thread-safe, but for `Sync.run`; made by `Engine.open`."""

    def __init__(self, fs: FileSystem, directory: str, options: Options) -> None:
        self._fs = fs
        self._directory = directory
        self._options = options
        self._failed: StorageFailed | None = None
        self._full = False
        self._closed = False
        self._syncing = False
        self._unsynced: list[_Segment] = []
        self._sealed: list[_Segment] = []
        self._buffer: list[Batch] = []
        self._compacting = False
        self._tables_changed = True
        self._flushes = self._compactions = 0
        self._cache = BlockCache(options.cache_bytes)
        fs.make_directory(directory)
        self._lock = fs.lock(f"{directory}/{LOCK}")
        try:
            self._manifest = Manifest(fs, directory)
            self._tables = self._open_tables()
            self.last_lsn = self.durable_lsn = self._manifest.flushed_lsn
            self._recover()
            self._remove_strangers()
            self._active = self._new_segment()
        except BaseException:
            self._lock.close()
            raise

    @classmethod
    def open(cls, fs: FileSystem, directory: str, options: Options | None = None) -> Engine:
        """Open the store in `directory`, making it if there is none, recovering it after a crash.

        Raises WrongDataDirectory when another process has it open, Corruption, UnsupportedFormat,
        StorageFull, StorageFailed.
        """
        return cls(fs, directory, options or Options())

    # recovery

    def _open_tables(self) -> list[Table]:
        infos = sorted(self._manifest.tables.values(), key=lambda info: info.last_lsn)
        return [Table(self._fs, self._directory, info, self._cache) for info in infos]

    def _recover(self) -> None:
        """Turn what the log segments hold beyond the tables into a table, and start with none of them."""
        names = [name for name in self._fs.list(self._directory) if name.endswith(".wal")]
        memtable = Memtable()
        lsn = self._manifest.flushed_lsn
        for record in read_segments(self._fs, [f"{self._directory}/{name}" for name in names], lsn):
            for batch in record.batches:
                memtable.apply(batch)
            lsn = record.last_lsn
        if not len(memtable):
            return
        options = self._options
        info = write_table(
            self._fs,
            self._directory,
            self._manifest.take_number(),
            memtable.items(),
            lsn,
            options.block_bytes,
            options.false_positive_rate,
        )
        assert info is not None
        self._manifest.edit([info], (), lsn)
        self._tables.append(Table(self._fs, self._directory, info, self._cache))
        self.last_lsn = self.durable_lsn = lsn

    def _remove_strangers(self) -> None:
        """Remove what a crash left behind: files that the manifest does not name."""
        known = {CURRENT, LOCK, self._manifest.name}
        known.update(table_name(number) for number in self._manifest.tables)
        for name in self._fs.list(self._directory):
            if name not in known:
                self._fs.remove(f"{self._directory}/{name}")
        self._fs.sync_directory(self._directory)

    def _new_segment(self) -> _Segment:
        number = self._manifest.take_number()
        file = self._fs.create(f"{self._directory}/{segment_name(number)}")
        file.append(MAGIC)
        self._fs.sync_directory(self._directory)
        return _Segment(number, file, self.last_lsn, Memtable(), self.last_lsn)

    # writing

    def write(self, batch: Batch) -> int:
        """Append an atomic batch (None deletes), visible at once; returns its LSN.

        It is durable when `durable_lsn` has reached that. The caller must not change `batch` any more.

        Raises StorageFull while there is no space, Overloaded while too many memtables wait for their
        flush, StorageFailed after a failed sync.
        """
        self._check()
        if self._full:
            raise StorageFull(f"{self._directory}: no space left on the disk")
        if len(self._sealed) > self._options.max_sealed:
            raise Overloaded(0.5, "memtables wait to be flushed")
        active = self._active
        self.last_lsn = lsn = self.last_lsn + 1
        self._buffer.append(batch)
        active.last_lsn = lsn
        active.memtable.apply(batch)
        if active.memtable.bytes >= self._options.memtable_bytes:
            self._seal()
        return lsn

    def _check(self) -> None:
        if self._failed is not None:
            raise StorageFailed(f"the engine stopped after: {self._failed}")
        if self._closed:
            raise StorageFailed(f"the engine in {self._directory} is closed")

    def _seal(self) -> None:
        """Begin a new segment and memtable, unless the disk is full: then the old ones grow on."""
        try:
            self._write_buffer()
            fresh = self._new_segment()
        except StorageFull:
            self._full = True
            return
        except StorageFailed as error:
            self._failed = error
            raise
        self._unsynced.append(self._active)
        self._sealed.append(self._active)
        self._active = fresh

    def _write_buffer(self) -> None:
        if self._buffer:
            first_lsn = self.last_lsn - len(self._buffer) + 1
            record = encode_wal_record(first_lsn, self.durable_lsn, self._buffer)
            self._active.file.append(record)
            self._active.bytes += len(record)
            self._buffer.clear()

    def begin_sync(self) -> Sync | None:
        """Write what was appended to the log; None when all is durable. At most one sync at a time.

        Raises StorageFull: nothing is lost, writes are refused until a later call succeeds.
        """
        self._check()
        assert not self._syncing, "a sync is under way"
        if self.durable_lsn == self.last_lsn:
            return None
        try:
            self._write_buffer()
        except StorageFull:
            self._full = True
            raise
        except StorageFailed as error:
            self._failed = error
            raise
        self._full = False
        self._syncing = True
        sealed = tuple(self._unsynced)
        files = (*(segment.file for segment in sealed), self._active.file)
        return Sync(files, sealed, self.last_lsn)

    def finish_sync(self, sync: Sync) -> int:
        """The sync has run: returns the LSN that is durable now. If it raised, call `fail_sync` instead."""
        self._syncing = False
        self.durable_lsn = sync.lsn
        for segment in sync.sealed:
            self._unsynced.remove(segment)
            segment.file.close()
        return sync.lsn

    def fail_sync(self, error: StorageFailed) -> None:
        """The sync failed: it is never retried, every later call raises StorageFailed."""
        self._syncing = False
        self._failed = error

    def sync(self) -> int:
        """Make all writes durable, here and now; returns the durable LSN."""
        sync = self.begin_sync()
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
        """The value of a key, None when it has none; raises Corruption, never "not found" for a bad block."""
        value = self._active.memtable.get(key, _ABSENT)
        if value is not _ABSENT:
            return value
        for segment in reversed(self._sealed):
            value = segment.memtable.get(key, _ABSENT)
            if value is not _ABSENT:
                return value
        for table in reversed(self._tables):
            value = table.get(key, _ABSENT)
            if value is not _ABSENT:
                return value
        return None

    def scan(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of [start, end) in order (None: to the end), while writes and jobs go on.

        A write made after the call may or may not be seen. Raises Corruption.
        """
        runs = [self._active.memtable.scan(start, end)]
        runs += [segment.memtable.scan(start, end) for segment in reversed(self._sealed)]
        runs += [table.scan(start, end) for table in reversed(self._tables)]
        return ((key, value) for key, value in merge(runs) if value is not None)

    # jobs

    def take_jobs(self) -> list[Job]:
        """The jobs that should be started now; each is given out once until it is done or has failed."""
        jobs: list[Job] = []
        # one flush at a time and in order: a table's age is its last LSN
        if self._sealed and not self._sealed[0].flushing:
            jobs.append(self._flush_job(self._sealed[0]))
        if self._tables_changed and not self._compacting:
            self._tables_changed = False
            if compaction := self._compaction_job():
                jobs.append(compaction)
        return jobs

    def _flush_job(self, segment: _Segment) -> FlushJob:
        segment.flushing = True
        output = self._manifest.take_number()
        return FlushJob(
            self._directory, segment.number, segment.floor, segment.last_lsn, output, self._options
        )

    def _compaction_job(self) -> CompactionJob | None:
        infos = [table.info for table in self._tables]
        chosen = choose_tier(infos, self._options.tier_tables, self._options.tier_ratio)
        return self._compaction_of(chosen) if chosen else None

    def _compaction_of(self, inputs: Sequence[TableInfo]) -> CompactionJob:
        self._compacting = True
        oldest = inputs[0] is self._tables[0].info
        output = self._manifest.take_number()
        return CompactionJob(self._directory, tuple(inputs), oldest, output, self._options)

    def job_done(self, result: JobResult) -> None:
        """Take the output of a job into use and remove its inputs."""
        added = [result.table] if result.table else []
        match result.job:
            case FlushJob() as job:
                segment = self._sealed[0]
                self._manifest.edit(added, (), job.last_lsn)
                self._replace((), result)
                self._sealed.pop(0)
                self._flushes += 1
                self._fs.remove(f"{self._directory}/{segment_name(segment.number)}")
            case CompactionJob() as job:
                numbers = tuple(info.number for info in job.inputs)
                self._manifest.edit(added, numbers, 0)
                self._replace(numbers, result)
                self._compacting = False
                self._compactions += 1
                for number in numbers:
                    self._fs.remove(f"{self._directory}/{table_name(number)}")

    def _replace(self, removed: Sequence[int], result: JobResult) -> None:
        # a scan may still read the old ones: their files close with the last reference
        tables = [table for table in self._tables if table.info.number not in removed]
        if result.table:
            tables.append(Table(self._fs, self._directory, result.table, self._cache))
        self._tables = sorted(tables, key=lambda table: table.info.last_lsn)
        self._tables_changed = True

    def job_failed(self, job: Job) -> None:
        """A job could not be done: its output is removed, and it will be offered again."""
        name = table_name(job.output)
        if name in self._fs.list(self._directory):
            self._fs.remove(f"{self._directory}/{name}")
        match job:
            case FlushJob():
                self._sealed[0].flushing = False
            case CompactionJob():
                self._compacting = False
                self._tables_changed = True

    # for use without a node

    def flush(self) -> None:
        """Write all memtables as tables, here and now."""
        self.sync()
        if len(self._active.memtable):
            self._seal()
        while self._sealed:
            self.job_done(run_job(self._fs, self._flush_job(self._sealed[0])))

    def compact(self) -> None:
        """Merge all tables into one, here and now."""
        if len(self._tables) > 1:
            infos = [table.info for table in self._tables]
            self.job_done(run_job(self._fs, self._compaction_of(infos)))

    def close(self) -> None:
        """Sync and close; jobs that are under way are abandoned. Closing twice does nothing."""
        if self._closed:
            return
        try:
            if self._failed is None and not self._syncing:
                self.sync()
        finally:
            self._closed = True
            for segment in (*self._unsynced, self._active):
                segment.file.close()
            for table in self._tables:
                table.close()
            self._manifest.close()
            self._lock.close()

    def statistics(self) -> EngineStatistics:
        """Sizes and counts for operators."""
        tables = self._tables
        return EngineStatistics(
            memtable_bytes=self._active.memtable.bytes,
            sealed_memtables=len(self._sealed),
            wal_bytes=sum(segment.bytes for segment in (*self._sealed, self._active)),
            tables=len(tables),
            table_bytes=sum(table.info.size for table in tables),
            entries=sum(table.info.entries for table in tables) + len(self._active.memtable),
            flushes=self._flushes,
            compactions=self._compactions,
            filter_useful=sum(table.filter_useful for table in tables),
            filter_false=sum(table.filter_false for table in tables),
            cache_hits=self._cache.hits,
            cache_misses=self._cache.misses,
        )
