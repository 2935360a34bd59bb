"""The segments of the log by themselves: what is written when, what a sync covers, what a failure leaves."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kvstore.errors import StorageError, StorageFailed, StorageFull
from kvstore.lsm import MemoryFileSystem, Sync
from kvstore.lsm.segments import NO_FILE, Segments
from kvstore.lsm.wal import MAGIC, encode_wal_record, log_paths, read_segments
from tests.faulty_filesystem import Fault, FaultyFileSystem

BATCH = [(b"key", b"value")]
RECORD = len(encode_wal_record(1, 0, [BATCH]))


def fresh() -> tuple[FaultyFileSystem, Segments]:
    fs = FaultyFileSystem(MemoryFileSystem())
    return fs, Segments(fs, "d", 0, ())


def begun() -> tuple[FaultyFileSystem, Segments]:
    fs, segments = fresh()
    segments.begin(1)
    return fs, segments


def write(segments: Segments, count: int = 1) -> None:
    for _ in range(count):
        segments.append(BATCH, 8)


def sync(segments: Segments) -> Sync:
    begun = segments.begin_sync()
    assert begun is not None
    begun.run()
    segments.finish_sync(begun)
    return begun


def fail_next(fs: FaultyFileSystem, fault: Fault, call: int = 1) -> None:
    fs.fault = fault
    fs.fail_from = fs.fail_to = fs.number + call


def lsns(fs: FaultyFileSystem) -> list[int]:
    return [record.last_lsn for record in read_segments(fs, log_paths(fs, "d"), 0)]


def test_before_it_has_begun_nothing_can_be_written() -> None:
    fs, segments = fresh()
    assert (segments.begun, segments.full, segments.syncing, segments.failed) == (False, True, False, None)
    assert segments.active.file is NO_FILE
    write(segments)
    for attempt in (segments.write_out, segments.begin_sync):
        with pytest.raises(StorageFull, match="to begin a log"):
            attempt()
    assert segments.full
    assert not segments.syncing
    assert fs.list("d") == []
    segments.close()


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("fault", [Fault.EIO, Fault.ENOSPC])
def test_a_segment_that_cannot_be_made_leaves_no_open_file(fault: Fault, call: int) -> None:
    """Made, begun with its magic, its name synced: each of them fails."""
    fs, segments = fresh()
    fail_next(fs, fault, call)
    # a sync of a directory that fails is no lack of space: nobody knows what is on the disk then
    full = fault is Fault.ENOSPC and call < 3
    with pytest.raises(StorageFull if full else StorageFailed):
        segments.begin(1)
    assert fs.writers == set()
    assert fs.list("d") == ([] if full or call == 1 else ["00000001.wal"])
    assert (segments.begun, segments.active.file) == (False, NO_FILE)
    segments.begin(2)
    assert (segments.begun, segments.full) == (True, False)
    assert fs.list("d")[-1] == "00000002.wal"
    assert fs.open("d/00000002.wal").read(0, 100) == MAGIC


def test_the_name_of_a_new_segment_is_durable_before_anything_is_written_to_it() -> None:
    fs, segments = begun()
    assert fs.calls["sync_directory"] == 1
    segments.seal(2)
    assert fs.calls["sync_directory"] == 2
    assert segments.names() == ["00000001.wal", "00000002.wal"]


def test_all_that_came_since_the_last_one_is_one_record() -> None:
    fs, segments = begun()
    appends = fs.calls["append"]
    write(segments, 3)
    assert (segments.last_lsn, segments.active.last_lsn, segments.written_bytes) == (3, 3, 0)
    segments.write_out()
    size = fs.open("d/00000001.wal").size() - len(MAGIC)
    assert segments.written_bytes == segments.log_bytes() == segments.active.bytes == size
    segments.write_out()  # nothing is left for it
    write(segments)
    segments.write_out()
    assert fs.calls["append"] == appends + 2
    assert segments.written_bytes == segments.log_bytes() == size + RECORD
    assert segments.memory() == segments.active.memtable.bytes > 4 * 8
    segments.seal(2)
    write(segments)
    segments.write_out()
    assert segments.log_bytes() == segments.written_bytes == size + 2 * RECORD
    assert segments.memory() == sum(s.memtable.bytes for s in (*segments.sealed, segments.active))
    assert lsns(fs) == [3, 4, 5]


def test_a_sync_is_of_all_sealed_segments_that_need_it_and_closes_them() -> None:
    fs, segments = begun()
    assert segments.begin_sync() is None
    write(segments)
    segments.seal(2)
    write(segments)
    segments.seal(3)
    write(segments)
    files = [segment.file for segment in (*segments.sealed, segments.active)]
    under_way = segments.begin_sync()
    assert under_way is not None
    assert segments.syncing
    with pytest.raises(AssertionError):
        segments.begin_sync()
    assert list(under_way.files) == files
    assert under_way.lsn == 3
    syncs = fs.calls["sync"]
    under_way.run()
    assert fs.calls["sync"] == syncs + 3
    segments.finish_sync(under_way)
    assert not segments.syncing
    assert fs.writers == {segments.active.file}
    assert segments.durable_lsn == 3
    assert segments.begin_sync() is None
    write(segments)
    assert sync(segments).files == (segments.active.file,)


def test_a_sealed_segment_knows_its_lsns_and_stays_until_it_is_in_a_table() -> None:
    fs, segments = begun()
    write(segments, 2)
    segments.seal(2)
    write(segments)
    segments.seal(3)
    assert [(s.number, s.floor, s.last_lsn) for s in segments.sealed] == [(1, 0, 2), (2, 2, 3)]
    assert [s.flushing for s in segments.sealed] == [False, False]
    assert (segments.active.floor, segments.active.last_lsn) == (3, 3)
    assert segments.flushed() == "00000001.wal"
    # what is in a table, is durable by that; its file needs no sync any more
    assert segments.durable_lsn == 2
    assert len(fs.writers) == 2
    write(segments)
    assert len(sync(segments).files) == 2
    assert segments.flushed() == "00000002.wal"
    assert segments.durable_lsn == 4, "it goes back"
    assert segments.names() == ["00000003.wal"]
    assert fs.writers == {segments.active.file}


def test_a_segment_that_is_flushed_during_its_sync_is_closed_after_it() -> None:
    fs, segments = begun()
    write(segments)
    segments.seal(2)
    under_way = segments.begin_sync()
    assert under_way is not None
    write(segments)
    segments.seal(3)
    segments.flushed()
    segments.flushed()
    assert segments.durable_lsn == 2
    assert len(fs.writers) == 3, "a file was closed while it is synced"
    under_way.run()
    segments.finish_sync(under_way)
    assert segments.durable_lsn == 2, "it goes back"
    assert len(fs.writers) == 2
    write(segments)
    sync(segments)
    assert fs.writers == {segments.active.file}


def test_closing_closes_every_file() -> None:
    fs, segments = begun()
    write(segments)
    segments.seal(2)
    assert len(fs.writers) == 2
    segments.close()
    assert fs.writers == set()


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("fault", [Fault.ENOSPC, Fault.SHORT_WRITE])
def test_where_there_is_no_space_to_seal_the_old_segment_grows_on(fault: Fault, waits: bool) -> None:
    fs, segments = begun()
    write(segments)
    if not waits:
        sync(segments)
    fail_next(fs, fault, 1 if waits or fault is Fault.ENOSPC else 2)
    with pytest.raises(StorageFull):
        segments.seal(2)
    fs.heal()
    # with nothing waiting, the next write will find out
    assert segments.full is waits
    assert segments.failed is None
    assert (segments.sealed, segments.active.number) == ([], 1)
    write(segments)
    sync(segments)
    assert not segments.full
    assert lsns(fs)[-1] == 2
    segments.seal(3)
    assert [s.number for s in segments.sealed] == [1]


def test_what_finds_no_space_is_written_when_there_is_some() -> None:
    fs, segments = begun()
    write(segments)
    for attempt in (segments.write_out, segments.begin_sync):
        fail_next(fs, Fault.SHORT_WRITE)
        fs.fail_to += 1  # a tail is cut off before the next try
        with pytest.raises(StorageFull):
            attempt()
        assert (segments.full, segments.failed, segments.syncing) == (True, None, False)
        assert segments.written_bytes == segments.active.bytes == 0
    sync(segments)
    assert (segments.full, segments.durable_lsn, lsns(fs)) == (False, 1, [1])


@pytest.mark.parametrize("attempt", ["write_out", "begin_sync", "seal"])
def test_an_append_that_fails_is_the_end(attempt: str) -> None:
    fs, segments = begun()
    write(segments)
    fail_next(fs, Fault.EIO)
    with pytest.raises(StorageFailed) as raised:
        segments.seal(2) if attempt == "seal" else getattr(segments, attempt)()
    assert segments.failed is raised.value
    assert not segments.syncing
    assert (segments.sealed, segments.active.number) == ([], 1)


def test_a_sync_that_fails_is_the_end_and_makes_nothing_durable() -> None:
    fs, segments = begun()
    write(segments)
    segments.seal(2)
    under_way = segments.begin_sync()
    assert under_way is not None
    fail_next(fs, Fault.EIO)
    with pytest.raises(StorageError) as raised:
        under_way.run()
    assert isinstance(raised.value, StorageFailed)
    segments.fail_sync(under_way, raised.value)
    assert segments.failed is raised.value
    assert (segments.syncing, segments.durable_lsn) == (False, 0)


@pytest.fixture
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every record is large."""
    monkeypatch.setattr("kvstore.lsm.segments._LARGE", 0)


