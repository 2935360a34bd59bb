"""What the engine takes, and what it refuses before anything is logged: types and sizes."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import lz4.block
import pytest

from kvstore.errors import ConfigError, InvalidRequest
from kvstore.lsm import Durability, Engine, MemoryFileSystem, Options
from kvstore.lsm.block import DamagedBlock, encode_entries, seal, unseal
from kvstore.lsm.bloom import BloomFilter
from kvstore.lsm.cache import BlockCache
from kvstore.lsm.limits import KEY_BYTES
from kvstore.lsm.merge import Chunk
from kvstore.lsm.sstable_writer import write_tables
from kvstore.lsm.table import Table
from kvstore.lsm.table_file import TableFile
from kvstore.store import DiskFileSystem, Store


class Text(str):
    __slots__ = ()


class Raw(bytes):
    __slots__ = ()


WRONG_ENTRIES: list[Any] = [
    ("k", b"v"),
    (b"k", "v"),
    (b"k", 5),
    (None, b"v"),
    (5, b"v"),
    (b"k", Text("v")),
    (bytearray(b"k"), b"v"),
    (b"k", bytearray(b"v")),
    (memoryview(b"k"), b"v"),
    (b"k", memoryview(b"v")),
    (Raw(b"k"), b"v"),  # which the encoder of the log does not take
    (b"k", Raw(b"v")),
    (b"k", [b"v"]),
    ((b"k",), b"v"),
]
WRONG_BATCHES: list[Any] = [
    None,
    7,
    b"kv",
    "kv",
    {b"kv": b"v"},
    {b"k"},
    [b"kv"],
    [(b"k",)],
    [(b"k", b"v", b"w")],
    [()],
    [{b"k", b"v"}],
    [None],
    ((b"k", b"v"), 7),
]


def types(value: object) -> str:
    """A name that is the same in every process."""
    parts = value if isinstance(value, tuple | list) else [value]
    return f"{type(value).__name__} of " + ", ".join(type(part).__name__ for part in parts)


def good() -> dict[bytes, bytes]:
    return {b"good": b"1"}


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("entry", WRONG_ENTRIES, ids=types)
def test_what_is_not_bytes_is_refused_before_it_is_logged(
    entry: Any, durability: Durability, tmp_path: Path
) -> None:
    with Store.open(tmp_path, Options(durability=durability)) as store:
        store.put(b"good", b"1")
        with pytest.raises(TypeError, match=r"must be bytes.*, not "):
            store.put(*entry)
        with pytest.raises(TypeError, match=r"must be bytes.*, not "):
            store.write([(b"first", b"of two"), entry])
        assert dict(store.scan()) == good()
    with Store.open(tmp_path) as store:
        assert dict(store.scan()) == good()


@pytest.mark.parametrize("key", ["k", None, 5, bytearray(b"k"), Raw(b"k")], ids=types)
def test_a_key_to_delete_is_checked_too(key: Any, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.put(b"good", b"1")
        with pytest.raises(TypeError, match="a key must be bytes, not "):
            store.delete(key)
    with Store.open(tmp_path) as store:
        assert dict(store.scan()) == good()


def test_put_does_not_delete(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.put(b"good", b"1")
        with pytest.raises(TypeError, match="a value must be bytes, not NoneType"):
            store.put(b"good", None)  # type: ignore[arg-type]
        assert dict(store.scan()) == good()


@pytest.mark.parametrize("batch", WRONG_BATCHES, ids=types)
def test_what_is_no_batch_is_refused_before_it_is_logged(batch: Any) -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "data")
    engine.write([(b"good", b"1")])
    with pytest.raises(TypeError):
        engine.write(batch)
    assert engine.last_lsn == 1
    assert dict(engine.scan()) == good()
    engine.close()
    assert dict(Engine.open(fs, "data").scan()) == good()


def pairs() -> Iterator[tuple[bytes, bytes | None]]:
    yield b"a", b"1"
    yield b"b", None


@pytest.mark.parametrize(
    "batch",
    [pairs(), tuple(pairs()), [list(entry) for entry in pairs()], dict(pairs()).items(), iter(list(pairs()))],
    ids=["generator", "tuple", "lists", "items", "iterator"],
)
def test_a_batch_may_come_from_anything_that_yields_pairs(batch: Any) -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "data")
    engine.write([(b"b", b"2")])
    engine.write(batch)
    assert dict(engine.scan()) == {b"a": b"1"}
    engine.close()
    assert dict(Engine.open(fs, "data").scan()) == {b"a": b"1"}


def test_a_generator_that_fails_writes_nothing() -> None:
    def failing() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b"1"
        raise RuntimeError("of the caller's")

    engine = Engine.open(MemoryFileSystem(), "data")
    with pytest.raises(RuntimeError):
        engine.write(failing())  # type: ignore[arg-type]
    assert engine.last_lsn == 0
    assert list(engine.scan()) == []


def test_a_batch_that_its_caller_changes_afterwards_is_logged_as_it_was() -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "data")
    batch: list[Any] = [[b"a", b"1"]]
    engine.write(batch)
    batch[0][1] = "no bytes"
    batch.append((b"b", b"2"))
    engine.close()
    assert dict(Engine.open(fs, "data").scan()) == {b"a": b"1"}


@pytest.mark.parametrize("key", ["k", None, 5, bytearray(b"k"), memoryview(b"k"), ("k",)], ids=types)
def test_a_read_of_what_can_be_no_key_says_so(key: Any, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, store.snapshot() as snapshot:
        store.put(b"k", b"v")
        for source in (store, snapshot):
            with pytest.raises(TypeError, match="a key must be bytes, not "):
                source.get(key)
            with pytest.raises(TypeError, match="a key must be bytes, not "):
                source.scan(key)  # at once, and not when it is read
            if key is not None:
                with pytest.raises(TypeError, match="a key must be bytes, not "):
                    source.scan(b"", key)
        with pytest.raises(TypeError, match="a key must be bytes, not "):
            store.scan_prefix(key)
        assert store.get(b"k") == b"v"
        assert not store._engine._segments.active.memtable._undos[1:], "a refused scan holds a snapshot"


# sizes


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("value_bytes", 1, 256 << 20),
        ("memtable_bytes", 1, 1 << 30),
        ("block_bytes", 1, 1 << 20),
        ("manifest_bytes", 1, 1 << 30),
    ],
)
def test_sizes_have_bounds(name: str, least: int, most: int) -> None:
    for size in (least, most):
        assert getattr(Options(**{name: size}), name) == size  # type: ignore[arg-type]
    for size in (least - 1, most + 1, 1 << 70):
        with pytest.raises(ConfigError, match=f"{name}={size} must be between {least} and {most}"):
            Options(**{name: size})  # type: ignore[arg-type]


def test_a_value_over_the_limit_is_refused_and_nothing_of_its_batch_is_written() -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "data", Options(value_bytes=1000))
    engine.write([(b"good", b"1")])
    for size in (1001, 100_000):
        with pytest.raises(InvalidRequest, match=f"value: has {size} bytes, the limit is 1000") as caught:
            engine.write([(b"a", b"1"), (b"b", bytes(size))])
        assert caught.value.field == "value"
    assert dict(engine.scan()) == good()
    engine.write([(b"b", bytes(1000))])
    engine.flush()
    engine.close()
    assert dict(Engine.open(fs, "data").scan()) == good() | {b"b": bytes(1000)}


def test_a_key_over_the_limit_is_refused() -> None:
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "data")
    for key in (bytes(KEY_BYTES + 1), bytes(10 * KEY_BYTES)):
        for value in (b"1", None):
            with pytest.raises(InvalidRequest, match=f"key: has {len(key)} bytes, the limit is 65536"):
                engine.write([(b"a", b"1"), (key, value)])
    assert engine.last_lsn == 0
    engine.write([(bytes(KEY_BYTES), b"1"), (b"\xff" * KEY_BYTES, b"2")])
    engine.flush()
    engine.close()
    engine = Engine.open(fs, "data")
    assert engine.get(bytes(KEY_BYTES)) == b"1"
    assert [key[:1] for key, _ in engine.scan()] == [b"\0", b"\xff"]


def test_a_batch_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few bytes in place of 1 GiB; each entry counts with what the formats need for it."""
    monkeypatch.setattr("kvstore.lsm.limits.BATCH_BYTES", 100_000)
    engine = Engine.open(MemoryFileSystem(), "data")
    entries = [(b"key-%d" % i, bytes(9_979)) for i in range(10)]
    assert sum(len(key) + len(value) + 16 for key, value in entries) == 100_000
    engine.write(entries)
    with pytest.raises(InvalidRequest, match="batch: has 100016 bytes, the limit is 100000"):
        engine.write([*entries, (b"", b"")])
    with pytest.raises(InvalidRequest, match="batch"):
        engine.write([(b"", None)] * 10_000)
    assert engine.last_lsn == 1


