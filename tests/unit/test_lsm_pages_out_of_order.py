"""Pages are written back in any order: what a crash then leaves is no damage, and damage is no such crash."""

from __future__ import annotations

import random

import pytest

from kvstore.errors import Corruption, UnsupportedFormat
from kvstore.lsm import Engine, Fate, MemoryFileSystem, SimulatedCrash
from kvstore.lsm.filesystem import WritableFile
from kvstore.lsm.manifest import Edit, Manifest, read_edits
from kvstore.lsm.memory_filesystem import PAGE_BYTES
from kvstore.lsm.wal import encode_wal_record

SEEDS = range(40)


def after_crash(fs: MemoryFileSystem, seed: int, fate: Fate = Fate.PAGES) -> MemoryFileSystem:
    return fs.crash(random.Random(seed), fate)


def content(fs: MemoryFileSystem, path: str) -> bytes:
    return fs.open(path).read(0, 10_000)


# the model of the disk


def found(fs: MemoryFileSystem, fate: Fate) -> set[bytes]:
    """What the file `d/f` may hold after a crash."""
    return {content(after_crash(fs, seed, fate), "d/f") for seed in range(200)}


def synced_file(data: bytes) -> tuple[MemoryFileSystem, WritableFile]:
    fs = MemoryFileSystem()
    file = fs.create("d/f")
    file.append(data)
    file.sync()
    fs.sync_directory("d")
    return fs, file


def test_any_subset_of_the_pages_that_were_not_synced_is_kept() -> None:
    old, a, b = b"o" * (PAGE_BYTES // 2), b"a" * (PAGE_BYTES // 2), b"b" * PAGE_BYTES
    fs, file = synced_file(old)
    file.append(a + b)
    hole = bytes(PAGE_BYTES // 2)
    assert found(fs, Fate.PAGES) == {old, old + a, old + a + b, old + hole + b}
    assert found(fs, Fate.NONE) == {old}
    assert found(fs, Fate.ALL) == {old + a + b}
    assert found(fs, Fate.RANDOM) <= {(old + a + b)[:n] for n in range(len(old), len(old + a + b) + 1)}


def test_a_truncate_that_was_not_synced_may_be_undone() -> None:
    fs, file = synced_file(b"0123456789")
    file.truncate(4)
    for fate in (Fate.PAGES, Fate.RANDOM):
        assert {b"0123", b"0123456789"} <= found(fs, fate)
    file.append(b"new")
    assert found(fs, Fate.PAGES) == {b"0123", b"0123new", b"0123456789", b"0123new789"}
    assert found(fs, Fate.NONE) == {b"0123456789"}
    file.sync()
    for fate in Fate:
        assert found(fs, fate) == {b"0123new"}


def test_a_sync_covers_what_was_there_when_it_began() -> None:
    fs, file = synced_file(b"before ")
    file.append(b"covered ")
    fs.sync_begins([file])
    file.append(b"late")
    file.sync()
    assert content(fs, "d/f") == b"before covered late"
    assert found(fs, Fate.NONE) == {b"before covered "}
    file.sync()
    assert found(fs, Fate.NONE) == {b"before covered late"}


def test_a_truncate_during_a_sync_is_not_covered() -> None:
    fs, file = synced_file(b"0123")
    file.append(b"4567")
    fs.sync_begins([file])
    file.truncate(2)
    file.sync()
    assert found(fs, Fate.NONE) == {b"01234567"}
    assert found(fs, Fate.RANDOM) == {b"01", b"01234567"}


# the log


def test_a_log_whose_first_page_was_not_written_back_is_torn() -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "store")
    engine.write([(b"a", b"v" * 200)])
    engine.write_out()
    kept = 0
    for seed in SEEDS:
        after = after_crash(fs, seed)
        logs = [content(after, f"store/{name}") for name in after.list("store") if name.endswith(".wal")]
        kept += any(data[:8] == bytes(8) and data.strip(b"\0") for data in logs)
        content_found = dict(Engine.open(after, "store").scan())
        assert content_found in ({}, {b"a": b"v" * 200})
    assert kept


def test_a_log_whose_magic_is_zeros_and_that_was_durable_is_corruption() -> None:
    fs = MemoryFileSystem()
    fs.make_directory("store")
    Engine.open(fs, "store").close()
    (name,) = (name for name in fs.list("store") if name.endswith(".wal"))
    lost = bytes(8 + len(encode_wal_record(1, 0, [[(b"a", b"1")]])))
    fs.create(f"store/{name}").append(lost + encode_wal_record(2, 1, [[(b"b", b"2")]]))
    with pytest.raises(Corruption, match="batches 1 to 1 are damaged or missing"):
        Engine.open(fs, "store")
    fs.create(f"store/{name}").append(bytes(7) + b"\2" + encode_wal_record(1, 0, [[(b"b", b"2")]]))
    with pytest.raises(UnsupportedFormat):
        Engine.open(fs, "store")


# the manifest


def manifest_with_edits(count: int) -> tuple[MemoryFileSystem, Manifest]:
    fs = MemoryFileSystem()
    manifest = Manifest(fs, "store", 10_000)
    for lsn in range(1, count + 1):
        manifest.edit((), range(100_000, 100_020), lsn)
    return fs, manifest


def test_an_edit_that_was_torn_out_of_order_is_ignored() -> None:
    for edits in (1, 2):
        fs, manifest = manifest_with_edits(edits)
        fs.crash_at = fs.mutations + 3  # truncate, append, sync
        with pytest.raises(SimulatedCrash):
            manifest.edit((), range(100_000, 100_020), edits + 1)
        disks = [after_crash(fs, seed) for seed in range(100)]
        assert any(disk.fates["pages kept behind lost ones"] for disk in disks)
        flushed = {Manifest(disk, "store", 10_000).flushed_lsn for disk in disks}
        assert flushed == {edits, edits + 1}


@pytest.mark.parametrize("edit", range(3))
def test_an_edit_that_is_damaged_after_its_sync_is_corruption(edit: int) -> None:
    """Also the last one: what is written behind it, when it is durable, tells."""
    fs, manifest = manifest_with_edits(2)
    path = f"store/{manifest.name}"
    edits = list(read_edits(fs, path))
    assert [e.flushed_lsn for e in edits if e.removed or e is edits[0]] == [0, 1, 2]
    data = content(fs, path)
    at = [8, *(data.index(b"\xdc\x00\x14", 0), data.rindex(b"\xdc\x00\x14"))][edit]
    for offset in (at, at + 5):
        fs.corrupt(path, offset, 0x10)
        with pytest.raises(Corruption, match=r"is damaged|holds no edit"):
            list(read_edits(fs, path))
        fs.corrupt(path, offset, 0x10)
    assert list(read_edits(fs, path)) == edits


def test_what_proves_an_edit_changes_nothing() -> None:
    fs, manifest = manifest_with_edits(1)
    *_, edit, proof = read_edits(fs, f"store/{manifest.name}")
    assert edit.removed
    assert proof == Edit(edit.next_file, edit.flushed_lsn)
