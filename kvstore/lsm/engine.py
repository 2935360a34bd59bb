"""The storage engine: a log-structured merge tree in one directory (O'Neil et al., 1996; LevelDB).

A write goes to the log and the memtable. A full memtable is sealed with its log segment; a job turns the
segment into a table. A read asks memtable, sealed memtables, then tables, newest first. The engine does
no work of its own accord: `begin_sync` and `take_jobs` hand it out, whoever runs it carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

from kvstore.errors import Corruption, Overloaded, StorageFailed, StorageFull
from kvstore.lsm.back_pressure import BackPressure
from kvstore.lsm.cache import BlockCache
from kvstore.lsm.checkpoint import write_checkpoint
from kvstore.lsm.config import Durability, Options
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.limits import check_key, check_range, checked_batch
from kvstore.lsm.maintenance import Maintenance
from kvstore.lsm.manifest import Manifest
from kvstore.lsm.memtable import ABSENT
from kvstore.lsm.messages import Job, JobResult
from kvstore.lsm.obsolete_files import ObsoleteFiles
from kvstore.lsm.quarantine import Fence
from kvstore.lsm.recovery import LOCK, Recovery, recovered_segments
from kvstore.lsm.segments import Segments, Sync
from kvstore.lsm.snapshot import Snapshot, prefix_end
from kvstore.lsm.statistics import EngineStatistics, engine_statistics
from kvstore.lsm.table_set import TableSet
from kvstore.lsm.wal import Batch

_RETRY_AFTER = 0.5


class Engine:
    """One store. Not thread-safe, but for `Sync.run`; made by `Engine.open`."""

    def __init__(self, fs: FileSystem, directory: str, options: Options) -> None:
        self._fs = fs
        self._directory = directory
        self.options = options
        self.waits_for_disk = options.durability is Durability.SYNC
        """Whether a write may be acknowledged only when it is durable."""
        self._cache = BlockCache(options.cache_bytes)
        fs.make_directory(directory)
        with ExitStack() as opened:
            opened.callback(fs.lock(f"{directory}/{LOCK}").close)
            self._manifest = manifest = Manifest(fs, directory, options.manifest_bytes)
            opened.callback(manifest.close)
            self.tables = tables = TableSet(fs, directory, manifest, self._cache)
            """What has been flushed."""
            self.quarantine = tables.quarantine
            """What of it is damaged."""
            opened.callback(tables.close)
            obsolete = ObsoleteFiles(fs, directory)
            opened.callback(obsolete.remove_now)
            log = recovered_segments(fs, directory, manifest.flushed_lsn)
            lsn = log[-1].last_lsn if log else manifest.flushed_lsn
            self._segments = segments = Segments(fs, directory, lsn, log)
            opened.callback(segments.close)
            self._recovery = Recovery(fs, directory, options, manifest, segments, tables, obsolete)
            self._recovery.run()
            self._opened = opened.pop_all()
        self.maintenance = Maintenance(fs, directory, options, manifest, segments, tables, obsolete)
        """Flushes, compactions and removals."""
        self.back_pressure = BackPressure(options, segments, tables)
        """How far writers should be slowed down."""

    @classmethod
    def open(cls, fs: FileSystem, directory: str, options: Options | None = None) -> Engine:
        """Open the store in `directory`, making it if there is none, recovering it after a crash.

        On a full disk all that is stored can be read, and writes are refused until a sync has found space.

        Raises WrongDataDirectory when another process has it open, Corruption, UnsupportedFormat,
        StorageFailed; StorageFull only where there is no space for the directory or its lock.
        """
        return cls(fs, directory, options or Options())

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

    def write(self, batch: Batch) -> int:
        """Append an atomic batch (None deletes), visible at once; returns its LSN.

        It is durable when `durable_lsn` has reached that.

        Raises TypeError for anything but pairs of bytes, InvalidRequest for what is too large,
        StorageFull while there is no space, Overloaded while flushes or compactions are far behind,
        StorageFailed after a failed sync; of a batch that is refused nothing is logged or applied.
        """
        entries, size = checked_batch(batch, self.options.value_bytes)
        segments = self._segments
        segments.check()
        if segments.full:
            raise StorageFull(f"{self._directory}: no space left on the disk")
        if self.back_pressure.level() >= 1:
            raise Overloaded(_RETRY_AFTER, "flushes and compactions are behind")
        lsn = segments.append(entries, size)
        if segments.active.memtable.bytes >= self.options.memtable_bytes:
            with suppress(StorageFull):  # the batch is in: it waits for space in the old segment
                segments.seal(self._manifest.take_number())
        return lsn

    def sync_delay(self) -> float:
        """Seconds that the next sync should be put off: writers wait for it, and so slow down."""
        interval = self.options.sync_interval if self.options.durability is Durability.INTERVAL else 0.0
        return max(interval, self.back_pressure.write_delay())

    def write_out(self) -> None:
        """Hand what was appended to the operating system, which keeps it if this process ends.

        Raises StorageFull as `begin_sync` does.
        """
        self._recovery.finish()
        self._segments.write_out()

    def begin_sync(self) -> Sync | None:
        """Write what was appended to the log; None when nothing needs a sync. At most one at a time.

        Raises StorageFull: nothing is lost, writes are refused until a later call succeeds.
        """
        self._recovery.finish()
        if self.options.durability is Durability.NONE:
            self._segments.write_out()
            return None
        return self._segments.begin_sync()

    def finish_sync(self, sync: Sync) -> int:
        """The sync has run: returns the LSN that is durable now. If it raised, call `fail_sync` instead."""
        self._segments.finish_sync(sync)
        return self._segments.durable_lsn

    def fail_sync(self, sync: Sync, error: StorageFull | StorageFailed) -> None:
        """The sync has raised this. After StorageFailed it is never retried, every later call raises that.

        After StorageFull nothing is lost, and writes are refused until another sync has begun.
        """
        self._segments.fail_sync(sync, error)

    def sync(self) -> int:
        """Make all writes durable, here and now; returns the durable LSN. Raises StorageFull."""
        self._recovery.finish()
        sync = self._segments.begin_sync()
        if sync is None:
            return self.durable_lsn
        try:
            sync.run()
        except (StorageFull, StorageFailed) as error:
            self.fail_sync(sync, error)
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
        value = self.tables.levels.get(key, ABSENT)
        return None if value is ABSENT else value

    def snapshot(self) -> Snapshot:
        """The store as it is now, for as long as it is read; close it, or use it in a `with`."""
        self._segments.check()
        sealed = [segment.memtable for segment in self._segments.sealed]
        return Snapshot(self._segments.active.memtable, sealed, self.tables.levels)

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

    def scan_around(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes | None]]:
        """As `scan`, but damage does not end it: None for a key of which it cannot be said what it has.

        Other keys that damaged blocks may hold are not among them.
        """
        with self.snapshot() as snapshot:
            for key, value in snapshot.scan(start, end, around=True):
                if not self.quarantine.covers(key):
                    yield key, value
                    continue
                try:
                    known = snapshot.get(key)
                except Corruption:
                    yield key, None
                else:
                    if known is not None:
                        yield key, known

    def lift(self, fence: Fence) -> None:
        """Let a damaged block count as if it held nothing, and have its table written anew without it.

        The caller has written, durably, what each key behind the fence should have: what lies beneath in
        older tables comes to light. Raises StorageFull: the fence stays.
        """
        self.maintenance.lift(fence)

    # jobs

    def take_jobs(self) -> list[Job]:
        """The jobs that should be started now; each is given out once until it is done or has failed."""
        return self.maintenance.take_jobs()

    def job_done(self, result: JobResult) -> None:
        """Take the output of a job into use and remove its inputs.

        Raises StorageFull when that could not be noted: the job has to be done again, after `job_failed`.
        After StorageFailed half of it may be in use: only recovery can tell, nothing more may be written.
        """
        self.maintenance.job_done(result)

    def job_failed(self, job: Job) -> None:
        """A job could not be done: its output is removed, and it will be offered again."""
        self.maintenance.job_failed(job)

    # for use without a node

    def flush(self) -> None:
        """Write all memtables as tables, here and now; no job may be under way."""
        self.sync()
        if len(self._segments.active.memtable):
            self._segments.seal(self._manifest.take_number())
        self.maintenance.flush_sealed()

    def checkpoint(self, directory: str) -> None:
        """Make `directory`, on the same disk, a store of its own with all that is in this one now.

        Files are linked, not copied. Raises StorageFailed when the directory holds something already,
        StorageFull; what was made of it is removed then.
        """
        self.sync()
        if len(self._segments.active.memtable):
            self._segments.seal(self._manifest.take_number())
        logs = self._segments.names()[:-1]
        tables = self.tables.levels.infos()
        write_checkpoint(self._fs, self._directory, directory, logs, tables, self._manifest)

    def close(self) -> None:
        """Sync and close; jobs that are under way are abandoned. Closing twice does nothing."""
        segments = self._segments
        if segments.closed:
            return
        try:
            if segments.failed is None and not segments.syncing and self.durable_lsn < self.last_lsn:
                self.sync()
        finally:
            self._opened.close()

    def statistics(self) -> EngineStatistics:
        """Sizes and counts for operators."""
        return engine_statistics(self._segments, self.tables, self.maintenance, self._cache)


def _scan(
    snapshot: Snapshot, start: bytes, end: bytes | None, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    with snapshot:
        yield from snapshot.scan(start, end, reverse)