@pytest.mark.parametrize("size", [(64 << 20) - 16, 200 << 20])
def test_a_large_value_is_there_after_a_flush_and_a_compaction(size: int, tmp_path: Path) -> None:
    value = bytes(size)
    with Store.open(tmp_path, Options(durability=Durability.NONE)) as store:
        store.put(b"small", b"s")
        store.put(b"value", value)
        with pytest.raises(InvalidRequest):
            store.put(b"value", bytes((200 << 20) + 1))
        store.flush()
        store.put(b"zero", b"0")
        store.compact()
        assert store.get(b"small") == b"s"
        assert store.get(b"value") == value
    with Store.open(tmp_path) as store:
        assert [(key, len(found)) for key, found in store.scan()] == [
            (b"small", 1),
            (b"value", size),
            (b"zero", 1),
        ]


# what no number of the formats, and no call, may be too small for


def test_a_block_of_an_older_writer_above_64_mib_can_be_read() -> None:
    """It took values of any size, and a reader then refused them, and what lay beside them."""
    fs = MemoryFileSystem()
    chunk: Chunk = [b"a", b"b"], [b"small", bytes(80 << 20)]
    body = lz4.block.compress(encode_entries(*chunk)) + b"\1"
    block = body + int(google_crc32c.value(body)).to_bytes(4, "little")
    (info,) = write_tables(fs, "data", [1], [chunk], 0, 1, 2, Options())
    table = Table(TableFile(fs, "data", info), None)
    assert fs.open("data/00000001.sst").read(0, len(block)) == block, "not as an older one wrote it"
    assert table.look_up(b"a", None) == b"small"
    assert table.look_up(b"b", None) == chunk[1][1]