@pytest.mark.usefixtures("_large")
def test_a_large_record_is_written_by_its_sync() -> None:
    fs, segments = begun()
    appends = fs.calls["append"]
    write(segments, 2)
    under_way = segments.begin_sync()
    assert under_way is not None
    assert (fs.calls["append"], segments.active.complete) == (appends, False)
    assert under_way.written == ()
    write(segments)
    with pytest.raises(AssertionError):
        segments.write_out()
    under_way.run()
    assert lsns(fs) == [2]
    segments.finish_sync(under_way)
    assert (segments.durable_lsn, segments.active.complete) == (2, False)
    assert segments.written_bytes == segments.log_bytes() > RECORD
    sync(segments)
    assert (lsns(fs), segments.durable_lsn, segments.active.complete) == ([2, 3], 3, True)


@pytest.mark.usefixtures("_large")
def test_a_segment_may_be_sealed_while_it_is_written_and_before() -> None:
    """Nothing is written to the next one before its name is durable, and that is the sync's work as well."""
    fs, segments = begun()
    names = fs.calls["sync_directory"]
    write(segments)
    under_way = segments.begin_sync()
    assert under_way is not None
    write(segments)
    segments.seal(2)
    write(segments)
    (sealed,) = segments.sealed
    assert (sealed.complete, fs.calls["sync_directory"]) == (False, names)
    under_way.run()
    segments.finish_sync(under_way)
    assert (lsns(fs), segments.durable_lsn, sealed.complete) == ([1], 1, False)
    following = segments.begin_sync()
    assert following is not None
    assert [w.segment.number for w in following.writes] == [1, 2]
    following.run()
    assert fs.calls["sync_directory"] == names + 1
    segments.finish_sync(following)
    assert (lsns(fs), segments.durable_lsn, sealed.complete) == ([1, 2, 3], 3, True)
    assert fs.writers == {segments.active.file}


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize("append", [1, 2])
def test_what_a_sync_finds_no_space_for_is_written_by_the_next_in_order(append: int) -> None:
    """Of a sealed segment, and of the active one."""
    fs, segments = begun()
    write(segments, 2)
    segments.seal(2)
    write(segments)
    under_way = segments.begin_sync()
    assert under_way is not None
    fail_next(fs, Fault.ENOSPC, 1 + append)  # the name of the second segment is synced before
    with pytest.raises(StorageFull) as raised:
        under_way.run()
    segments.fail_sync(under_way, raised.value)
    assert (segments.full, segments.syncing, segments.durable_lsn) == (True, False, 0)
    assert [s.complete for s in (*segments.sealed, segments.active)] == [append == 2, False]
    write(segments)
    names = fs.calls["sync_directory"]
    sync(segments)
    assert fs.calls["sync_directory"] == names + 1
    assert lsns(fs) == [2, 4]
    assert (segments.durable_lsn, segments.full) == (4, False)
    assert all(segment.complete for segment in (*segments.sealed, segments.active))
    assert (
        segments.log_bytes()
        == segments.written_bytes
        == fs.open("d/00000001.wal").size() + fs.open("d/00000002.wal").size() - 2 * len(MAGIC)
    )


def test_what_is_in_tables_is_freed_little_by_little() -> None:
    _, segments = begun()
    segments.append([(b"%d" % i, b"v") for i in range(100)], 300)
    old = segments.active.memtable
    segments.seal(2)
    write(segments)
    assert len(old) == 100, "it is read still"
    segments.flushed()
    assert len(old) == 100, "freed at once"
    left = [100]
    while len(old):
        write(segments)
        left.append(len(old))
    steps = [before - after for before, after in pairwise(left)]
    assert steps[0] == 16 + 4
    assert len(set(steps[:-1])) == 1
    assert segments._in_tables == []
    segments.append([(b"%d" % i, b"v") for i in range(100)], 300)
    old = segments.active.memtable
    segments.seal(3)
    segments.flushed()
    segments.append(BATCH * 5, 8)
    assert len(old) == 101 - (16 + 5 * 4)
