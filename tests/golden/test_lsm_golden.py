"""The engine's files are formats: what one version wrote, every later one must read.

The files in `lsm` were written once, by format 2. A difference is a break, not a reason to write them anew;
only another version of lz4 may compress a block to other bytes, which a reader does not notice. They are
read by the engine, and by a decoder that was made from the docs alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kvstore.errors import UnsupportedFormat
from kvstore.lsm import Engine, MemoryFileSystem, Options
from kvstore.lsm.bloom import hash_key
from kvstore.lsm.manifest import Manifest, read_edits
from kvstore.lsm.messages import TableInfo
from kvstore.lsm.record import HEADER_BYTES
from kvstore.lsm.sstable_writer import write_tables
from kvstore.lsm.table import Table
from kvstore.lsm.table_file import TableFile
from kvstore.lsm.wal import MAGIC as WAL_MAGIC
from kvstore.lsm.wal import encode_wal_record, read_segments
from kvstore.store import DiskFileSystem
from tests.golden import lsm_decoder

STORE = Path(__file__).parent / "lsm"
EXPECTED: dict[str, Any] = json.loads((STORE.parent / "lsm.json").read_text())
MANIFEST, TABLE, WAL = "MANIFEST-00000001", "00000002.sst", "00000003.wal"
LAST_FLUSHED, OPTIONS = 40, Options(block_bytes=200, false_positive_rate=0.01)

Entry = tuple[bytes, bytes | None]


def entries(found: Any) -> list[Entry]:
    """Entries as the JSON has them: hexadecimal, null for a deletion."""
    return [(bytes.fromhex(key), None if value is None else bytes.fromhex(value)) for key, value in found]


TABLE_ENTRIES = entries(EXPECTED["table"])
WAL_RECORDS = [(first, durable, [*map(entries, batches)]) for first, durable, batches in EXPECTED["wal"]]


def written() -> dict[str, bytes]:
    """What today's code makes of the expected content, by file name."""
    fs = MemoryFileSystem()
    manifest = Manifest(fs, "store", Options().manifest_bytes)
    manifest.begin()
    chunk = [key for key, _ in TABLE_ENTRIES], [value for _, value in TABLE_ENTRIES]
    infos = write_tables(
        fs, "store", [manifest.take_number()], [chunk], 1, LAST_FLUSHED, len(TABLE_ENTRIES), OPTIONS
    )
    manifest.edit(infos, (), LAST_FLUSHED)
    manifest.close()
    log = fs.create(f"store/{WAL}")
    log.append(WAL_MAGIC + b"".join(encode_wal_record(*record) for record in WAL_RECORDS))
    return {name: read(fs, f"store/{name}") for name in fs.list("store")}


def read(fs: MemoryFileSystem, path: str) -> bytes:
    file = fs.open(path)
    return file.read(0, file.size())


def golden(name: str) -> bytes:
    return (STORE / name).read_bytes()


def info() -> TableInfo:
    *_, edit = read_edits(DiskFileSystem(), str(STORE / MANIFEST))
    return edit.added[0]


def test_the_same_content_is_written_as_the_same_bytes() -> None:
    found = written()
    # since these files were written an edit that changes nothing follows the last (docs/manifest.md)
    edit, proof = found[MANIFEST][: len(golden(MANIFEST))], found[MANIFEST][len(golden(MANIFEST)) :]
    assert msgspec.msgpack.decode(proof[HEADER_BYTES:]) == [3, LAST_FLUSHED, [], []]
    assert found | {MANIFEST: edit} == {path.name: path.read_bytes() for path in STORE.iterdir()}


def test_a_table_is_read() -> None:
    table = Table(TableFile(DiskFileSystem(), str(STORE), info()), None)
    found = [e for keys, values in table.chunks(b"", None) for e in zip(keys, values, strict=True)]
    assert found == TABLE_ENTRIES
    assert table.holds_hash is not None
    assert all(table.get(key, hash_key(key), b"absent") == value for key, value in TABLE_ENTRIES)
    table.close()


def test_a_log_is_read() -> None:
    found = read_segments(DiskFileSystem(), [str(STORE / WAL)], LAST_FLUSHED)
    assert [(r.first_lsn, r.durable_lsn, r.batches) for r in found] == WAL_RECORDS


def test_a_store_is_opened(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(STORE, store)
    content = dict(TABLE_ENTRIES)
    for _, _, batches in WAL_RECORDS:
        for batch in batches:
            content.update(batch)
    engine = Engine.open(DiskFileSystem(), str(store))
    live = sorted((key, value) for key, value in content.items() if value is not None)
    assert list(engine.scan()) == live
    assert engine.last_lsn == WAL_RECORDS[-1][0] + len(WAL_RECORDS[-1][2]) - 1
    engine.close()


# by the docs alone


def test_the_docs_suffice_to_read_a_table() -> None:
    table = lsm_decoder.Table(golden(TABLE))
    assert table.entries == TABLE_ENTRIES
    assert len(table.blocks) > 2
    deletions = sum(value is None for _, value in TABLE_ENTRIES)
    first, last = TABLE_ENTRIES[0][0], TABLE_ENTRIES[-1][0]
    assert table.properties == [len(TABLE_ENTRIES), deletions, first, last, LAST_FLUSHED]
    assert all(table.may_hold(key) for key, _ in TABLE_ENTRIES)
    assert sum(table.may_hold(b"absent-%d" % i) for i in range(1000)) < 50


def test_the_docs_suffice_to_read_a_log() -> None:
    assert lsm_decoder.read_wal(golden(WAL)) == WAL_RECORDS


def test_the_docs_suffice_to_read_a_manifest() -> None:
    assert golden("CURRENT") == MANIFEST.encode() + b"\n"
    first, second = lsm_decoder.read_manifest(golden(MANIFEST))
    assert first == [2, 0, [], []]
    deletions = sum(value is None for _, value in TABLE_ENTRIES)
    keys = TABLE_ENTRIES[0][0], TABLE_ENTRIES[-1][0]
    size = len(golden(TABLE))
    assert second == [3, 40, [[2, 1, size, len(TABLE_ENTRIES), deletions, *keys, 40]], []]


# other formats


@pytest.mark.parametrize(("name", "magic_at"), [(MANIFEST, 0), (WAL, 0), (TABLE, -8)])
@pytest.mark.parametrize(
    ("magic", "reason"),
    [
        (b"\x01", "of format 1, this program reads 2"),
        (b"\x03", "of format 3, this program reads 2"),
        (b"\x89PNG\r\n\x1a\n", "it has another magic"),
    ],
)
def test_another_format_is_refused_and_left_alone(
    tmp_path: Path, name: str, magic_at: int, magic: bytes, reason: str
) -> None:
    store = tmp_path / "store"
    shutil.copytree(STORE, store)
    data = bytearray(golden(name))
    end = magic_at % len(data) + 8
    data[end - len(magic) : end] = magic
    (store / name).write_bytes(data)
    with pytest.raises(UnsupportedFormat, match=reason) as caught:
        Engine.open(DiskFileSystem(), str(store))
    assert caught.value.path == str(store / name)
    assert "\n" not in str(caught.value)
    assert (store / name).read_bytes() == data
    assert (store / TABLE).stat().st_size == len(golden(TABLE))
