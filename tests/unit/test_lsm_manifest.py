"""The manifest by itself: what adds up to the state, when it is durable, what a failure leaves."""

from __future__ import annotations

import random

import msgspec
import pytest

from kvstore.errors import Corruption, StorageFailed, StorageFull, UnsupportedFormat
from kvstore.lsm import Fate, MemoryFileSystem
from kvstore.lsm.manifest import (
    _GIVEN_OUT,
    CURRENT,
    MAGIC,
    Edit,
    Manifest,
    StoreState,
    current_manifest,
    read_edits,
)
from kvstore.lsm.messages import TableInfo
from kvstore.lsm.record import encode_record
from tests.faulty_filesystem import Fault, FaultyFileSystem


def table(number: int) -> TableInfo:
    return TableInfo(number, 0, 100, 1, 0, b"a", b"b", 1)


def disk() -> FaultyFileSystem:
    return FaultyFileSystem(MemoryFileSystem())


def after_crash(fs: FaultyFileSystem) -> MemoryFileSystem:
    inner = fs._inner
    assert isinstance(inner, MemoryFileSystem)
    return inner.crash(random.Random(1), Fate.NONE)


def read(fs: MemoryFileSystem | FaultyFileSystem) -> Manifest:
    return Manifest(fs, "d", 1000)


def state(manifest: StoreState) -> tuple[int, list[int]]:
    return manifest.flushed_lsn, sorted(manifest.tables)


def fail_next(fs: FaultyFileSystem, fault: Fault, call: int = 1) -> None:
    fs.fault = fault
    fs.fail_from = fs.fail_to = fs.number + call


# the state


def test_edits_add_up() -> None:
    added = StoreState()
    assert (added.next_file, state(added)) == (1, (0, []))
    added.apply(Edit(9, 5, (table(3), table(2)), ()))
    added.apply(Edit(7, 6, (table(4),), (3, 99)))
    assert (added.next_file, state(added)) == (9, (6, [2, 4]))
    assert added.everything() == Edit(9, 6, (table(2), table(4)))


# CURRENT


@pytest.mark.parametrize("name", ["00000001.sst", "00000001.wal"])
def test_without_current_there_must_be_neither_tables_nor_logs(name: str) -> None:
    fs = MemoryFileSystem()
    fs.create("d/LOCK")
    fs.create("d/MANIFEST-00000001")
    assert current_manifest(fs, "d") == ""
    fs.create(f"d/{name}")
    with pytest.raises(Corruption, match="is missing, but there are tables or logs"):
        current_manifest(fs, "d")


@pytest.mark.parametrize("content", [b"MANIFEST-00000002\n", b"LOCK\n", b"", b"\xff", b"x" * 50])
def test_current_must_name_a_manifest_that_is_there(content: bytes) -> None:
    fs = MemoryFileSystem()
    fs.create("d/MANIFEST-00000001")
    fs.create("d/LOCK")
    file = fs.create(f"d/{CURRENT}")
    file.append(content)
    with pytest.raises(Corruption, match="which is no manifest here"):
        current_manifest(fs, "d")
    fs.create(f"d/{CURRENT}").append(b"MANIFEST-00000001\n")
    assert current_manifest(fs, "d") == "MANIFEST-00000001"


# reading


def edits_of(data: bytes) -> list[int]:
    fs = MemoryFileSystem()
    fs.create("d/m").append(data)
    return [edit.flushed_lsn for edit in read_edits(fs, "d/m")]


