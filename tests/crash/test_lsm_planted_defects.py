"""Defects that broke other engines, planted one at a time: each is caught by a check that is named here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from kvstore.errors import Corruption, Overloaded, StorageError
from kvstore.lsm import (
    MemoryFileSystem,
    Sync,
    block,
    compaction_scheduler,
    jobs,
    maintenance,
    manifest,
    memory_filesystem,
    record,
    snapshot,
    wal,
)
from kvstore.lsm.bloom import BloomFilter
from kvstore.lsm.checkpoint import write_checkpoint
from kvstore.lsm.compaction import choose
from kvstore.lsm.filesystem import FileSystem
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.merge import Chunk, merge, without_deletions
from kvstore.lsm.messages import table_name
from kvstore.lsm.segments import Segments
from kvstore.lsm.table import Table
from kvstore.lsm.table_file import TableFile
from tests.crash.lsm_workload import PLANS
from tests.crash.test_lsm_bit_flips import check_region
from tests.crash.test_lsm_crash_points import crash_everywhere, crash_with_records_not_synced
from tests.property.test_lsm_model import EngineBesideDict, check_alike
from tests.unit import test_lsm_pages_out_of_order as pages

Plant = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[], object]


# what is planted


def _acknowledged_before_fsync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sync, "run", lambda self: None)


def _no_directory_fsync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryFileSystem, "sync_directory", lambda self, path: self.checked(path))


def _not_synced(patch: pytest.MonkeyPatch, part_of_name: str) -> None:
    sync = memory_filesystem._MemoryWriter.sync

    def sync_others(self: Any) -> None:
        if part_of_name not in self._path:
            sync(self)

    patch.setattr(memory_filesystem._MemoryWriter, "sync", sync_others)


def _manifest_written_before_its_table_is_synced(patch: pytest.MonkeyPatch) -> None:
    _not_synced(patch, ".sst")


def _manifest_not_synced(patch: pytest.MonkeyPatch) -> None:
    _not_synced(patch, "MANIFEST")


def _current_not_synced(patch: pytest.MonkeyPatch) -> None:
    _not_synced(patch, "CURRENT")


def _sealed_segment_left_out_of_a_sync(patch: pytest.MonkeyPatch) -> None:
    begin_sync = Segments.begin_sync

    def of_the_active_one(self: Segments) -> Sync | None:
        sync = begin_sync(self)
        return sync and replace(sync, files=sync.files[-1:])

    patch.setattr(Segments, "begin_sync", of_the_active_one)


def _inputs_removed_before_the_manifest_says_so(patch: pytest.MonkeyPatch) -> None:
    compacted = maintenance.Maintenance._compacted

    def removed_first(self: Any, job: Any, result: Any) -> None:
        for info in job.inputs:
            self._fs.remove(f"{self._directory}/{table_name(info.number)}")
        self._fs.sync_directory(self._directory)
        with patch.context() as inner:
            inner.setattr(type(self._fs), "remove", lambda fs, path: None)
            compacted(self, job, result)

    patch.setattr(maintenance.Maintenance, "_compacted", removed_first)


def _tables_of_a_checkpoint_not_linked(patch: pytest.MonkeyPatch) -> None:
    from kvstore.lsm import engine

    patch.setattr(
        engine,
        "write_checkpoint",
        lambda fs, source, target, logs, tables, manifest: write_checkpoint(
            fs, source, target, logs, tables[1:], manifest
        ),
    )


def _output_of_a_crash_kept(patch: pytest.MonkeyPatch) -> None:
    from kvstore.lsm.recovery import Recovery

    patch.setattr(Recovery, "_remove_unknown", lambda self: None)


def _damaged_filter_answers_absent(patch: pytest.MonkeyPatch) -> None:
    load = TableFile._sound_filter

    def empty_when_damaged(self: TableFile) -> BloomFilter:
        return load(self) or BloomFilter.empty(1, 0.01)

    patch.setattr(TableFile, "_sound_filter", empty_when_damaged)


class _NoSum:
    value = staticmethod(lambda data: 0)
    extend = staticmethod(lambda checksum, data: 0)


def _checksum_of_blocks_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(block, "google_crc32c", _NoSum)


def _checksum_of_records_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(record, "google_crc32c", _NoSum)


def _corrupt_block_reads_as_absent(patch: pytest.MonkeyPatch) -> None:
    look_up = Table.look_up

    def absent(self: Table, key: bytes, default: bytes | None) -> bytes | None:
        try:
            return look_up(self, key, default)
        except Corruption:
            return default

    patch.setattr(Table, "look_up", absent)


def _damaged_log_record_not_questioned(patch: pytest.MonkeyPatch) -> None:
    def until_the_first_gap(fs: FileSystem, paths: Iterable[str], floor: int) -> Any:
        for path, end, found in wal._records(fs, list(paths)):
            if found.first_lsn > floor + 1:
                return
            if found.last_lsn > floor:
                yield path, end, found
                floor = found.last_lsn

    from kvstore.lsm import recovery

    patch.setattr(recovery, "locate_records", until_the_first_gap)


def _log_record_claims_too_much(patch: pytest.MonkeyPatch, of_itself: int) -> None:
    from kvstore.lsm import segments

    def claim(first_lsn: int, _: int, batches: list[Any]) -> bytes:
        return wal.encode_wal_record(first_lsn, first_lsn - 1 + of_itself * len(batches), batches)

    patch.setattr(segments, "encode_wal_record", claim)


def _log_record_claims_itself_durable(patch: pytest.MonkeyPatch) -> None:
    _log_record_claims_too_much(patch, 1)


def _log_record_claims_the_one_before_it_durable(patch: pytest.MonkeyPatch) -> None:
    _log_record_claims_too_much(patch, 0)


def _sync_vouches_for_what_came_after_it_began(patch: pytest.MonkeyPatch) -> None:
    finish_sync = Segments.finish_sync
    patch.setattr(
        Segments,
        "finish_sync",
        lambda self, sync: finish_sync(self, replace(sync, lsn=self.last_lsn)),
    )


def _torn_edit_taken_for_damage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(manifest, "_is_followed", lambda data, offset: True)


def _edit_added_behind_what_proves_the_one_before(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory_filesystem._MemoryWriter, "truncate", lambda self, size: None)


def _log_without_its_first_page_refused(patch: pytest.MonkeyPatch) -> None:
    def checked(data: bytes, path: str) -> None:
        if data.strip(b"\0") and not wal.MAGIC.startswith(data[:8]):
            raise Corruption(path, "is no log")

    patch.setattr(wal, "_check_header", checked)


def _deletions_always_dropped(patch: pytest.MonkeyPatch) -> None:
    def careless(*arguments: Any) -> Any:
        choice = choose(*arguments)
        return choice and replace(choice, drop_deletions=True)

    patch.setattr(compaction_scheduler, "choose", careless)


def _deletions_kept_out_of_tables(patch: pytest.MonkeyPatch) -> None:
    """A flush that drops them, though older tables lie beneath."""
    chunks = Memtable.chunks

    def present(self: Memtable, *arguments: Any, **named: Any) -> Iterable[Chunk]:
        return without_deletions(chunks(self, *arguments, **named))

    class Dropping(Memtable):
        chunks = present  # type: ignore[assignment]

    patch.setattr(jobs, "Memtable", Dropping)


def _snapshot_without_undo(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Memtable, "_remember", lambda self, batch: None)


def _older_run_wins_a_merge(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(snapshot, "merge", lambda runs, reverse: merge(list(runs)[::-1], reverse))


def _failed_job_not_offered_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(maintenance.Maintenance, "job_failed", lambda self, job: None)


# what catches it


def crash_points() -> None:
    """test_lsm_crash_points.py: test_every_crash_point_with_every_fate."""
    for plan in PLANS:
        crash_everywhere(plan, shares=7)


def records_that_were_not_synced() -> None:
    """test_lsm_crash_points.py: test_log_records_that_were_not_synced_are_torn_and_not_damaged."""
    crash_with_records_not_synced()


def torn_edits() -> None:
    """test_lsm_pages_out_of_order.py."""
    pages.test_an_edit_that_was_torn_out_of_order_is_ignored()


def bit_flips(region: str) -> Check:
    """test_lsm_bit_flips.py: test_a_flipped_bit_gives_an_error_or_the_right_answer, of one region."""

    def check() -> None:
        check_region(region)

    check.__name__ = f"bit flips in {region}"
    return check


def same_answers() -> None:
    """test_lsm_model.py: test_the_same_steps_give_the_same_answers_under_all_options."""
    for seed in range(12):
        check_alike(seed)


def model() -> None:
    """test_lsm_model.py: test_the_engine_is_a_dict_that_survives; it need not find the shortest way."""
    some = settings(max_examples=200, derandomize=True, database=None, phases=[Phase.generate])
    run_state_machine_as_test(EngineBesideDict, settings=some)


CAUGHT: list[tuple[Plant, Check]] = [
    (_acknowledged_before_fsync, crash_points),
    (_no_directory_fsync, crash_points),
    (_manifest_written_before_its_table_is_synced, crash_points),
    (_manifest_not_synced, crash_points),
    (_current_not_synced, crash_points),
    (_sealed_segment_left_out_of_a_sync, crash_points),
    (_inputs_removed_before_the_manifest_says_so, crash_points),
    (_tables_of_a_checkpoint_not_linked, crash_points),
    (_output_of_a_crash_kept, crash_points),
    (_log_record_claims_itself_durable, records_that_were_not_synced),
    (_log_record_claims_the_one_before_it_durable, records_that_were_not_synced),
    (_sync_vouches_for_what_came_after_it_began, crash_points),
    (_torn_edit_taken_for_damage, crash_points),
    (_edit_added_behind_what_proves_the_one_before, torn_edits),
    (_log_without_its_first_page_refused, crash_points),
    (_damaged_filter_answers_absent, bit_flips("sst filter")),
    (_checksum_of_blocks_ignored, bit_flips("sst data block")),
    (_checksum_of_records_ignored, bit_flips("wal record payload")),
    (_corrupt_block_reads_as_absent, bit_flips("sst data block")),
    (_damaged_log_record_not_questioned, bit_flips("wal record payload")),
    (_deletions_always_dropped, same_answers),
    (_deletions_kept_out_of_tables, same_answers),
    (_snapshot_without_undo, same_answers),
    (_snapshot_without_undo, model),
    (_older_run_wins_a_merge, same_answers),
    (_failed_job_not_offered_again, same_answers),
]


@pytest.mark.parametrize(("plant", "check"), CAUGHT, ids=lambda part: part.__name__.strip("_"))
def test_a_planted_defect_is_caught(plant: Plant, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    # a wrong answer, or a store that is refused though nothing happened to it that may not
    with pytest.raises((AssertionError, StorageError, Overloaded)):
        check()