def test_a_block_that_claims_more_than_its_bytes_can_stand_for_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = lz4.block.compress(bytes(1 << 20))
    claim = (255 * len(body) + 1).to_bytes(4, "little") + body[4:] + b"\1"
    # which would allocate what is claimed
    monkeypatch.setattr(lz4.block, "decompress", lambda body: pytest.fail("it was believed"))
    with pytest.raises(DamagedBlock):
        unseal(claim + int(google_crc32c.value(claim)).to_bytes(4, "little"))


def test_what_lz4_cannot_take_is_stored_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.lsm.block.MOST_COMPRESSED", 1000)
    for size in (1000, 1001):
        sealed = seal(bytes(size))
        assert (len(sealed) < 100) == (size == 1000)
        assert unseal(sealed) == bytes(size)


def test_a_read_that_the_operating_system_cuts_short_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux reads 2 GiB at a time at most."""
    content = bytes(range(100))
    (tmp_path / "file").write_bytes(content)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 7), offset))
    file = DiskFileSystem().open(str(tmp_path / "file"))
    assert file.read(0, 100) == content
    assert file.read(50, 100) == content[50:]
    assert file.read(100, 5) == b""
    file.close()


def test_blocks_grow_with_the_index_so_that_it_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long keys in a large table: an index as large as the table would be, and no number could hold it."""
    monkeypatch.setattr("kvstore.lsm.sstable_writer.INDEX_STEP", 2000)
    fs = MemoryFileSystem()
    content = {b"%06d" % i + bytes(200): b"" for i in range(20_000)}
    chunk: Chunk = list(content), [*content.values()]
    (info,) = write_tables(fs, "data", [1], [chunk], 0, 1, len(content), Options(block_bytes=100))
    table = Table(TableFile(fs, "data", info), None)
    index = sum(len(key) for _, _, key in table.file.read_index().places())
    assert 4 * 2000 < index < 20 * 2000
    assert {key: table.look_up(key, None) for key in content} == content
    assert [key for keys, _ in table.chunks(b"", None) for key in keys] == list(content)


def test_a_filter_has_a_size_that_it_does_not_exceed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.lsm.bloom.MOST_BYTES", 1000)
    keys = [b"%d" % i for i in range(5000)]
    for rate in (0.5, 0.001, 1e-300):
        bloom = BloomFilter.empty(len(keys), rate)
        bloom.update(keys)
        assert len(bloom.encode()) <= 1000 + 16
        again = BloomFilter.decode(bloom.encode())
        assert all(key in again for key in keys)


def test_a_scan_does_not_read_many_large_blocks_at_a_time() -> None:
    fs = MemoryFileSystem()
    values = random.Random(1).randbytes(400_000)
    content = {b"%02d" % i: values[i:] for i in range(40)}
    chunk: Chunk = list(content), [*content.values()]
    (info,) = write_tables(fs, "data", [1], [chunk], 0, 1, len(content), Options())
    for cache in (None, BlockCache(1 << 20)):
        table = Table(TableFile(fs, "data", info), cache)
        for reverse in (False, True):
            chunks = list(table.chunks(b"", None, reverse))
            assert max(sum(len(value or b"") for value in chunk[1]) for chunk in chunks) <= 1 << 20
            assert {k: v for chunk in chunks for k, v in zip(*chunk, strict=True)} == content