def test_edits_are_read_in_order_up_to_what_was_not_synced() -> None:
    one, two = (encode_record(b"\x94\x05%c\x90\x90" % lsn) for lsn in (1, 2))
    damaged = two[:-1] + b"\1"
    assert edits_of(MAGIC + one + two) == [1, 2]
    for tail in (two[:5], two[:-1], damaged, bytes(50), b"\1" * 50, damaged + two[:-1]):
        assert edits_of(MAGIC + one + tail) == [1]
    for tail in (damaged + one, b"\1" + one, bytes(20) + one, encode_record(b"\x91\x05")):
        with pytest.raises(Corruption, match=f"the edit at byte {len(MAGIC + one)} is damaged") as raised:
            edits_of(MAGIC + one + tail)
        assert raised.value.offset == len(MAGIC + one)
    for begin in (b"", one[:-1], damaged):
        with pytest.raises(Corruption, match="holds no edit"):
            edits_of(MAGIC + begin)
    with pytest.raises(Corruption, match="is cut off"):
        edits_of(MAGIC[:-1])
    with pytest.raises(UnsupportedFormat):
        edits_of(MAGIC[:-1] + b"\1" + one)


# numbers


def test_numbers_are_given_out_once_and_above_all_that_are_here() -> None:
    fs = MemoryFileSystem()
    for name in ("00000007.wal", "LOCK", "x.tmp", "²", "MANIFEST-00000004"):
        fs.create(f"d/{name}")
    fs.create("d/00000005.sst")
    for name in ("00000007.wal", "00000005.sst"):
        fs.remove(f"d/{name}")
    manifest = read(fs)
    assert [manifest.take_number(), manifest.take_number(), manifest.next_file] == [5, 6, 7]
    manifest.begin()
    fs.create("d/00000008.wal")
    assert read(fs).next_file == 8 + _GIVEN_OUT, "numbers of a worker that outlived its owner"
    fs.create(f"d/{9 + _GIVEN_OUT:08d}.sst")
    assert read(fs).next_file == 10 + _GIVEN_OUT


# changing


def test_an_edit_is_durable_when_it_returns() -> None:
    fs = disk()
    manifest = read(fs)
    assert manifest.name == ""
    manifest.edit([table(2), table(3)], [], 5)
    assert state(manifest) == state(read(after_crash(fs))) == (5, [2, 3])
    manifest.edit([table(4)], [2], 0)  # 0: what is in tables does not change
    assert state(manifest) == state(read(after_crash(fs))) == (5, [3, 4])
    number = manifest.next_file
    manifest.take_number()
    manifest.edit([], [], 0)
    assert read(after_crash(fs)).next_file == number + 1 + _GIVEN_OUT
    assert len(fs.writers) == 1
    manifest.close()
    assert fs.writers == set()


def test_a_log_of_edits_begins_once() -> None:
    fs = disk()
    manifest = read(fs)
    manifest.begin()
    first = manifest.name
    manifest.begin()
    manifest.edit([], [], 1)
    assert manifest.name == first
    assert sorted(fs.list("d")) == [CURRENT, first]


def test_a_log_of_edits_begins_anew_when_it_has_grown() -> None:
    """Beyond its largest size, and to twice its first edit; what was before it goes."""
    proof = len(encode_record(b"\x94\x02\x01\x90\x90"))  # of the last edit: it does not count
    for largest in (100, 200):
        fs = disk()
        manifest = Manifest(fs, "d", largest)
        manifest.begin()
        first, size = manifest.name, 0
        while manifest.name == first:
            before = size
            manifest.edit([], [99] * 5, 1)
            size = (fs.open(f"d/{first}").size() - proof) if manifest.name == first else before
        record = len(encode_record(b"\x94\x02\x01\x90\x95" + b"c" * 5))
        assert size <= largest < size + record
        assert sorted(fs.list("d")) == [CURRENT, manifest.name]
        assert len(fs.writers) == 1
    fs = disk()
    manifest = Manifest(fs, "d", 1)
    manifest.edit([table(number) for number in range(100, 140)], [], 1)
    name = manifest.name
    first_edit = size = fs.open(f"d/{name}").size()
    while manifest.name == name:
        before = size
        manifest.edit([table(3)], [], 1)
        size = fs.open(f"d/{name}").size() - proof if manifest.name == name else before
    record = len(encode_record(msgspec.msgpack.encode(Edit(2, 1, (table(3),)))))
    assert size <= 2 * first_edit < size + record
    assert state(read(after_crash(fs))) == (1, [3, *range(100, 140)])


