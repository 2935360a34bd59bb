"""The engines side by side, each behind the same few methods and with the same sizes.

Where they differ otherwise (block size, compression, shape of the tree) each has its own defaults.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, Protocol

from bench.engine.data import Entry
from kvstore.lsm import Durability, Options
from kvstore.store import Store

CACHE = 4 * 1024 * 1024
BUFFER = 4 * 1024 * 1024
"""Memtable, or write buffer. SQLite has none; it checkpoints its log when it has grown to this."""


class Contender(Protocol):
    """An open store."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""

    def put(self, key: bytes, value: bytes) -> None:
        """One entry; durable on return if opened so."""

    def write(self, batch: list[Entry]) -> None:
        """Several entries, atomically."""

    def scan(self, start: bytes) -> Iterable[Entry]:
        """All entries from `start` on, in order."""

    def settle(self) -> None:
        """Write what is in memory as tables; wait for compactions where they can be known."""

    def compact(self) -> None:
        """Merge all into one run."""

    def busy(self) -> bool:
        """Whether a flush or a compaction runs; True where that cannot be known."""

    def figures(self) -> dict[str, float]:
        """What the engine counts itself."""

    def close(self) -> None:
        """Close."""


class Ours:
    """This engine."""

    def __init__(self, directory: str, durable: bool, buffer: int) -> None:
        durability = Durability.SYNC if durable else Durability.NONE
        self._store = Store.open(
            directory, Options(memtable_bytes=buffer, cache_bytes=CACHE, durability=durability)
        )
        self.get = self._store.get
        self.put = self._store.put
        self.write = self._store.write
        self.compact = self._store.compact
        self.close = self._store.close

    def scan(self, start: bytes) -> Iterator[Entry]:
        return self._store.scan(start)

    def settle(self) -> None:
        self._store.flush()
        self._store.settle()

    def busy(self) -> bool:
        return self._store.busy

    def figures(self) -> dict[str, float]:
        statistics = self._store.statistics()
        names = "filter_useful", "filter_false", "filter_true", "cache_hits", "cache_misses", "tables"
        return {name: getattr(statistics, name) for name in names}


class LevelDB:
    """LevelDB through plyvel."""

    def __init__(self, directory: str, durable: bool, buffer: int) -> None:
        plyvel: Any = import_module("plyvel")
        self._db = plyvel.DB(
            directory,
            create_if_missing=True,
            write_buffer_size=buffer,
            lru_cache_size=CACHE,
            bloom_filter_bits=10,
        )
        self._durable = durable
        self.get = self._db.get
        self.close = self._db.close

    def put(self, key: bytes, value: bytes) -> None:
        self._db.put(key, value, sync=self._durable)

    def write(self, batch: list[Entry]) -> None:
        with self._db.write_batch(sync=self._durable) as writing:
            for key, value in batch:
                writing.put(key, value)

    def scan(self, start: bytes) -> Iterable[Entry]:
        return self._db.iterator(start=start)  # type: ignore[no-any-return]

    def settle(self) -> None:
        """LevelDB does not tell; the caller pauses."""

    def compact(self) -> None:
        self._db.compact_range()

    def busy(self) -> bool:
        return True

    def figures(self) -> dict[str, float]:
        return {}


class RocksDB:
    """RocksDB through rocksdict."""

    def __init__(self, directory: str, durable: bool, buffer: int) -> None:
        rocks: Any = import_module("rocksdict")
        options = rocks.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(buffer)
        options.set_compression_type(rocks.DBCompressionType.lz4())
        table = rocks.BlockBasedOptions()
        table.set_block_cache(rocks.Cache(CACHE))
        table.set_bloom_filter(10, False)
        options.set_block_based_table_factory(table)
        self._db = rocks.Rdict(directory, options)
        how = rocks.WriteOptions()
        how.sync = durable
        self._db.set_write_options(how)
        self._batch = rocks.WriteBatch
        self.get = self._db.get
        self.put = self._db.put
        self.close = self._db.close

    def write(self, batch: list[Entry]) -> None:
        writing = self._batch(raw_mode=True)
        for key, value in batch:
            writing.put(key, value)
        self._db.write(writing)

    def scan(self, start: bytes) -> Iterable[Entry]:
        return self._db.items(from_key=start)  # type: ignore[no-any-return]

    def settle(self) -> None:
        self._db.flush(True)

    def compact(self) -> None:
        self._db.compact_range(None, None)

    def busy(self) -> bool:
        running = ("rocksdb.num-running-compactions", "rocksdb.num-running-flushes")
        return any(self._db.property_int_value(name) for name in running)

    def figures(self) -> dict[str, float]:
        return {}


class SQLite:
    """SQLite: a table whose rows are the entries, with a write-ahead log."""

    def __init__(self, directory: str, durable: bool, buffer: int) -> None:
        self._db = sqlite3.connect(f"{directory}.sqlite", isolation_level=None)
        run = self._db.execute
        run("pragma journal_mode = wal")
        run(f"pragma wal_autocheckpoint = {buffer // 4096}")
        run(f"pragma synchronous = {'full' if durable else 'normal'}")
        run(f"pragma cache_size = {-CACHE // 1024}")
        run("create table if not exists kv (key blob primary key, value blob) without rowid")
        self.close = self._db.close

    def get(self, key: bytes) -> bytes | None:
        row = self._db.execute("select value from kv where key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, key: bytes, value: bytes) -> None:
        self._db.execute("insert or replace into kv values (?, ?)", (key, value))

    def write(self, batch: list[Entry]) -> None:
        self._db.execute("begin")
        self._db.executemany("insert or replace into kv values (?, ?)", batch)
        self._db.execute("commit")

    def scan(self, start: bytes) -> Iterable[Entry]:
        return self._db.execute("select key, value from kv where key >= ? order by key", (start,))

    def settle(self) -> None:
        self._db.execute("pragma wal_checkpoint(truncate)").fetchall()

    def compact(self) -> None:
        self._db.execute("vacuum")

    def busy(self) -> bool:
        return True

    def figures(self) -> dict[str, float]:
        return {}


CONTENDERS: dict[str, Callable[[str, bool, int], Contender]] = {
    "kvstore": Ours,
    "leveldb": LevelDB,
    "rocksdb": RocksDB,
    "sqlite": SQLite,
}
PACKAGES = {"leveldb": "plyvel", "rocksdb": "rocksdict"}
"""What must be installed for an engine to take part."""
