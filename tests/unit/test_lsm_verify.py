"""`verify` names what is wrong with a store, wherever it is, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import pytest

from kvstore.errors import WrongDataDirectory
from kvstore.lsm import Compaction, Engine, MemoryFileSystem, Options
from kvstore.lsm.block import seal
from kvstore.lsm.manifest import Manifest
from kvstore.lsm.messages import TableInfo, table_name
from kvstore.lsm.problems import Counts, Kind, Problem
from kvstore.lsm.sstable import FOOTER_BYTES, Properties
from kvstore.lsm.sstable_writer import TableWriter, write_tables
from kvstore.lsm.stopped import read_state
from kvstore.lsm.table_file import TableFile
from kvstore.lsm.verify import verify
from kvstore.lsm.verify_table import verify_table

OPTIONS = Options(block_bytes=400, table_bytes=3000, compaction=Compaction.LEVELED)


def key(number: int) -> bytes:
    return b"key-%04d" % number


@pytest.fixture
def store() -> MemoryFileSystem:
    """Four tables in level 1, one in level 0, and three records of log."""
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "store", OPTIONS)
    for part in range(4):
        engine.write([(key(i), b"value %d " % i * (i % 7)) for i in range(part, 400, 4)])
        engine.flush()
    engine.maintenance.compact()
    engine.write([(key(i), None if i % 2 else b"new") for i in range(100, 150)])
    engine.flush()
    for i in range(3):
        engine.write([(key(i), b"in the log"), (b"other", None)])
        engine.sync()
    engine.close()
    return fs


def contents(fs: MemoryFileSystem) -> dict[str, bytes]:
    files = {name: fs.open(f"store/{name}") for name in fs.list("store")}
    return {name: file.read(0, file.size()) for name, file in files.items()}


def found(fs: MemoryFileSystem) -> list[Problem]:
    before = contents(fs)
    problems = list(verify(fs, "store"))
    assert contents(fs) == before
    return problems


def one(fs: MemoryFileSystem) -> Problem:
    (problem,) = found(fs)
    return problem


def put(fs: MemoryFileSystem, name: str, data: bytes) -> None:
    fs.create(f"store/{name}").append(data)


def infos(fs: MemoryFileSystem) -> list[TableInfo]:
    return list(read_state(fs, "store").tables.values())


def segment(fs: MemoryFileSystem) -> str:
    (name,) = (name for name in fs.list("store") if name.endswith(".wal"))
    return name


def test_a_good_store_is_read_to_the_last_byte(store: MemoryFileSystem) -> None:
    counts, read = Counts(), list[int]()
    assert list(verify(store, "store", counts, read.append)) == []
    files = contents(store)
    assert counts.files == len(files) - 1  # LOCK is empty
    assert counts.bytes == sum(read) == sum(map(len, files.values()))
    assert counts.entries == sum(info.entries for info in infos(store)) + 6
    assert len(infos(store)) >= 3


def test_every_flipped_bit_is_found_and_its_file_named(store: MemoryFileSystem) -> None:
    for name, data in contents(store).items():
        for offset in range(0, len(data), 7):
            store.corrupt(f"store/{name}", offset, 1 << offset % 8)
            problems = [p for p in verify(store, "store") if not p.kind.harmless]
            assert {problem.file for problem in problems} >= {name}, (name, offset, problems)
            assert all(offset >= (p.offset or 0) for p in problems if p.file == name), (name, offset)
            store.corrupt(f"store/{name}", offset, 1 << offset % 8)
    assert found(store) == []


def test_a_bad_block_is_named_with_its_keys(store: MemoryFileSystem) -> None:
    info = infos(store)[1]
    table = TableFile(store, "store", info)
    places = list(table.read_index().places())
    for number, (offset, length, last) in enumerate(places):
        store.corrupt(f"store/{table_name(info.number)}", offset + length // 2, 4)
        problem = one(store)
        assert (problem.kind, problem.file, problem.offset) == (
            Kind.DAMAGED,
            table_name(info.number),
            offset,
        )
        first = places[number - 1][2] if number else info.smallest
        assert problem.keys == (first, last)
        assert problem.what == f"block at {offset}: checksum does not match"
        store.corrupt(f"store/{table_name(info.number)}", offset + length // 2, 4)


@pytest.mark.parametrize("part", range(4), ids=["filter", "index", "properties", "footer"])
def test_what_leads_to_the_blocks_is_named_with_all_keys(store: MemoryFileSystem, part: int) -> None:
    info = infos(store)[1]
    places = [*TableFile(store, "store", info).other_places(), (info.size - FOOTER_BYTES, 20)]
    offset, length = places[part]
    store.corrupt(f"store/{table_name(info.number)}", offset + length // 2, 4)
    problem = one(store)
    assert (problem.kind, problem.file) == (Kind.DAMAGED, table_name(info.number))
    assert problem.keys == (info.smallest, info.largest)
    assert problem.offset == (offset if part < 3 else None)


# contradictions

Change = Callable[[TableInfo], TableInfo]
KEYS = [key(i) for i in range(100)]


def table_with(keys: Sequence[bytes], change: Change = lambda info: info) -> list[str]:
    """What is wrong with a table of these keys when the manifest says something else of it."""
    fs = MemoryFileSystem()
    chunk = list(keys), [b"v" if i % 3 else None for i in range(len(keys))]
    (info,) = write_tables(fs, "store", [7], [chunk], 1, 9, len(keys), OPTIONS)
    problems = list(verify_table(fs, "store", change(info), Counts(), lambda _: None))
    assert {problem.kind for problem in problems} <= {Kind.WRONG}
    return [problem.what for problem in problems]


def test_a_table_that_contradicts_itself() -> None:
    assert table_with(KEYS) == []
    swapped = [*KEYS[:50], KEYS[51], KEYS[50], *KEYS[52:]]
    assert "keys are not in order" in "".join(table_with(swapped))
    assert "keys are not in order" in "".join(table_with([*KEYS[:50], KEYS[49], *KEYS[50:]]))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"entries": 99}, "its properties say (100, 34), the manifest says (99, 34)"),
        ({"deletions": 1}, "its properties say (100, 34), the manifest says (100, 1)"),
        ({"last_lsn": 8}, "its last LSN is 9, in the manifest 8"),
        ({"smallest": b"a"}, "its smallest key is not that of properties and manifest"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_table_that_contradicts_the_manifest(change: dict[str, object], what: str) -> None:
    assert table_with(KEYS, lambda info: msgspec.structs.replace(info, **change)) == [what]


def test_a_table_whose_properties_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(entries: int, *rest: object) -> Properties:
        return Properties(entries + 1, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("kvstore.lsm.sstable_writer.Properties", wrong)
    first, second = table_with(KEYS)
    assert first == "has 100 entries, 34 of them deletions; its properties say (101, 34)"
    assert second == "its properties say (101, 34), the manifest says (100, 34)"


def test_bytes_that_no_checksum_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    append = TableWriter._append

    def with_a_hole(writer: TableWriter, data: bytes) -> tuple[int, int]:
        place = append(writer, data)
        if data == seal(writer._filter.encode()):
            append(writer, b"\0")
        return place

    monkeypatch.setattr(TableWriter, "_append", with_a_hole)
    (what,) = table_with(KEYS)
    assert what.startswith("a block begins at ")


def test_a_filter_that_denies_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.lsm.bloom.BloomFilter.update", lambda self, keys: None)
    problems = table_with(KEYS)
    assert problems
    assert all(what.endswith("the filter denies keys that are in it") for what in problems)


def test_tables_of_a_level_that_meet() -> None:
    fs = MemoryFileSystem()
    manifest = Manifest(fs, "store", Options().manifest_bytes)
    manifest.begin()
    for keys in (KEYS[:60], KEYS[50:]):
        values: list[bytes | None] = [b"v"] * len(keys)
        chunk = list(keys), values
        number = manifest.take_number()
        manifest.edit(write_tables(fs, "store", [number], [chunk], 2, 9, len(keys), OPTIONS), (), 9)
    manifest.close()
    problem = one(fs)
    assert (problem.kind, problem.file) == (Kind.WRONG, "00000003.sst")
    assert problem.keys == (KEYS[50], KEYS[59])
    assert problem.what == "meets 00000002.sst, which is of level 2 too"


# files


def test_a_missing_table(store: MemoryFileSystem) -> None:
    info = infos(store)[0]
    store.remove(f"store/{table_name(info.number)}")
    problem = one(store)
    assert (problem.kind, problem.file) == (Kind.MISSING, table_name(info.number))
    assert problem.keys == (info.smallest, info.largest)


def test_a_table_that_was_cut_off_or_has_grown(store: MemoryFileSystem) -> None:
    name = table_name(infos(store)[0].number)
    data = contents(store)[name]
    for changed in (b"", data[:10], data[:-1], data + b"\0"):
        put(store, name, changed)
        assert f"has {len(changed)} bytes, the manifest says {len(data)}" in one(store).what


def test_other_files(store: MemoryFileSystem) -> None:
    for name, kind in (
        ("00009999.sst", Kind.LEFTOVER),
        ("MANIFEST-00000000", Kind.LEFTOVER),
        ("CURRENT.new", Kind.LEFTOVER),
        ("letter.txt", Kind.STRANGER),
    ):
        put(store, name, b"x")
        problem = one(store)
        assert (problem.kind, problem.file) == (kind, name)
        store.remove(f"store/{name}")


@pytest.mark.parametrize(
    ("current", "file"),
    [(b"MANIFEST-00000000\n", "CURRENT"), (b"", "CURRENT"), (b"\xff\xfe", "CURRENT"), (None, "CURRENT")],
)
def test_without_a_manifest_nothing_else_can_be_told(
    store: MemoryFileSystem, current: bytes | None, file: str
) -> None:
    if current is None:
        store.remove("store/CURRENT")
    else:
        put(store, "CURRENT", current)
    assert one(store).file == file


def test_current_must_hold_nothing_but_a_name(store: MemoryFileSystem) -> None:
    for end in (b"", b"\x0b", b"\n\n"):
        put(store, "CURRENT", contents(store)["CURRENT"].strip() + end)
        assert (one(store).kind, one(store).file) == (Kind.WRONG, "CURRENT")


# the log


def test_a_log_that_a_crash_has_torn_is_no_damage(store: MemoryFileSystem) -> None:
    name = segment(store)
    whole = contents(store)[name]
    for torn in (whole[:-1], whole[:-30], whole + b"\0" * 100, whole[:5], b"", b"\0" * 50):
        put(store, name, torn)
        problem = one(store)
        assert (problem.kind, problem.file) == (Kind.TORN, name), len(torn)


def test_damage_in_the_middle_of_a_log(store: MemoryFileSystem) -> None:
    name = segment(store)
    size = (store.size(f"store/{name}") - 8) // 3
    store.corrupt(f"store/{name}", 8 + size + 20, 1)
    gap, verdict = found(store)
    assert (gap.kind, gap.file, gap.offset) == (Kind.DAMAGED, name, 8 + size)
    assert gap.what == f"{size} bytes at {8 + size} between records are damaged"
    assert verdict.file == name
    assert "a later one proves that they were durable" in verdict.what


def test_a_torn_edit_is_no_damage(store: MemoryFileSystem) -> None:
    name = contents(store)["CURRENT"].decode().strip()
    whole = contents(store)[name]
    put(store, name, whole + b"\x01\x02")
    problem = one(store)
    assert (problem.kind, problem.file, problem.offset) == (Kind.TORN, name, len(whole))


def test_the_files_of_another_format(store: MemoryFileSystem) -> None:
    table, manifest = table_name(infos(store)[0].number), contents(store)["CURRENT"].decode().strip()
    for name, version_at in ((table, -1), (segment(store), 7), (manifest, 7)):
        whole = contents(store)[name]
        data = bytearray(whole)
        data[version_at] = 9
        put(store, name, bytes(data))
        problem = one(store)
        assert (problem.kind, problem.file) == (Kind.FORMAT, name)
        assert problem.what.endswith("of format 9, this program reads 2")
        put(store, name, whole)


def test_a_running_store_is_refused(store: MemoryFileSystem) -> None:
    engine = Engine.open(store, "store", replace(OPTIONS, memtable_bytes=1000))
    with pytest.raises(WrongDataDirectory, match="locked"):
        list(verify(store, "store"))
    engine.close()
    assert found(store) == []
    assert store.locked == set()


def test_a_checkpoint_is_verified_without_a_lock_file(store: MemoryFileSystem) -> None:
    engine = Engine.open(store, "store", OPTIONS)
    engine.checkpoint("copy")
    engine.close()
    before = store.list("copy")
    assert "LOCK" not in before
    assert list(verify(store, "copy")) == []
    assert store.list("copy") == before