@pytest.mark.parametrize("call", range(1, 9))
@pytest.mark.parametrize("fault", [Fault.ENOSPC, Fault.EIO])
def test_a_log_that_cannot_be_begun_leaves_nothing(fault: Fault, call: int) -> None:
    """Made, written, synced, its name too; then CURRENT made, written, synced, renamed."""
    fs = disk()
    manifest = read(fs)
    fail_next(fs, fault, call)
    # a sync that fails is no lack of space
    full = fault is Fault.ENOSPC and call in (1, 2, 5, 6, 8)
    with pytest.raises(StorageFull if full else StorageFailed):
        manifest.begin()
    assert fs.writers == set()
    if full:
        assert fs.list("d") == []
        assert manifest.name == ""
        manifest.begin()
        assert state(read(after_crash(fs))) == (0, [])


def test_where_there_is_no_space_nothing_has_changed() -> None:
    fs = disk()
    manifest = read(fs)
    manifest.edit([table(2)], [], 1)
    for call in (2,):  # behind a truncate
        fail_next(fs, Fault.ENOSPC, call)
        with pytest.raises(StorageFull):
            manifest.edit([table(3)], [2], 2)
        assert state(manifest) == state(read(after_crash(fs))) == (1, [2])
    manifest.edit([table(3)], [2], 2)
    assert state(manifest) == state(read(after_crash(fs))) == (2, [3])


def test_an_edit_that_is_durable_needs_no_space_for_its_proof_or_a_new_log() -> None:
    fs = disk()
    manifest = Manifest(fs, "d", 1)
    manifest.edit([table(2)], [], 1)
    fs.fault, fs.fail_from, fs.fail_to = Fault.ENOSPC, fs.number + 4, fs.number + 100
    manifest.edit([table(3)] * 20, [], 2)
    name = manifest.name
    assert fs.injected["append"] == 1
    assert fs.injected["create"] >= 1
    fs.heal()
    assert state(manifest) == state(read(after_crash(fs))) == (2, [2, 3])
    manifest.edit([], [2], 3)
    assert manifest.name != name
    assert state(read(after_crash(fs))) == (3, [3])


def test_a_manifest_that_cannot_be_removed_stays_until_the_next_open() -> None:
    fs = disk()
    manifest = Manifest(fs, "d", 1)
    manifest.begin()
    old = manifest.name
    while manifest.name == old:
        fs.fault, fs.fail_from, fs.fail_to = Fault.EIO, 0, 0
        before = fs.calls["remove"]
        fail_removals(fs)
        manifest.edit([table(5)] * 3, [], 1)
    assert fs.calls["remove"] == before + 1
    assert old in fs.list("d")
    assert state(read(after_crash(fs))) == (1, [5])


def fail_removals(fs: FaultyFileSystem) -> None:
    check = fs.check

    def failing(kind: str, path: str) -> None:
        check(kind, path)
        if kind == "remove":
            raise StorageFailed(path)

    fs.check = failing  # type: ignore[method-assign]


def test_what_was_read_is_settled_before_anything_is_built_on_it() -> None:
    inner = MemoryFileSystem()
    fs = FaultyFileSystem(inner)
    read(fs).settle()
    assert (fs.calls["sync"], fs.calls["sync_directory"]) == (0, 1)
    manifest = read(fs)
    manifest.begin()
    syncs = fs.calls["sync"], fs.calls["sync_directory"]
    read(fs).settle()
    assert (fs.calls["sync"], fs.calls["sync_directory"]) == (syncs[0] + 1, syncs[1] + 1)
    assert len(fs.writers) == 1


def test_a_copy_is_a_store_of_its_own() -> None:
    fs = disk()
    manifest = read(fs)
    manifest.edit([table(2)], [], 7)
    name = manifest.name
    manifest.copy_to("copy")
    assert len(fs.writers) == 1
    assert manifest.name == name
    assert state(Manifest(after_crash(fs), "copy", 1000)) == (7, [2])
