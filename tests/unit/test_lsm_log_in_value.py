"""A value may hold a copy of a log: of a torn or damaged record nothing is taken for records of this one."""

from __future__ import annotations

import pytest

from kvstore.errors import Corruption
from kvstore.lsm import Engine, MemoryFileSystem
from kvstore.lsm.wal import encode_wal_record

FOREIGN = encode_wal_record(2, 1000, [[(b"foreign", b"v")]]) + encode_wal_record(9, 1000, [[(b"f", b"v")]])


def crashed(after: list[bytes]) -> tuple[MemoryFileSystem, str, bytes]:
    """A store whose second record holds the copy; its log and what is in it."""
    fs = MemoryFileSystem()
    engine = Engine.open(fs, "store")
    for value in [b"first", b"<" + FOREIGN + b">" * 100, *after]:
        engine.write([(value[:5], value)])
        engine.sync()
    engine.close()
    name = next(name for name in fs.list("store") if name.endswith(".wal"))
    file = fs.open(f"store/{name}")
    return fs, f"store/{name}", file.read(0, file.size())


def test_torn_behind_the_copy() -> None:
    fs, path, data = crashed([])
    fs.create(path).append(data[:-50])
    engine = Engine.open(fs, "store")
    assert list(engine.scan()) == [(b"first", b"first")]
    engine.close()


def test_damaged_behind_the_copy() -> None:
    fs, path, data = crashed([])
    fs.corrupt(path, len(data) - 50, 1)
    engine = Engine.open(fs, "store")
    assert list(engine.scan()) == [(b"first", b"first")]
    engine.close()


def test_damaged_and_later_proved_to_be_durable() -> None:
    fs, path, data = crashed([b"third"])
    fs.corrupt(path, data.index(b">>>>") + 5, 1)
    with pytest.raises(Corruption, match="batches 2 to 2 are damaged or missing"):
        Engine.open(fs, "store")
